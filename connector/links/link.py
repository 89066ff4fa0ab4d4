"""A link: one BTP connection over one WebSocket, from handshake to close.

`serve` and `dial` run a connection until it ends. Four tasks share its
nursery: trio-websocket's reader, the writer, the keep-alive, and one that
takes messages which came in fragments. None outlives the call.
"""

import ssl
import time
from collections.abc import Callable
from typing import Protocol, cast

import h11
import trio
import trio_websocket as tw
import wsproto.utilities

from connector.errors import AuthenticationError, Unavailable
from connector.limits import (
    AUTH_TIMEOUT_S,
    BTP_FRAME_MAX_BYTES,
    CLOSE_TIMEOUT_S,
    HANDSHAKE_TIMEOUT_S,
    PING_INTERVAL_S,
    PONG_TIMEOUT_S,
    QUESTION_TIMEOUT_S,
)
from connector.links.frames import FrameStream
from connector.links.session import Authenticate, Item, Session
from connector.protocol import btp

#: What a connection may end in below BTP. A LocalProtocolError is trio-websocket's: it answers
#: pings also after we have begun to close.
_WEBSOCKET_ERRORS = (
    tw.ConnectionClosed,
    tw.HandshakeError,
    wsproto.utilities.ProtocolError,
    # From an answer to our handshake that trio-websocket tries to refuse as a server would.
    h11.ProtocolError,
)
#: The WebSocket sub-protocol that some BTP clients propose.
_WS_SUB_PROTOCOL = "btp"


class Handler(Protocol):
    """Who is told of a link's life. None of these calls may wait."""

    def opened(self, link: "Link") -> str | None:
        """`link.peer` is authenticated; returns why it is refused nevertheless, or None."""

    def packets(self, link: "Link", batch: list[Item]) -> None:
        """ILP packets came, in order."""

    def drained(self, link: "Link") -> None:
        """A congested link has room again."""

    def asked(self, link: "Link", name: str, data: bytes) -> bytes | None:
        """A question in sub-protocol `name`: the answer, or None when we do not know it."""

    def closed(self, link: "Link") -> None:
        """An opened link is gone."""


