"""SPSP (RFC 9): who asks over HTTP where to pay gets an address and a secret.

    GET /.well-known/pay   the default receiver
    GET /NAME              the receiver of that name

Each answer is a new connection of its own, so none may be cached or shared.
Errors are JSON with `id` and `message`, as the RFC shows them. The routes match
any one-segment path: put them after every other route.
"""

import secrets
from base64 import b64encode
from collections.abc import Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from connector.receiver.stream_server import NONCE_BYTES, StreamServer

MEDIA_TYPE: Final = "application/spsp4+json"
DEFAULT_PATH: Final = "/.well-known/pay"
#: What an `Accept` header may say to be given `MEDIA_TYPE`.
_ACCEPTABLE: Final = frozenset((MEDIA_TYPE, "application/*", "*/*"))
_NAME_SHOWN_MAX: Final = 80


class _Answer(JSONResponse):
    media_type = MEDIA_TYPE


def _answer(content: dict[str, str], status: int = 200) -> JSONResponse:
    # The secret is for one payer: no cache, shared or private, may keep it.
    return _Answer(content, status, {"Cache-Control": "no-store", "Vary": "Accept"})


def accepts(header: str | None) -> bool:
    """Whether an `Accept` header admits an SPSP answer; a missing or empty one admits all."""
    if header is None or not header.strip():
        return True
    for part in header.split(","):
        media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if media_range in _ACCEPTABLE and not any(map(_is_zero_quality, parameters)):
            return True
    return False


def _is_zero_quality(parameter: str) -> bool:
    name, _, value = parameter.partition("=")
    return name.strip() == "q" and value.strip() in ("0", "0.", "0.0", "0.00", "0.000")


def _credentials(request: Request, server: StreamServer | None, missing: str) -> JSONResponse:
    if not accepts(request.headers.get("accept")):
        message = f"This address answers with {MEDIA_TYPE}; the Accept header does not admit it."
        return _answer({"id": "NotAcceptableError", "message": message}, 406)
    if server is None:
        return _answer({"id": "InvalidReceiverError", "message": missing}, 404)
    address, shared_secret = server.generate_credentials(secrets.token_bytes(NONCE_BYTES))
    secret = b64encode(shared_secret).decode("ascii")
    return _answer({"destination_account": address, "shared_secret": secret})


def routes(receivers: Mapping[str, StreamServer], default: str | None = None) -> list[Route]:
    """The SPSP routes of a node's receivers, by name; `default` names who is paid at the host itself.

    `receivers` is looked up at each request: what is added to it later is found.
    """

    async def pay_default(request: Request) -> JSONResponse:
        server = None if default is None else receivers.get(default)
        missing = "This host has no default receiver: pay one by name, $host/NAME."
        return _credentials(request, server, missing)

    async def pay_name(request: Request) -> JSONResponse:
        name: str = request.path_params["name"]
        missing = f"No receiver is called {name[:_NAME_SHOWN_MAX]!r} here. Names are case-sensitive."
        return _credentials(request, receivers.get(name), missing)

    return [Route(DEFAULT_PATH, pay_default), Route("/{name}", pay_name)]
