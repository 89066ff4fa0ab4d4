"""The task that lets peers in: one listener, any number of peers.

Connections that have not authenticated are bounded; past the bound a new one
is closed at once, so strangers cannot crowd out peers.
"""

import ssl

import trio
from loguru import logger

from connector.errors import Unavailable
from connector.limits import UNAUTHENTICATED_LINKS_MAX
from connector.links.link import Handler, serve, tls_handshake
from connector.links.registry import Registry


class Listener:
    """Accepts links for the peers of `registry`."""

    def __init__(
        self, registry: Registry, handler: Handler, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        self._registry = registry
        self._handler = handler
        self._ssl_context = ssl_context
        self._connections = 0

    @property
    def strangers(self) -> int:
        """How many connections have not authenticated."""
        return self._connections - sum(not link.dialled for link in self._registry.links())

    async def accept(self, transport: trio.abc.Stream) -> None:
        """Run one connection that was dialled to us, until it ends. Raises nothing of its own."""
        if self.strangers >= UNAUTHENTICATED_LINKS_MAX:
            logger.warning("refused a connection: {} wait to authenticate already", self.strangers)
            await trio.aclose_forcefully(transport)
            return
        self._connections += 1
        try:
            if self._ssl_context is not None:
                assert isinstance(transport, trio.SocketStream)
                secure = trio.SSLStream(transport, self._ssl_context, server_side=True, https_compatible=True)
                transport = await tls_handshake(secure)
            link = await serve(transport, self._handler, self._registry.authenticate)
            if not link.peer:
                logger.info("closed a connection that did not authenticate: {}", link.close_reason)
        except Unavailable as error:
            logger.info("closed a connection: {}", error)
        finally:
            self._connections -= 1


async def open_listeners(host: str, port: int) -> list[trio.SocketListener]:
    """Bind; raises Unavailable when the address cannot be had. Serve with `trio.serve_listeners`."""
    try:
        return await trio.open_tcp_listeners(port, host=host)
    except OSError as error:
        raise Unavailable(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
