"""Packets and replies of a careless or hostile peer: a clear reject, bounded memory, no effect elsewhere."""

import pytest
import trio

from connector import limits
from connector.core.entries import INCOMING, Side
from connector.protocol import btp, ilp
from tests.integration.peers import FULFILL, child, honest_pair, node_config, prepare, running


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"", "nothing found"),
        (b"\x0c", "the length is missing"),
        (FULFILL, "type 12 expected, 13 found"),
        (ilp.encode_prepare(prepare())[:-1], "octets announced"),
        (ilp.encode_prepare(prepare()) + b"\x00", "1 bytes after its end"),
        (b"\x0c\x83\x01\x00\x00" + bytes(65_536 - 100), "bytes, at most"),
    ],
)
async def test_a_packet_that_cannot_be_read_is_rejected_and_the_link_stays(
    packet: bytes, reason: str, autojump_clock: object
) -> None:
    async with honest_pair() as (world, _, _):
        mallory = await world.peer("mallory")
        await mallory.ask(packet, 3)
        frame = await mallory.receive()
        assert isinstance(frame, btp.Response)
        assert frame.request_id == 3
        reject = ilp.decode(frame.sub_protocols[0].data)
        assert isinstance(reject, ilp.Reject)
        assert (reject.code, reject.triggered_by) == ("F01", "test.node")
        assert reason in reject.message
        await mallory.ask(prepare("test.nowhere"), 3)
        assert (await mallory.rejection()).code == "F02"


async def test_a_request_id_in_flight_may_not_be_used_again(autojump_clock: object) -> None:
    async with honest_pair() as (world, _, bob):
        mallory = await world.peer("mallory")
        await mallory.ask(prepare(), 5)
        await mallory.ask(prepare(), 5)
        error = await mallory.receive()
        assert isinstance(error, btp.Error)
        assert error.request_id == 5
        assert b"request id 5 is in flight already" in error.data
        await mallory.closed()
        # The first is with bob already: it counts, though nobody can be told.
        frame = await bob.receive()
        await bob.reply(frame.request_id, FULFILL)
        await trio.testing.wait_all_tasks_blocked()
        assert world.hop("bob").account.net == -100
        # Mallory never had the Fulfill: what it owes is in doubt, until somebody decides.
        [doubt] = world.node.book.doubts.values()
        assert (doubt.incoming, doubt.amount_in) == (world.hop("mallory").account, 100)
        assert (doubt.incoming_side, doubt.outgoing_side) == (Side.OPEN, Side.OWED)
        assert world.hop("mallory").account.net == 0
        world.node.book.close(doubt.number, INCOMING, owed=False, now_ms=0)


async def test_a_flood_past_the_rate_limit_is_rejected_and_others_are_not_slowed(
    autojump_clock: object,
) -> None:
    async with honest_pair(child("flooder", max_packets_per_s=10)) as (world, alice, bob):
        flooder = await world.peer("flooder")
        for request_id in range(2, 42):
            await flooder.ask(prepare("test.nowhere"), request_id)
        codes = [(await flooder.rejection()).code for _ in range(40)]
        # The burst is one second's worth, and the mock clock stands still meanwhile.
        assert codes == ["F02"] * 10 + ["T05"] * 30
        await world.assert_link_works(alice, bob)


async def test_packets_in_flight_from_one_link_are_bounded(autojump_clock: object) -> None:
    bounds = {"in_flight_per_link_max": 3, "in_flight_max": 5, "hold_max_ms": 5_000}
    async with running(node_config(child("alice"), child("bob"), child("mallory"), limits=bounds)) as world:
        alice, bob, mallory = [await world.peer(name) for name in ("alice", "bob", "mallory")]
        for request_id in range(2, 6):
            await mallory.ask(prepare(), request_id)
        reject = await mallory.rejection()
        assert reject.code == "T02"
        assert world.node.forwarder.in_flight == 3
        for _ in range(3):
            frame = await bob.receive()
            await bob.reply(frame.request_id, FULFILL)
        await world.assert_link_works(alice, bob)


async def test_the_credit_limit_holds_for_value_in_flight(autojump_clock: object) -> None:
    async with honest_pair(child("poor", credit_limit=250)) as (world, _, bob):
        poor = await world.peer("poor")
        for request_id in (2, 3, 4):
            await poor.ask(prepare(), request_id)
        reject = await poor.rejection()
        assert reject.code == "T04"
        assert "50 left, 100 needed" in reject.message
        for _ in range(2):
            frame = await bob.receive()
            await bob.reply(frame.request_id, FULFILL)
            assert isinstance(await poor.answer(), ilp.Fulfill)
        assert world.hop("poor").account.net == 200


