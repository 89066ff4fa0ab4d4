"""A node's HTTP port: is it alive, can it forward, what are its balances, and SPSP (RFC 9).

- `/healthz`: the event loop runs.
- `/readyz`: 200 when packets can go somewhere, 503 otherwise; the body says why.
- `/api/accounts`: every account with its balance; only when the port is on a loopback address.
- `/.well-known/pay`, `/NAME`: SPSP for local accounts.
"""

from collections.abc import Sequence

import msgspec
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from connector.core.book import Account, Book
from connector.core.health import Health
from connector.limits import HTTP_TIMEOUT_S


def application(
    name: str,
    address: str,
    health: Health,
    book: Book | None,
    spsp: Sequence[BaseRoute],
) -> Starlette:
    """The ASGI application of one node. Without `book` it shows no balances."""

    async def healthz(request: Request) -> Response:
        return _json({"node": name, "alive": True})

    async def readyz(request: Request) -> Response:
        body = {
            "node": name,
            "address": address,
            "status": health.status,
            "components": list(health.components.values()),
        }
        return _json(body, 200 if health.can_forward else 503)

    async def accounts(request: Request) -> Response:
        if book is None:
            return _json({"error": "balances are shown on a loopback address only"}, 403)
        rows = [describe(account) for account in book.accounts()]
        return _json({"node": name, "address": address, "accounts": rows})

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/api/accounts", accounts),
            *spsp,
        ],
    )


def describe(account: Account) -> dict[str, object]:
    """An account as JSON has it: amounts are decimal strings, since they outgrow JavaScript's numbers."""
    return {
        "name": account.name,
        "kind": account.kind,
        "asset": account.asset,
        "debits_posted": str(account.debits_posted),
        "credits_posted": str(account.credits_posted),
        "debits_pending": str(account.debits_pending),
        "credits_pending": str(account.credits_pending),
        "net": str(account.net),
        "credit_limit": str(account.credit_limit),
    }


def _json(body: object, status: int = 200) -> Response:
    headers = {"cache-control": "no-store"}
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")


async def serve_http(app: Starlette, listener: trio.SocketListener) -> None:
    """Serve `app` on an open listener until cancelled."""
    config = Config()
    # Hypercorn takes a file descriptor: so ports are bound before anything starts.
    config.bind = [f"fd://{listener.socket.detach()}"]
    config.accesslog = None
    config.errorlog = None
    config.include_server_header = False
    config.graceful_timeout = 1
    config.keep_alive_timeout = HTTP_TIMEOUT_S
    config.read_timeout = HTTP_TIMEOUT_S
    await serve(app, config, shutdown_trigger=trio.sleep_forever, mode="asgi")  # type: ignore[arg-type]