class Link:
    """One connection to `peer` (known once it is opened)."""

    def __init__(self, transport: trio.abc.Stream, handler: Handler, *, dialled: bool) -> None:
        self.dialled = dialled
        #: The other end, for people.
        self.remote = remote_of(transport)
        #: Round trip of the last WebSocket ping, or None before the first.
        self.rtt_ms: float | None = None
        self.stream = FrameStream(
            transport,
            is_client=dialled,
            on_batch=self._received,
            on_drained=lambda: handler.drained(self),
        )
        self.session = Session(self, now=_generalized_time)
        #: Set when nothing of the connection is left.
        self.gone = trio.Event()
        self.close_reason = ""
        self.error: Exception | None = None
        self._handler = handler
        self._authenticated = trio.Event()
        self._closing = trio.Event()
        self._told = False
        self._ws: tw.WebSocketConnection | None = None

    @property
    def peer(self) -> str:
        """The peer's name in our configuration; empty until it is authenticated."""
        return self.session.peer

    @property
    def congested(self) -> bool:
        """Whether the peer reads too slowly to be given more Prepares."""
        return self.stream.congested

    @property
    def written(self) -> int:
        """How far what was sent has left; see `send`."""
        return self.stream.written

    def send(self, items: list[Item]) -> int:
        """Send ILP packets as BTP messages (requests) and responses, joined in one write.

        They have left, as far as this process can tell, once `written` has
        reached the number returned.
        """
        return self.stream.write(
            [
                btp.ilp_message(request_id, packet)
                if kind == btp.MESSAGE
                else btp.ilp_response(request_id, packet)
                for kind, request_id, packet in items
            ],
        )

    async def ask(self, name: str, data: bytes) -> bytes | None:
        """Ask the peer in sub-protocol `name`; None when it does not know it, or says nothing in time."""
        answered = trio.Event()
        answers: list[bytes | None] = []

        def on_answer(answer: bytes | None) -> None:
            answers.append(answer)
            answered.set()

        self.session.ask(name, data, on_answer)
        with trio.move_on_after(QUESTION_TIMEOUT_S):
            await answered.wait()
        return answers[0] if answers else None

    def close(self, reason: str) -> None:
        """Begin to close, once what is queued has been written."""
        self.session.close(reason)

    # --- the session's wire ---

    def write(self, frames: list[bytes]) -> None:
        """See `session.Wire`."""
        self.stream.write(frames)

    def opened(self, peer: str) -> str | None:
        """See `session.Wire`."""
        refusal = self._handler.opened(self)
        if refusal is None:
            self._told = True
            self._authenticated.set()
        return refusal

    def packets(self, batch: list[Item]) -> None:
        """See `session.Wire`."""
        self._handler.packets(self, batch)

    def asked(self, name: str, data: bytes) -> bytes | None:
        """See `session.Wire`."""
        return self._handler.asked(self, name, data)

    def ended(self, reason: str, error: Exception | None) -> None:
        """See `session.Wire`."""
        if self._closing.is_set():
            return
        self.close_reason = reason
        self.error = error
        self._closing.set()
        if self._told:
            self._handler.closed(self)

    def _received(self, payloads: list[bytes]) -> None:
        self.session.receive(payloads)

    # --- the tasks of a connection ---

    async def run(self, handshake: Callable[[trio.Nursery], "Handshake"], begin: Callable[[], None]) -> None:
        """Run the connection: WebSocket handshake, `begin` (BTP authentication), until it ends.

        Returns when it is closed; `close_reason` and `error` say why.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.stream.run_writer)
                nursery.start_soon(self._watch_end)
                try:
                    await self._live(nursery, handshake(nursery), begin)
                finally:
                    with trio.CancelScope(shield=True):
                        await trio.aclose_forcefully(self.stream)
                    nursery.cancel_scope.cancel()
        except* _WEBSOCKET_ERRORS as group:
            self.ended(f"WebSocket failed: {_first(group)!r}", None)
        finally:
            self.close("the connection is gone")
            self.ended("the connection is gone", None)
            self.gone.set()

    async def _live(self, nursery: trio.Nursery, handshake: "Handshake", begin: Callable[[], None]) -> None:
        ws = None
        with trio.move_on_after(HANDSHAKE_TIMEOUT_S):
            ws = self._ws = await self._until_closing(handshake)
        if ws is None:
            self.ended("no WebSocket handshake in time", None)
            return
        begin()
        self.stream.start()
        nursery.start_soon(self._take_odd_messages, ws)
        nursery.start_soon(self._keep_alive, ws)
        await self._closing.wait()
        await self._say_goodbye(ws)

    async def _until_closing(self, handshake: "Handshake") -> tw.WebSocketConnection | None:
        """The handshake's result, or None if the stream ends first."""
        result: list[tw.WebSocketConnection] = []
        async with trio.open_nursery() as nursery:

            async def give_up() -> None:
                await self._closing.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(give_up)
            result.append(await handshake())
            nursery.cancel_scope.cancel()
        return result[0] if result else None

    async def _watch_end(self) -> None:
        await self.stream.ended.wait()
        self._end_by_peer()

    def _end_by_peer(self) -> None:
        reason = self.stream.break_reason or "the peer closed the connection"
        if self._ws is not None and self._ws.closed is not None and self._ws.closed.reason:
            reason += f": {self._ws.closed.reason!r}"
        self.close(reason)
        # A session that never began is closed already and does not say so.
        self.ended(reason, None)

    async def _say_goodbye(self, ws: tw.WebSocketConnection) -> None:
        with trio.move_on_after(CLOSE_TIMEOUT_S):
            # A close frame carries at most 123 bytes of reason (RFC 6455, section 5.5).
            await ws.aclose(1000 if self.error is None else 1008, self.close_reason[:100])

    async def _take_odd_messages(self, ws: tw.WebSocketConnection) -> None:
        """Feed the session what trio-websocket put together: messages in fragments, or in text."""
        while True:
            try:
                message = await ws.get_message()
            except tw.ConnectionClosed:
                # The peer's close frame may come long before its end of the stream, and the library
                # has answered it: what would be sent from now on is not read any more.
                self._end_by_peer()
                return
            if isinstance(message, str):
                self.session.fail(0, "BTP frames are binary messages, a text message came")
                return
            self._received([message])

    async def _keep_alive(self, ws: tw.WebSocketConnection) -> None:
        with trio.move_on_after(AUTH_TIMEOUT_S):
            await self._authenticated.wait()
        if not self._authenticated.is_set():
            self.session.fail(0, f"no authentication within {AUTH_TIMEOUT_S:g} s")
            return
        try:
            while True:
                await trio.sleep(PING_INTERVAL_S)
                sent = trio.current_time()
                with trio.fail_after(PONG_TIMEOUT_S):
                    await ws.ping()
                self.rtt_ms = (trio.current_time() - sent) * 1000
        except trio.TooSlowError:
            self.session.close(f"no pong within {PONG_TIMEOUT_S:g} s")
        except tw.ConnectionClosed:
            return


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class Handshake(Protocol):
    """Performs a WebSocket handshake."""

    async def __call__(self) -> tw.WebSocketConnection:
        """The open WebSocket."""


