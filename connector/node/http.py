"""A node's HTTP port: is it alive, can it forward, SPSP (RFC 9), and below /api what people ask of it.

- `/healthz`: the event loop runs.
- `/readyz`: 200 when packets can go somewhere, 503 otherwise; the body says why.
- `/api/…`: accounts and books, see `accounts_http` and `books_http`; for this machine only.
- `/.well-known/pay`, `/NAME`: SPSP for local accounts.

The reasons in `/readyz` are for this machine only, too.
"""

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from connector.core.health import Health
from connector.node.api import is_local, json


def application(
    name: str,
    address: str,
    health: Health,
    api: Sequence[BaseRoute],
    spsp: Sequence[BaseRoute],
) -> Starlette:
    """The ASGI application of one node."""

    async def healthz(request: Request) -> Response:
        return json({"node": name, "alive": True})

    async def readyz(request: Request) -> Response:
        body: dict[str, object] = {"node": name, "address": address, "status": health.status}
        if is_local(request):
            body["components"] = list(health.components.values())
        return json(body, 200 if health.can_forward else 503)

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            *api,
            *spsp,
        ],
    )
