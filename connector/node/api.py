"""What all of a node's own HTTP answers have in common: who may ask, how bodies are read, how errors look.

Everything below /api is for this machine only: the port must be on a loopback
address and asked by one, and not through a proxy. What changes something also
needs `x-connector-admin: 1` or a body of type application/json: a page of
another site can send neither without asking first, and nobody says yes.
"""

import re
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from ipaddress import ip_address
from typing import TypeVar

import msgspec
from loguru import logger
from starlette.requests import Request
from starlette.responses import Response

from connector.errors import Unavailable
from connector.limits import HTTP_BODY_MAX_BYTES
from connector.node.clerk import Refused

T = TypeVar("T")
Endpoint = Callable[[Request], Awaitable[Response]]
#: Gives what is sent as JSON, or a Response as it is. Raises Refused, Unavailable.
Answer = Callable[[Request], Awaitable[object]]

#: msgspec says where as `$.amount`.
_VALIDATION_ERROR = re.compile(r"(.*?)(?: - at `(?:key in )?\$\.?(.*)`)?", re.DOTALL)


def read(answer: Answer) -> Endpoint:
    """An endpoint that only reads."""

    async def guarded(request: Request) -> Response:
        if not is_local(request):
            return json({"error": "asked on a loopback address only, and not through a proxy"}, 403)
        return await _answered(answer, request)

    return guarded


def change(answer: Answer) -> Endpoint:
    """An endpoint that changes something."""

    async def guarded(request: Request) -> Response:
        headers = request.headers
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if headers.get("x-connector-admin") != "1" and kind != "application/json":
            error = "send the header 'x-connector-admin: 1', or a body with 'content-type: application/json'"
            return json({"error": error}, 403)
        return await _answered(answer, request)

    return read(guarded)


async def _answered(answer: Answer, request: Request) -> Response:
    try:
        result = await answer(request)
    except Refused as refused:
        where = {"where": refused.where} if refused.where else {}
        return json({"error": str(refused), **where}, refused.status)
    except Unavailable as error:
        return json({"error": str(error)}, 503)
    except Exception as error:  # noqa: BLE001 - it ends this answer, and Hypercorn would not say why
        logger.opt(exception=error).error("{} {} failed by a bug", request.method, request.url.path)
        return json({"error": f"a bug, which the node has logged: {type(error).__name__}"}, 500)
    return result if isinstance(result, Response) else json(result)


def json(body: object, status: int = 200) -> Response:
    """`body` as JSON, for no cache to keep."""
    headers = {"cache-control": "no-store"}
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")


async def body_of(request: Request, kind: type[T]) -> T:
    """The body, which must be the JSON of `kind`. Raises Refused, saying what and where."""
    body = bytearray()
    async with aclosing(request.stream()) as pieces:
        async for piece in pieces:
            body += piece
            if len(body) > HTTP_BODY_MAX_BYTES:
                raise Refused(413, f"more than {HTTP_BODY_MAX_BYTES} bytes")
    try:
        return msgspec.json.decode(bytes(body) or b"{}", type=kind)
    except msgspec.ValidationError as error:
        match = _VALIDATION_ERROR.fullmatch(str(error))
        assert match is not None
        where = match[2] or ""
        raise Refused(400, f"{where}: {match[1]}" if where else match[1], where) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(400, f"the body is no JSON: {error}") from None


def number_of(request: Request, name: str, default: int, least: int, most: int) -> int:
    """A number in the query. Raises Refused."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= 20 and least <= int(text) <= most):
        raise Refused(400, f"{name}: {text[:40]!r} is no number between {least} and {most}", name)
    return int(text)


def is_local(request: Request) -> bool:
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
