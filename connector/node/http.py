"""A node's HTTP port: is it alive, can it forward, what are its balances, and SPSP (RFC 9).

- `/healthz`: the event loop runs.
- `/readyz`: 200 when packets can go somewhere, 503 otherwise; the body says why.
- `/api/accounts`: every account with its balance.
- `/.well-known/pay`, `/NAME`: SPSP for local accounts.

Balances and the reasons in `/readyz` are for this machine only: the port must
be on a loopback address and asked by one, and not through a proxy.
"""

from collections.abc import Sequence
from ipaddress import ip_address

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from connector.core.book import Account, Book
from connector.core.health import Health


def application(
    name: str,
    address: str,
    health: Health,
    book: Book,
    spsp: Sequence[BaseRoute],
) -> Starlette:
    """The ASGI application of one node."""

    async def healthz(request: Request) -> Response:
        return _json({"node": name, "alive": True})

    async def readyz(request: Request) -> Response:
        body: dict[str, object] = {"node": name, "address": address, "status": health.status}
        if _is_local(request):
            body["components"] = list(health.components.values())
        return _json(body, 200 if health.can_forward else 503)

    async def accounts(request: Request) -> Response:
        if not _is_local(request):
            return _json(
                {"error": "balances are shown on a loopback address only, and not through a proxy"}, 403
            )
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


def _is_local(request: Request) -> bool:
    """Whether somebody on this machine asks, with no proxy between, and no page of another site."""
    headers = request.headers
    if any(header == "forwarded" or header.startswith("x-forwarded-") for header in headers):
        return False
    server = request.scope.get("server")
    return server is not None and _is_loopback(server[0]) and _is_loopback(request.url.hostname or "")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def describe(account: Account) -> dict[str, object]:
    """An account as JSON has it: amounts are decimal strings, since they outgrow JavaScript's numbers."""
    return {
        "name": account.name,
        "kind": account.kind.word,
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
