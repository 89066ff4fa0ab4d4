"""Two connectors tell each other what they hold; what others answer is hostile until it is read."""

from typing import Any

import msgspec
import pytest
import trio

from connector.core.rates import Asset
from connector.node import balance
from connector.node.diagnosis import PeerAnswer
from connector.protocol import btp
from tests.integration.peers import honest_pair

USD = Asset("USD", 6)
HOLDING = {
    "version": 1,
    "asset": {"code": "USD", "scale": 6},
    "debits": "1",
    "credits": "2",
    "pending_debits": "3",
    "pending_credits": "4",
}


async def test_a_peer_is_told_what_we_hold_of_it(autojump_clock: object) -> None:
    async with honest_pair() as (world, alice, bob):
        await world.assert_link_works(alice, bob)
        for peer, debits, credits_ in ((alice, "100", "0"), (bob, "0", "100")):
            await peer.send(btp.Message(77, (btp.SubProtocol(balance.NAME, btp.JSON, b""),)))
            response = await peer.receive()
            assert isinstance(response, btp.Response)
            assert response.request_id == 77
            [answer] = response.sub_protocols
            assert answer.name == balance.NAME
            said = msgspec.json.decode(answer.data)
            assert (said["debits"], said["credits"]) == (debits, credits_)


async def test_everybody_is_asked_at_once_and_who_is_silent_is_named(autojump_clock: object) -> None:
    async with honest_pair() as (world, alice, bob), trio.open_nursery() as nursery:
        answers: list[PeerAnswer] = []
        told = trio.Event()

        async def ask() -> None:
            answers.extend(await world.node._ask_peers())
            told.set()

        nursery.start_soon(ask)
        question = await alice.receive()
        assert question == btp.Message(0, (btp.SubProtocol(balance.NAME, btp.JSON, b""),))
        reply = btp.SubProtocol(balance.NAME, btp.JSON, msgspec.json.encode(HOLDING))
        await alice.send(btp.Response(0, (reply,)))
        # Bob hears the question and says nothing; his link lives on.
        assert isinstance(await bob.receive(), btp.Message)
        # The clock jumps over the time that bob is given.
        await told.wait()
        silent = "it does not know connector-balance, or did not answer in time"
        assert answers == [PeerAnswer("alice", USD, 1, 2, 3, 4), PeerAnswer("bob", USD, error=silent)]
        await world.assert_link_works(alice, bob)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": 2}, "it speaks version 2, we speak 1"),
        ({"asset": {"code": "EUR", "scale": 6}}, "it keeps the account in EUR/6, we in USD/6"),
        ({"debits": "-1"}, "its answer cannot be read"),
        ({"debits": 1}, "its answer cannot be read"),
        ({"debits": "1\n"}, "its answer cannot be read"),
        ({"debits": "9" * 41}, "its answer cannot be read"),
        ({"asset": 5}, "its answer cannot be read"),
    ],
)
def test_an_answer_that_is_of_no_use(changes: dict[str, Any], reason: str) -> None:
    answer = balance.read("alice", USD, msgspec.json.encode(HOLDING | changes))
    assert answer.error.startswith(reason)


def test_octets_that_are_no_answer() -> None:
    assert balance.read("alice", USD, b"\xff{").error.startswith("its answer cannot be read")