def _generalized_time() -> str:
    """The time as BTP errors have it (RFC 23): `YYYYMMDDHHMMSS.mmmZ`."""
    return time.strftime("%Y%m%d%H%M%S.000Z", time.gmtime())


def remote_of(transport: trio.abc.Stream) -> str:
    """`HOST:PORT` of the other end; empty when it has none (a memory stream, or it is gone)."""
    stream = transport.transport_stream if isinstance(transport, trio.SSLStream) else transport
    if not isinstance(stream, trio.SocketStream):
        return ""
    try:
        host, port, *_ = stream.socket.getpeername()
    except OSError:
        return ""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def serve(link: Link, authenticate: Authenticate) -> None:
    """Run a link that was dialled to us until it ends; it says why it did."""

    def handshake(nursery: trio.Nursery) -> Handshake:
        async def accept() -> tw.WebSocketConnection:
            request = await tw.wrap_server_stream(nursery, link.stream, max_message_size=BTP_FRAME_MAX_BYTES)
            proposed = request.proposed_subprotocols
            return await request.accept(
                subprotocol=_WS_SUB_PROTOCOL if _WS_SUB_PROTOCOL in proposed else None
            )

        return accept

    await link.run(handshake, lambda: link.session.listen(authenticate))


async def dial(
    transport: trio.abc.Stream,
    handler: Handler,
    *,
    peer: str,
    host: str,
    resource: str,
    token: str,
    username: str = "",
) -> None:
    """Run the side that dials, over an open transport, until the connection ends.

    Always ends in an exception: AuthenticationError when the other side
    refuses the token, Unavailable for everything else.
    """
    link = Link(transport, handler, dialled=True)

    def handshake(nursery: trio.Nursery) -> Handshake:
        async def connect() -> tw.WebSocketConnection:
            # It takes any stream; its annotation says less than its documentation.
            stream = cast("trio.SocketStream", link.stream)
            return await tw.wrap_client_stream(
                nursery, stream, host, resource, max_message_size=BTP_FRAME_MAX_BYTES
            )

        return connect

    def authenticate() -> None:
        link.session.dial(peer, token=token, username=username, request_id=1)

    await link.run(handshake, authenticate)
    if isinstance(link.error, AuthenticationError):
        raise link.error
    raise Unavailable(link.close_reason)


async def open_transport(url: str, ssl_context: ssl.SSLContext | None) -> trio.abc.Stream:
    """A TCP or TLS stream to a `ws://` or `wss://` URL. Raises Unavailable."""
    host, port, _, secure = btp.split_url(url)
    try:
        with trio.fail_after(HANDSHAKE_TIMEOUT_S):
            stream = await trio.open_tcp_stream(host, port)
    except OSError as error:
        raise Unavailable(f"cannot connect to {host}:{port}: {error}") from error
    except trio.TooSlowError:
        raise Unavailable(f"cannot connect to {host}:{port}: no answer") from None
    if not secure:
        return stream
    assert ssl_context is not None, "a wss:// URL comes with what to trust"
    return await tls_handshake(
        trio.SSLStream(stream, ssl_context, server_hostname=host, https_compatible=True)
    )


async def tls_handshake(stream: "trio.SSLStream[trio.SocketStream]") -> trio.abc.Stream:
    """Finish a TLS handshake, which trio would put off to the first read. Raises Unavailable."""
    try:
        with trio.fail_after(HANDSHAKE_TIMEOUT_S):
            await stream.do_handshake()
    except (trio.BrokenResourceError, trio.TooSlowError) as error:
        await trio.aclose_forcefully(stream)
        raise Unavailable(f"TLS handshake failed: {error.__cause__ or error}") from error
    return stream
