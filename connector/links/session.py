"""BTP on one connection (RFC 23): who the peer is, and what its frames mean.

No I/O: frames come in by `receive`, and go out through the `Wire` given.

    AWAITING_AUTH  --auth accepted-->  OPEN     the side that was dialled
    AUTHENTICATING --response------->  OPEN     the side that dialled
    any state      --broken frame, refused auth, close--> CLOSED

Invariants: nothing but `auth` is heard before OPEN; a frame that cannot be
read closes this connection and nothing else; after CLOSED nothing is handed on;
requests without an ILP packet are answered at a bounded rate; of our own
questions one is open at a time.
"""

import time
from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol

from connector.core.limiter import TokenBucket
from connector.errors import AuthenticationError, RemoteProtocolError
from connector.limits import BTP_ANSWERS_BURST_MAX, BTP_ANSWERS_PER_S_MAX, BTP_CREDENTIAL_MAX_BYTES
from connector.protocol import btp
from connector.protocol.btp import read_packet

#: (BTP type, request id, ILP packet); for btp.ERROR the "packet" says what came instead of one.
Item = tuple[int, int, bytes]

#: Checks a token and a user name; the peer's name, or None.
Authenticate = Callable[[str, str], str | None]

#: The request id of our own questions; packets have others.
_QUESTION_ID = 0

#: How much of what a peer says of itself stands in reasons and logs, in characters.
_SHOWN_MAX = 80
_SAID_MAX = 200


class State(Enum):
    """See the module's table."""

    AWAITING_AUTH = auto()
    AUTHENTICATING = auto()
    OPEN = auto()
    CLOSED = auto()


class Wire(Protocol):
    """What a session needs of its connection."""

    def write(self, frames: list[bytes]) -> None:
        """Send BTP frames, in order; never waits."""

    def opened(self, peer: str) -> str | None:
        """The peer is authenticated. Returns why the link is refused nevertheless, or None."""

    def packets(self, batch: list[Item]) -> None:
        """ILP packets came, in order."""

    def asked(self, name: str, data: bytes) -> bytes | None:
        """A sub-protocol other than `auth` and `ilp`: what to answer in it, or None for an empty answer."""

    def ended(self, reason: str, error: Exception | None) -> None:
        """The session is closed: close the connection once what was written is gone."""


