"""Asks over HTTP where to pay: payment pointers (RFC 26) and SPSP (RFC 9).

A pointer `$host/path` is `https://host/path`, without a path
`https://host/.well-known/pay`. Plain URLs are taken as they are, `http://`
included: that is for a node on the same machine.
"""

import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final, cast
from urllib.parse import urlsplit

import httpx
import msgspec
import trio

from connector.errors import PaymentError, Unavailable
from connector.limits import SPSP_BODY_MAX_BYTES, SPSP_TIMEOUT_S
from connector.protocol.address import is_address
from connector.protocol.stream_crypto import SECRET_BYTES
from connector.sender.report import printable
from connector.sender.stream_client import Receiver

MEDIA_TYPE: Final = "application/spsp4+json"
_POINTER = re.compile(r"\$([^/?#\s@]+)(/[^?#\s]*)?").fullmatch


class _Answer(msgspec.Struct):
    destination_account: str
    shared_secret: str


class _Failure(msgspec.Struct):
    message: str


def url_of(receiver: str) -> str:
    """The URL to ask for a payment pointer or URL. Raises PaymentError when it is neither."""
    try:
        url = _url_of(receiver)
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL) as error:
        raise PaymentError(f"{receiver!r} is no URL: {printable(str(error))}") from None
    return url


def _url_of(receiver: str) -> str:
    if receiver.startswith("$"):
        match = _POINTER(receiver)
        if match is None:
            raise PaymentError(f"{receiver!r} is no payment pointer: $host or $host/path is")
        path = match[2] if match[2] not in (None, "/") else "/.well-known/pay"
        return f"https://{match[1]}{path}"
    parts = urlsplit(receiver)
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise PaymentError(f"{receiver!r} is neither a payment pointer ($host/path) nor a URL")
    if parts.path in ("", "/"):
        return parts._replace(path="/.well-known/pay").geturl()
    return receiver


async def query(receiver: str, client: httpx.AsyncClient | None = None) -> Receiver:
    """Where to pay `receiver`, and the secret for it.

    Raises PaymentError for answers that are none, Unavailable when none is complete
    within SPSP_TIMEOUT_S.
    """
    url = url_of(receiver)
    if client is None:
        async with httpx.AsyncClient(timeout=SPSP_TIMEOUT_S) as own:
            return await query(receiver, own)
    try:
        # A time limit of httpx is one for each read: a server that drips would never reach it.
        with trio.fail_after(SPSP_TIMEOUT_S):
            async with client.stream("GET", url, headers={"Accept": MEDIA_TYPE}) as response:
                body = await _bounded(response, url)
    except (trio.TooSlowError, httpx.TimeoutException):
        raise Unavailable(f"{url} did not answer within {SPSP_TIMEOUT_S:g} s") from None
    except httpx.HTTPError as error:
        raise Unavailable(f"{url} cannot be asked: {printable(str(error))}") from None
    except UnicodeError as error:
        # Name resolution refuses labels that are empty or too long so.
        raise PaymentError(f"{url} is no URL: {error}") from None
    if response.is_redirect:
        where = printable(response.headers.get("location", "nowhere"))
        raise PaymentError(f"{url} moved to {where}: pay that")
    if response.status_code != httpx.codes.OK:
        raise PaymentError(f"{url} answered {response.status_code}{_message(body)}")
    return _read(body, url)


async def _bounded(response: httpx.Response, url: str) -> bytes:
    body = bytearray()
    async with aclosing(cast(AsyncGenerator[bytes, None], response.aiter_bytes())) as pieces:
        async for piece in pieces:
            body += piece
            if len(body) > SPSP_BODY_MAX_BYTES:
                raise PaymentError(f"{url} answered with more than {SPSP_BODY_MAX_BYTES} bytes")
    return bytes(body)


def _message(body: bytes) -> str:
    try:
        return f": {printable(msgspec.json.decode(body, type=_Failure).message)}"
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ""


def _read(body: bytes, url: str) -> Receiver:
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise PaymentError(f"{url} is no SPSP endpoint: its answer is not the JSON of RFC 9") from None
    if not is_address(answer.destination_account):
        raise PaymentError(f"{url} answered with a destination_account that is no ILP address")
    return Receiver(answer.destination_account, read_secret(answer.shared_secret))


def read_secret(text: str) -> bytes:
    """A shared secret from base64, of either alphabet, padded or not. Raises PaymentError."""
    text = text.strip().rstrip("=").replace("-", "+").replace("_", "/")
    try:
        secret = b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (Base64Error, ValueError):
        raise PaymentError("the shared secret is not base64") from None
    if len(secret) != SECRET_BYTES:
        raise PaymentError(f"the shared secret has {len(secret)} bytes, {SECRET_BYTES} are needed")
    return secret
