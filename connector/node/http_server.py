"""The HTTP port's connections, kept from doing harm.

Hypercorn speaks the protocol; around each of its connections stand our bounds.
Whatever a client sends, or does not read, ends that connection and nothing else:

- at most `limits.HTTP_CONNECTIONS_MAX` connections; past it a new one is closed;
- a client that does not take what is sent to it is disconnected;
- an error in the library is logged and closes its connection;
- when the server is cancelled, every connection is closed at once.
"""

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from loguru import logger
from starlette.applications import Starlette

from connector.limits import HTTP_CONNECTIONS_MAX, HTTP_TIMEOUT_S


class _Transport:
    """A socket stream as Hypercorn wants it, whose writes take a bounded time."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self.socket = stream.socket

    async def receive_some(self, max_bytes: int) -> bytes:
        return bytes(await self._stream.receive_some(max_bytes))

    async def send_all(self, data: bytes) -> None:
        # Hypercorn shields its writes and gives them no time limit.
        with trio.move_on_after(HTTP_TIMEOUT_S) as scope:
            await self._stream.send_all(data)
        if scope.cancelled_caught:
            self.socket.close()
            raise trio.BrokenResourceError("the client does not read")

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


class HttpServer:
    """Serves one application on open listeners."""

    def __init__(self, app: Starlette) -> None:
        self._app = ASGIWrapper(app)  # type: ignore[arg-type]
        self._config = Config()
        self._config.accesslog = None
        self._config.errorlog = None
        self._config.include_server_header = False
        self._config.keep_alive_timeout = HTTP_TIMEOUT_S
        self._config.read_timeout = HTTP_TIMEOUT_S
        self._context = WorkerContext(None)
        self._open: set[trio.SocketStream] = set()

    async def run(self, listeners: list[trio.SocketListener]) -> None:
        """Serve until cancelled."""
        async with trio.open_nursery() as connections:
            try:
                await trio.serve_listeners(self._serve, listeners, handler_nursery=connections)
            finally:
                # Closing wakes even writes that Hypercorn has shielded from being cancelled.
                for stream in self._open:
                    stream.socket.close()

    async def _serve(self, stream: trio.SocketStream) -> None:
        if len(self._open) >= HTTP_CONNECTIONS_MAX:
            await trio.aclose_forcefully(stream)
            return
        self._open.add(stream)
        try:
            transport = _Transport(stream)
            await TCPServer(self._app, self._config, self._context, {}, transport)  # type: ignore[arg-type]
        except* Exception as errors:  # noqa: BLE001 - Hypercorn's parsers raise errors of many kinds
            logger.debug("closed an HTTP connection: {!r}", errors.exceptions[0])
        finally:
            self._open.discard(stream)
            stream.socket.close()
