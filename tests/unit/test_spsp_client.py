"""Asking where to pay: pointers become URLs, and only a proper answer is believed."""

from base64 import b64encode
from collections.abc import AsyncIterator

import httpx
import pytest
import trio
from starlette.applications import Starlette

from connector.errors import PaymentError, Unavailable
from connector.limits import SPSP_BODY_MAX_BYTES, SPSP_TIMEOUT_S
from connector.receiver.spsp import routes
from connector.receiver.stream_server import StreamServer
from connector.sender.spsp_client import query, read_secret, url_of

SECRET = bytes(range(32))
GOOD = {"destination_account": "test.alice.token", "shared_secret": b64encode(SECRET).decode()}


def answering(response: httpx.Response) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.MockTransport(lambda request: response))


@pytest.mark.parametrize(
    ("receiver", "url"),
    [
        ("$example.com", "https://example.com/.well-known/pay"),
        ("$example.com/", "https://example.com/.well-known/pay"),
        ("$example.com/alice", "https://example.com/alice"),
        ("$example.com:8443/a/b", "https://example.com:8443/a/b"),
        ("https://example.com/alice", "https://example.com/alice"),
        ("http://127.0.0.1:7805", "http://127.0.0.1:7805/.well-known/pay"),
    ],
)
def test_a_payment_pointer_is_a_url(receiver: str, url: str) -> None:
    assert url_of(receiver) == url


@pytest.mark.parametrize(
    "receiver", ["$", "$/alice", "$a b", "$host?x=1", "$user@host/x", "alice", "ftp://x/y", ""]
)
def test_what_is_neither_pointer_nor_url_is_refused(receiver: str) -> None:
    with pytest.raises(PaymentError, match="payment pointer"):
        url_of(receiver)


@pytest.mark.parametrize(
    "receiver",
    ["http://[::1", "$[::1", "https://[::1]x/", "$host:port", "http://a\x01b/", "$é\u0301.-"],
)
def test_what_looks_like_a_url_and_is_none_is_refused(receiver: str) -> None:
    with pytest.raises(PaymentError, match="is no URL: "):
        url_of(receiver)


@pytest.mark.parametrize("host", ["a" * 64, "a..b"])
async def test_a_host_that_no_name_server_could_know_is_refused(host: str) -> None:
    with pytest.raises(PaymentError, match=r"^https://a.* is no URL: "):
        await query(f"${host}")


async def test_our_own_endpoint_is_understood() -> None:
    server = StreamServer(SECRET, "test.node.alice", "USD", 6)
    app = Starlette(routes=routes({"alice": server}))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app)) as client:
        receiver = await query("$node.example/alice", client)
        assert receiver.destination.startswith("test.node.alice.")
        assert len(receiver.shared_secret) == 32
        with pytest.raises(PaymentError, match="answered 404: No receiver is called 'bob' here"):
            await query("$node.example/bob", client)


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (httpx.Response(500), "answered 500$"),
        (httpx.Response(200, text="<html>"), "is no SPSP endpoint"),
        (httpx.Response(200, json={"destination_account": "test.alice"}), "is no SPSP endpoint"),
        (httpx.Response(200, json={**GOOD, "destination_account": "alice"}), "no ILP address"),
        (httpx.Response(200, json={**GOOD, "shared_secret": "AAAA"}), "has 3 bytes, 32 are needed"),
        (httpx.Response(200, json={**GOOD, "shared_secret": "?"}), "not base64"),
        (httpx.Response(200, content=b" " * (SPSP_BODY_MAX_BYTES + 1)), "more than 65536 bytes"),
        (
            httpx.Response(302, headers={"location": "https://b.example/"}),
            "moved to https://b.example/: pay that",
        ),
        (httpx.Response(302, headers=[(b"location", b"\x9b2J")]), "moved to �2J: pay that"),
        (httpx.Response(404, json={"message": "no\x1b[2Jbody"}), "answered 404: no�\\[2Jbody"),
    ],
)
async def test_an_answer_that_is_none_is_a_payment_error(response: httpx.Response, reason: str) -> None:
    with pytest.raises(PaymentError, match=reason):
        await query("$node.example/alice", answering(response))


async def test_a_host_that_cannot_be_reached_is_unavailable() -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no route")

    with pytest.raises(Unavailable, match="cannot be asked: no route"):
        await query("$node.example", httpx.AsyncClient(transport=httpx.MockTransport(fail)))


class Drip(httpx.AsyncByteStream):
    """A body of which one byte comes every 5 s."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            await trio.sleep(5)
            yield b" "


async def test_an_answer_that_only_drips_has_the_time_of_one_answer(autojump_clock: object) -> None:
    started = trio.current_time()
    with pytest.raises(Unavailable, match=r"^https://node.example/alice did not answer within 10 s$"):
        await query("$node.example/alice", answering(httpx.Response(200, stream=Drip())))
    assert trio.current_time() - started == SPSP_TIMEOUT_S


def test_a_secret_is_read_in_either_base64_alphabet_padded_or_not() -> None:
    secret = b"\xfb\xff" * 16
    plain = b64encode(secret).decode()
    for text in (plain, plain.rstrip("="), plain.replace("+", "-").replace("/", "_"), f" {plain}\n"):
        assert read_secret(text) == secret