class Session:
    """One side of a BTP connection."""

    def __init__(
        self,
        wire: Wire,
        *,
        now: Callable[[], str],
        clock: Callable[[], int] = lambda: time.monotonic_ns() // 1_000_000,
    ) -> None:
        """`now` gives generalized time, for BTP errors; `clock` monotonic milliseconds."""
        self.state = State.CLOSED
        self.peer = ""
        self._wire = wire
        self._now = now
        self._authenticate: Authenticate | None = None
        self._auth_request_id = 0
        self._clock = clock
        #: Who waits for the answer to our question, and the sub-protocol that it is in.
        self._question: tuple[str, Callable[[bytes | None], None]] | None = None
        self._answers = TokenBucket(BTP_ANSWERS_PER_S_MAX, BTP_ANSWERS_BURST_MAX)

    def listen(self, authenticate: Authenticate) -> None:
        """Be the side that was dialled: wait for `auth`."""
        self._authenticate = authenticate
        self.state = State.AWAITING_AUTH

    def dial(self, peer: str, *, token: str, username: str, request_id: int) -> None:
        """Be the side that dialled: send `auth` for `peer`."""
        self.peer = peer
        self._auth_request_id = request_id
        self.state = State.AUTHENTICATING
        credentials = [btp.SubProtocol(btp.AUTH, btp.OCTET_STREAM, b"")]
        if username:
            credentials.append(btp.SubProtocol(btp.AUTH_USERNAME, btp.TEXT, username.encode()))
        credentials.append(btp.SubProtocol(btp.AUTH_TOKEN, btp.TEXT, token.encode()))
        self._wire.write([btp.encode(btp.Message(request_id, tuple(credentials)))])

    def receive(self, frames: list[bytes]) -> None:
        """Handle what one read brought."""
        batch: list[Item] = []
        is_open = self.state is State.OPEN
        for frame in frames:
            packet = read_packet(frame) if is_open else None
            if packet is not None:
                batch.append((frame[0], int.from_bytes(frame[1:5], "big"), packet))
            elif self.state is not State.CLOSED:
                try:
                    self._receive_other(btp.decode(frame), batch)
                except RemoteProtocolError as error:
                    # What came before the broken frame counts: it may be a Fulfill.
                    if batch:
                        self._wire.packets(batch)
                        batch = []
                    request_id = int.from_bytes(frame[1:5], "big") if len(frame) >= 5 else 0
                    self.fail(request_id, str(error), error)
                is_open = self.state is State.OPEN
        if batch:
            self._wire.packets(batch)

    def _receive_other(self, frame: btp.Frame, batch: list[Item]) -> None:
        if self.state is State.OPEN:
            self._dispatch(frame, batch)
        elif self.state is State.AWAITING_AUTH:
            self._check_auth(frame)
        else:
            self._check_auth_answer(frame)

    def _dispatch(self, frame: btp.Frame, batch: list[Item]) -> None:
        request_id = frame.request_id
        if isinstance(frame, btp.Transfer):
            self._pay_for_answer()
            self._write_error(request_id, "F00", "NotAcceptedError", "transfers are not taken here")
            return
        if isinstance(frame, btp.Error) and request_id == _QUESTION_ID:
            self._take_answer(())
            return
        if isinstance(frame, btp.Error):
            batch.append((btp.ERROR, request_id, f"answered with BTP error {_escaped(frame.code)}".encode()))
            return
        ilp = btp.find(frame.sub_protocols, btp.ILP)
        if isinstance(frame, btp.Response):
            if request_id == _QUESTION_ID:
                self._take_answer(frame.sub_protocols)
            elif ilp is None:
                batch.append((btp.ERROR, request_id, b"answered without an ILP packet"))
            else:
                batch.append((btp.RESPONSE, request_id, ilp.data))
        elif btp.find(frame.sub_protocols, btp.AUTH) is not None:
            raise RemoteProtocolError("authentication comes first, and once")
        elif ilp is not None:
            batch.append((btp.MESSAGE, request_id, ilp.data))
        else:
            self._pay_for_answer()
            self._wire.write([self._answer_to(request_id, frame.sub_protocols)])

    def _answer_to(self, request_id: int, sub_protocols: tuple[btp.SubProtocol, ...]) -> bytes:
        """The Response to a Message without a packet.

        Stock clients rely on one to sub-protocols that we do not know, and it is empty.
        """
        if not sub_protocols:
            return btp.empty_response(request_id)
        name = sub_protocols[0].name
        data = self._wire.asked(name, sub_protocols[0].data)
        if data is None:
            return btp.empty_response(request_id)
        return btp.encode(btp.Response(request_id, (btp.SubProtocol(name, btp.JSON, data),)))

    # --- our questions ---

    def ask(self, name: str, data: bytes, on_answer: Callable[[bytes | None], None]) -> None:
        """Send a Message in sub-protocol `name`; `on_answer(data)`, or None when there is no such answer.

        One at a time: an earlier question that was not answered gets None now.
        """
        self._take_answer(())
        if self.state is not State.OPEN:
            on_answer(None)
            return
        self._question = (name, on_answer)
        self._wire.write([btp.encode(btp.Message(_QUESTION_ID, (btp.SubProtocol(name, btp.JSON, data),)))])

    def _take_answer(self, sub_protocols: tuple[btp.SubProtocol, ...]) -> None:
        question, self._question = self._question, None
        if question is not None:
            answer = btp.find(sub_protocols, question[0])
            question[1](None if answer is None else answer.data)

    def _pay_for_answer(self) -> None:
        if not self._answers.take(self._clock()):
            raise RemoteProtocolError(
                f"more than {BTP_ANSWERS_PER_S_MAX} BTP requests a second that carry no ILP packet"
            )

    # --- authentication ---

    def _check_auth(self, frame: btp.Frame) -> None:
        if not isinstance(frame, btp.Message) or not frame.sub_protocols:
            raise RemoteProtocolError("the first message must authenticate")
        primary = frame.sub_protocols[0]
        token = btp.find(frame.sub_protocols, btp.AUTH_TOKEN)
        username = btp.find(frame.sub_protocols, btp.AUTH_USERNAME)
        if primary.name != btp.AUTH or primary.content_type != btp.OCTET_STREAM or primary.data:
            raise RemoteProtocolError("the first message's first sub-protocol must be an empty 'auth'")
        if token is None:
            raise RemoteProtocolError("'auth_token' is missing (it may be empty, but must be there)")
        assert self._authenticate is not None
        peer = self._authenticate(_credential(token), _credential(username) if username else "")
        if peer is None:
            self.fail(frame.request_id, "unknown token or user name")
            return
        refusal = self._open(peer)
        if refusal is not None:
            self.fail(frame.request_id, refusal)
            return
        self._wire.write([btp.empty_response(frame.request_id)])

    def _check_auth_answer(self, frame: btp.Frame) -> None:
        if frame.request_id != self._auth_request_id or not isinstance(frame, btp.Response | btp.Error):
            raise RemoteProtocolError("the answer to authentication was expected")
        if isinstance(frame, btp.Error):
            name = repr(frame.name)[:_SHOWN_MAX]
            said = repr(frame.data.decode("utf-8", "replace"))[:_SAID_MAX]
            reason = f"{self.peer} refused authentication: {_escaped(frame.code)} {name} {said}"
            self.close(reason, AuthenticationError(reason))
            return
        refusal = self._open(self.peer)
        if refusal is not None:
            self.close(refusal)

    def _open(self, peer: str) -> str | None:
        self.peer = peer
        refusal = self._wire.opened(peer)
        if refusal is None:
            self.state = State.OPEN
        return refusal

    # --- the end ---

    def fail(self, request_id: int, reason: str, error: Exception | None = None) -> None:
        """The peer broke the protocol or may not come in: say so in a BTP Error, and close."""
        self._write_error(request_id, "F00", "NotAcceptedError", reason)
        self.close(reason, error or RemoteProtocolError(reason))

    def close(self, reason: str, error: Exception | None = None) -> None:
        """End the session; frames that come later are not looked at."""
        if self.state is not State.CLOSED:
            self.state = State.CLOSED
            self._take_answer(())
            self._wire.ended(reason, error)

    def _write_error(self, request_id: int, code: str, name: str, reason: str) -> None:
        data = reason.encode("utf-8")[:512]
        self._wire.write([btp.encode(btp.Error(request_id, code, name, self._now(), data))])


def _escaped(code: str) -> str:
    """The three characters of a BTP error's code, printable whatever they are."""
    return repr(code)[1:-1]


def _credential(sub_protocol: btp.SubProtocol) -> str:
    if len(sub_protocol.data) > BTP_CREDENTIAL_MAX_BYTES:
        raise RemoteProtocolError(f"{sub_protocol.name}: more than {BTP_CREDENTIAL_MAX_BYTES} bytes")
    try:
        return sub_protocol.data.decode("utf-8")
    except UnicodeDecodeError:
        raise RemoteProtocolError(f"{sub_protocol.name}: UTF-8 expected") from None