async def test_a_peer_that_never_answers_is_answered_for_at_the_expiry(autojump_clock: object) -> None:
    async with honest_pair() as (world, alice, bob):
        started_s = trio.current_time()
        await alice.ask(prepare(), 5)
        sent = await bob.receive()
        reject = await alice.rejection()
        assert (reject.code, reject.message) == ("R00", "bob did not answer in time")
        assert trio.current_time() - started_s == pytest.approx(limits.HOLD_MAX_MS / 1000, abs=0.01)
        # Then it answers after all: that counts for nothing.
        await bob.reply(sent.request_id, FULFILL)
        await trio.testing.wait_all_tasks_blocked()
        assert world.hop("bob").account.net == world.hop("alice").account.net == 0
        assert world.node.forwarder.counters["ignored fulfill"] == 1


async def test_a_second_answer_is_ignored(autojump_clock: object) -> None:
    async with honest_pair() as (world, alice, bob):
        await alice.ask(prepare(), 5)
        frame = await bob.receive()
        for _ in range(3):
            await bob.reply(frame.request_id, FULFILL)
        assert isinstance(await alice.answer(), ilp.Fulfill)
        await trio.testing.wait_all_tasks_blocked()
        assert world.hop("bob").account.net == -100
        assert world.node.forwarder.counters["ignored fulfill"] == 2


async def test_an_answer_to_nothing_is_ignored_without_a_reply(autojump_clock: object) -> None:
    async with honest_pair() as (world, _, _):
        mallory = await world.peer("mallory")
        await mallory.reply(4_000_000_000, FULFILL)
        await mallory.send(btp.Error(12, "T00", "X", "", b""))
        await mallory.send(btp.empty_response(13))
        await mallory.send(btp.Message(14, ()))
        # The first thing heard is the answer to the last.
        assert await mallory.receive() == btp.Response(14, ())


async def test_a_wrong_fulfillment_is_rejected_upstream_and_owes_nothing(autojump_clock: object) -> None:
    async with honest_pair() as (world, alice, bob):
        await alice.ask(prepare(), 5)
        frame = await bob.receive()
        await bob.reply(frame.request_id, ilp.encode_fulfill(ilp.Fulfill(bytes(32), b"")))
        reject = await alice.rejection()
        assert reject.code == "F05"
        assert "does not match the condition" in reject.message
        assert world.hop("bob").account.net == world.hop("alice").account.net == 0


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (btp.encode(btp.Error(0, "F00", "NotAcceptedError", "", b"no")), "answered with BTP error F00"),
        (btp.empty_response(0), "answered without an ILP packet"),
        (btp.ilp_response(0, b"\x0d\x05abc"), "sent an unreadable reply"),
        (btp.ilp_response(0, ilp.encode_prepare(prepare())), "sent an unreadable reply"),
        (btp.ilp_response(0, b""), "sent an unreadable reply"),
    ],
)
async def test_an_answer_that_is_no_ilp_reply_becomes_a_reject(
    answer: bytes, reason: str, autojump_clock: object
) -> None:
    async with honest_pair() as (_, alice, bob):
        await alice.ask(prepare(), 5)
        frame = await bob.receive()
        await bob.send(answer[:1] + frame.request_id.to_bytes(4, "big") + answer[5:])
        reject = await alice.rejection()
        assert reject.code == "T00"
        assert reason in reject.message


async def test_a_peer_that_does_not_read_gets_no_more_packets_and_holds_up_nobody(
    autojump_clock: object,
) -> None:
    data = bytes(30_000)
    async with running(node_config(child("alice"), child("bob"), child("mallory"))) as world:
        alice, bob = await world.peer("alice"), await world.peer("bob")
        await world.peer("mallory")
        # Her stream takes nothing from now on.
        gate = trio.Event()
        mallory_side = world.node.registry.link("mallory")
        assert mallory_side is not None
        transport = mallory_side.stream._transport

        async def blocked(_data: object) -> None:
            await gate.wait()

        transport.send_all = blocked  # type: ignore[assignment, method-assign]
        for request_id in range(2, 60):
            await alice.ask(prepare("test.node.mallory.x", data=data), request_id)
        for _ in range(58 - world.node.forwarder.in_flight):
            reject = await alice.rejection()
            assert (reject.code, reject.message) == ("T02", "mallory is overloaded")
        waiting = mallory_side.stream._queued - mallory_side.stream.written
        assert waiting > limits.WRITE_SOFT_MAX_BYTES
        assert waiting < limits.WRITE_SOFT_MAX_BYTES + 2 * limits.BTP_FRAME_MAX_BYTES
        await world.assert_link_works(alice, bob)
        gate.set()
        del transport.send_all
        await trio.testing.wait_all_tasks_blocked()
        assert not world.hop("mallory").congested
