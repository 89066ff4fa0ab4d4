"""A ping says whether an address is reached, and else who stopped it and why."""

from collections.abc import Callable

import pytest

from connector.cli.ping import line
from connector.errors import RemoteProtocolError, Unavailable
from connector.protocol import ilp
from connector.receiver.stream_server import StreamServer
from connector.sender.ping import Pong, Summary, interpret, ping, summarize

ALICE = StreamServer(bytes(range(32)), "test.node.alice", "USD", 6)


def reject(code: str, triggered_by: str) -> bytes:
    return ilp.encode_reject(ilp.Reject(code, triggered_by, "why", b""))


class Wire:
    """An uplink that answers each probe with the next of `answers`."""

    def __init__(self, *answers: Callable[[ilp.Prepare], bytes]) -> None:
        self.answers = list(answers)
        self.seen: list[ilp.Prepare] = []

    async def send(self, packet: bytes, *, timeout_s: float) -> bytes:
        prepare = ilp.decode_prepare(packet)
        self.seen.append(prepare)
        return self.answers[len(self.seen) - 1](prepare)


def receiver(prepare: ilp.Prepare) -> bytes:
    reply = ALICE.handle(prepare, bytes(12))
    assert isinstance(reply, ilp.Reject)
    return ilp.encode_reject(reply)


def gone(prepare: ilp.Prepare) -> bytes:
    raise Unavailable("no reply within 11 s")


@pytest.mark.parametrize(
    ("code", "triggered_by", "reached"),
    [
        ("F06", "test.node.alice", True),
        ("F02", "test.node.alice.below", True),
        ("F02", "test.node", False),
        ("F02", "test.node.alicex", False),
        ("F02", "", False),
        ("T01", "test.node.alice", False),
        ("R02", "test.node.alice", False),
    ],
)
def test_only_a_final_reject_of_the_address_or_below_shows_that_it_was_reached(
    code: str, triggered_by: str, reached: bool
) -> None:
    assert interpret("test.node.alice", reject(code, triggered_by))[0] is reached


def test_a_fulfill_of_a_probe_is_a_lie() -> None:
    with pytest.raises(RemoteProtocolError, match="answered by something else than a reject"):
        interpret("test.node.alice", ilp.encode_fulfill(ilp.Fulfill(bytes(32), b"")))


async def test_a_stream_receiver_answers_a_ping_to_its_account(autojump_clock: object) -> None:
    wire = Wire(receiver, receiver)
    told: list[Pong] = []
    summary = await ping(wire, "test.node.alice", count=2, amount=5, on_pong=told.append)
    assert (summary.sent, summary.reached) == (2, 2)
    assert [pong.code for pong in told] == ["F06", "F06"]
    assert tuple(told) == summary.pongs
    assert [prepare.amount for prepare in wire.seen] == [5, 5]
    assert wire.seen[0].condition != wire.seen[1].condition


async def test_a_ping_goes_on_after_a_lost_probe(autojump_clock: object) -> None:
    wire = Wire(receiver, gone, lambda prepare: reject("F02", "test.node"), lambda prepare: b"junk")
    summary = await ping(wire, "test.node.alice", count=4)
    assert (summary.sent, summary.reached) == (4, 1)
    assert [pong.reached for pong in summary.pongs] == [True, False, False, False]
    assert [pong.triggered_by for pong in summary.pongs] == ["test.node.alice", "", "test.node", ""]


def test_times_are_of_the_probes_that_reached() -> None:
    pongs = tuple(Pong(n, n != 3, "F06", "test.a", "", float(n * 10)) for n in (1, 2, 3))
    assert summarize("test.a", pongs) == Summary("test.a", 3, 2, 10.0, 15.0, 20.0, pongs)
    assert summarize("test.a", pongs[2:]).rtt_avg_ms is None


def test_each_outcome_reads_as_a_sentence() -> None:
    assert line(Pong(1, True, "F06", "test.a", "x", 1.25)) == "1: reached test.a in 1.2 ms (F06)"
    assert line(Pong(2, False, "F02", "test.b", "no route", 3.0)) == (
        "2: stopped by test.b after 3.0 ms: F02: no route"
    )
    assert line(Pong(3, False, "T01", "", "", 3.0)) == (
        "3: stopped by a node that does not say which after 3.0 ms: T01"
    )
    assert line(Pong(4, False, "", "", "no reply within 11 s", 11_000.0)) == (
        "4: no reply after 11000.0 ms: no reply within 11 s"
    )
