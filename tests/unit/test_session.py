"""A BTP session without a connection: what a peer says, and how much of it is heard."""

import pytest

from connector.errors import AuthenticationError
from connector.limits import BTP_ANSWERS_BURST_MAX, BTP_ANSWERS_PER_S_MAX
from connector.links.session import Item, Session, State
from connector.protocol import btp

AUTH = btp.Message(
    1,
    (
        btp.SubProtocol(btp.AUTH, btp.OCTET_STREAM, b""),
        btp.SubProtocol(btp.AUTH_TOKEN, btp.TEXT, b"token"),
    ),
)
UNKNOWN = btp.encode(btp.Message(7, (btp.SubProtocol("unknown", btp.TEXT, b""),)))
TRANSFER = btp.encode(btp.Transfer(8, 5, ()))
PACKET = btp.ilp_message(9, b"\x0c\x00")


class Wire:
    """Remembers what the session did."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000
        self.written: list[btp.Frame] = []
        self.heard: list[Item] = []
        self.reason = ""
        self.error: Exception | None = None
        self.session = Session(self, now=lambda: "20260101000000.000Z", clock=lambda: self.now_ms)

    def is_open(self) -> bool:
        return self.session.state is State.OPEN

    def write(self, frames: list[bytes]) -> None:
        self.written += map(btp.decode, frames)

    def opened(self, peer: str) -> str | None:
        assert peer == "bob"
        return None

    def packets(self, batch: list[Item]) -> None:
        self.heard += batch

    def asked(self, name: str, data: bytes) -> bytes | None:
        return b"[" + data + b"]" if name == "known" else None

    def ended(self, reason: str, error: Exception | None) -> None:
        assert self.reason == ""
        self.reason, self.error = reason, error


@pytest.fixture
def wire() -> Wire:
    """An open session, dialled by `bob`."""
    wire = Wire()
    wire.session.listen(lambda _token, _username: "bob")
    wire.session.receive([btp.encode(AUTH)])
    assert wire.is_open()
    assert wire.written.pop() == btp.Response(1, ())
    return wire


def test_authentication_comes_once(wire: Wire) -> None:
    wire.session.receive([PACKET, btp.encode(AUTH), PACKET])
    [answer] = wire.written
    assert isinstance(answer, btp.Error)
    assert (answer.request_id, answer.data) == (1, b"authentication comes first, and once")
    assert not wire.is_open()
    assert wire.reason == "authentication comes first, and once"
    # What came before it counts, what came after does not.
    assert len(wire.heard) == 1


@pytest.mark.parametrize("frame", [UNKNOWN, TRANSFER])
def test_answers_to_what_is_no_packet_are_bounded(wire: Wire, frame: bytes) -> None:
    wire.session.receive([frame] * BTP_ANSWERS_BURST_MAX)
    assert len(wire.written) == BTP_ANSWERS_BURST_MAX
    assert wire.is_open()
    wire.session.receive([PACKET, frame, PACKET])
    assert wire.reason == f"more than {BTP_ANSWERS_PER_S_MAX} BTP requests a second that carry no ILP packet"
    assert not wire.is_open()
    assert len(wire.written) == BTP_ANSWERS_BURST_MAX + 1
    assert isinstance(wire.written[-1], btp.Error)
    assert len(wire.heard) == 1


def test_answers_are_earned_with_time(wire: Wire) -> None:
    wire.session.receive([UNKNOWN] * BTP_ANSWERS_BURST_MAX)
    for _ in range(3):
        wire.now_ms += 1_000
        wire.session.receive([UNKNOWN] * BTP_ANSWERS_PER_S_MAX)
    assert wire.is_open()
    wire.session.receive([UNKNOWN])
    assert not wire.is_open()


def test_packets_and_answers_to_ours_cost_nothing(wire: Wire) -> None:
    frames = [PACKET, btp.empty_response(3), btp.encode(btp.Error(4, "F00", "", "", b""))]
    wire.session.receive(frames * (BTP_ANSWERS_BURST_MAX + 1))
    assert wire.is_open()
    assert len(wire.heard) == 3 * (BTP_ANSWERS_BURST_MAX + 1)


def test_a_known_sub_protocol_is_answered_and_an_unknown_one_with_nothing(wire: Wire) -> None:
    for name in ("known", "unknown"):
        wire.session.receive([btp.encode(btp.Message(7, (btp.SubProtocol(name, btp.JSON, b"1"),)))])
    wire.session.receive([btp.encode(btp.Message(8, ()))])
    answer = btp.SubProtocol("known", btp.JSON, b"[1]")
    assert wire.written == [btp.Response(7, (answer,)), btp.Response(7, ()), btp.Response(8, ())]


def test_a_question_is_answered_once(wire: Wire) -> None:
    answers: list[bytes | None] = []
    wire.session.ask("known", b"", answers.append)
    assert wire.written == [btp.Message(0, (btp.SubProtocol("known", btp.JSON, b""),))]
    reply = btp.encode(btp.Response(0, (btp.SubProtocol("known", btp.JSON, b"2"),)))
    wire.session.receive([reply, reply])
    assert answers == [b"2"]
    assert wire.heard == []


@pytest.mark.parametrize(
    "reply",
    [
        btp.empty_response(0),
        btp.encode(btp.Response(0, (btp.SubProtocol("other", btp.JSON, b"2"),))),
        btp.encode(btp.Error(0, "F00", "NotAcceptedError", "", b"")),
    ],
)
def test_a_question_that_is_not_understood(wire: Wire, reply: bytes) -> None:
    answers: list[bytes | None] = []
    wire.session.ask("known", b"", answers.append)
    wire.session.receive([reply])
    assert answers == [None]
    assert wire.heard == []


def test_a_question_ends_with_the_next_one_or_with_the_session(wire: Wire) -> None:
    answers: list[bytes | None] = []
    wire.session.ask("known", b"", answers.append)
    wire.session.ask("known", b"", answers.append)
    assert answers == [None]
    wire.session.close("enough")
    wire.session.ask("known", b"", answers.append)
    assert answers == [None, None, None]


def test_the_code_of_an_error_is_shown_in_printable_characters(wire: Wire) -> None:
    wire.session.receive([btp.encode(btp.Error(3, "\x1b\n0", "", "", b""))])
    assert wire.heard == [(btp.ERROR, 3, rb"answered with BTP error \x1b\n0")]


def refused(error: btp.Error) -> str:
    """Why a session that dialled ended, when its `auth` was answered by `error`."""
    wire = Wire()
    wire.session.dial("bob", token="token", username="", request_id=1)
    wire.session.receive([btp.encode(error)])
    assert isinstance(wire.error, AuthenticationError)
    assert str(wire.error) == wire.reason
    return wire.reason


def test_a_refusal_is_quoted() -> None:
    reason = refused(btp.Error(1, "F00", "NotAcceptedError", "", b"unknown token"))
    assert reason == "bob refused authentication: F00 'NotAcceptedError' 'unknown token'"


@pytest.mark.parametrize("text", ["\x1b[31m\r\n\x00", "\x00" * 10_000, "a" * 10_000])
def test_a_refusal_is_quoted_printable_and_in_part(text: str) -> None:
    reason = refused(btp.Error(1, "\x1b\n\x00", text, "", text.encode()))
    assert reason.isprintable()
    assert reason.isascii()
    assert len(reason) < 400
    name = reason.removeprefix(r"bob refused authentication: \x1b\n\x00 ").split(" ")[0]
    assert len(name) <= 80
    assert name.startswith(repr(text)[:70])
