"""The task that keeps a link to one peer: dial, run, and say why it ended."""

import ssl
from collections.abc import Awaitable, Callable

import msgspec
import trio

from connector.links.link import Handler, dial, open_transport
from connector.links.registry import Registry
from connector.protocol import btp

#: Opens a byte stream to a URL; raises Unavailable.
OpenTransport = Callable[[str, ssl.SSLContext | None], Awaitable[trio.abc.Stream]]


class DialPlan(msgspec.Struct, frozen=True):
    """Whom to dial, and how."""

    peer: str
    url: str
    token: str
    username: str = ""
    ssl_context: ssl.SSLContext | None = None

    def __repr__(self) -> str:
        return f"DialPlan({self.peer!r}, {self.url!r})"


async def keep_dialled(
    plan: DialPlan,
    registry: Registry,
    handler: Handler,
    open_transport: OpenTransport = open_transport,
) -> None:
    """Dial once the peer has no link, and run the link until it ends.

    Never returns: raises Unavailable (or AuthenticationError) for its
    supervisor to try again with backoff.
    """
    await registry.wait_down(plan.peer)
    host, port, resource, _ = btp.split_url(plan.url)
    transport = await open_transport(plan.url, plan.ssl_context)
    await dial(
        transport,
        handler,
        peer=plan.peer,
        host=f"{host}:{port}",
        resource=resource,
        token=plan.token,
        username=plan.username,
    )
