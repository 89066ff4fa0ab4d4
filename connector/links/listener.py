"""The task that lets peers in: one listener, any number of peers.

Connections that have not authenticated are bounded. Past the bound the oldest
of them makes room: a peer that comes to authenticate is a stranger too at first,
and must not be kept out by those who never do.
"""

import ssl

import trio
from loguru import logger

from connector.errors import Unavailable
from connector.limits import NOTICE_INTERVAL_MS, UNAUTHENTICATED_LINKS_MAX
from connector.links.link import Handler, Link, remote_of, serve, tls_handshake
from connector.links.registry import Registry


class _Visit:
    """A connection that was dialled to us; a stranger until its link knows its peer."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.link: Link | None = None

    @property
    def is_stranger(self) -> bool:
        return self.link is None or not self.link.peer

    @property
    def waits(self) -> bool:
        """Whether it is a stranger that has not been told to make room."""
        return self.is_stranger and not self.scope.cancel_called


class Listener:
    """Accepts links for the peers of `registry`."""

    def __init__(
        self, registry: Registry, handler: Handler, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        self._registry = registry
        self._handler = handler
        self._ssl_context = ssl_context
        #: In the order they came.
        self._visits: dict[_Visit, None] = {}
        self._logged_s: float | None = None
        self._not_logged = 0

    @property
    def strangers(self) -> int:
        """How many connections have not authenticated."""
        return sum(visit.waits for visit in self._visits)

    async def accept(self, transport: trio.abc.Stream) -> None:
        """Run one connection that was dialled to us, until it ends. Raises nothing of its own."""
        remote = remote_of(transport)
        self._make_room()
        visit = _Visit()
        self._visits[visit] = None
        reason = "another took its place"
        try:
            with visit.scope:
                reason = await self._receive(visit, transport)
        finally:
            del self._visits[visit]
        if visit.is_stranger:
            self._log(remote, reason)

    def _make_room(self) -> None:
        if len(self._visits) >= UNAUTHENTICATED_LINKS_MAX and self.strangers >= UNAUTHENTICATED_LINKS_MAX:
            oldest = next(visit for visit in self._visits if visit.waits)
            oldest.scope.cancel()

    async def _receive(self, visit: _Visit, transport: trio.abc.Stream) -> str:
        """Run the connection; why it ended."""
        try:
            if self._ssl_context is not None:
                assert isinstance(transport, trio.SocketStream)
                secure = trio.SSLStream(transport, self._ssl_context, server_side=True, https_compatible=True)
                transport = await tls_handshake(secure)
            link = visit.link = Link(transport, self._handler, dialled=False)
            await serve(link, self._registry.authenticate)
        except Unavailable as error:
            return str(error)
        finally:
            await trio.aclose_forcefully(transport)
        return link.close_reason

    def _log(self, remote: str, reason: str) -> None:
        """Log a stranger that left; when there are many, one line stands for them."""
        now_s = trio.current_time()
        if self._logged_s is not None and now_s - self._logged_s < NOTICE_INTERVAL_MS / 1000:
            self._not_logged += 1
            return
        more = f" ({self._not_logged} more like it)" if self._not_logged else ""
        logger.info("closed a connection from {} that did not authenticate: {}{}", remote, reason, more)
        self._logged_s, self._not_logged = now_s, 0


async def open_listeners(host: str, port: int) -> list[trio.SocketListener]:
    """Bind; raises Unavailable when the address cannot be had. Serve with `trio.serve_listeners`."""
    try:
        return await trio.open_tcp_listeners(port, host=host)
    except OSError as error:
        raise Unavailable(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
