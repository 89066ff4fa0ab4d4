"""SPSP gives whoever asks over HTTP a connection of their own, and says plainly when it cannot."""

from base64 import b64decode
from collections.abc import Iterator

import httpx
import pytest
from starlette.applications import Starlette

from connector.protocol import ilp, stream
from connector.protocol.stream_crypto import Keys, condition
from connector.receiver.spsp import MEDIA_TYPE, accepts, routes
from connector.receiver.stream_server import StreamServer

ALICE = StreamServer(bytes(range(32)), "test.node.alice", "USD", 6)
BOB = StreamServer(bytes(range(32)), "test.node.bob", "EUR", 9)


def client(default: str | None = "alice") -> httpx.AsyncClient:
    app = Starlette(routes=routes({"alice": ALICE, "bob": BOB}, default))
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app),
        base_url="https://node.example",
        headers={"accept": MEDIA_TYPE},
    )


@pytest.mark.parametrize(("path", "server"), [("/.well-known/pay", ALICE), ("/alice", ALICE), ("/bob", BOB)])
async def test_the_credentials_of_an_answer_are_ones_the_receiver_fulfills(
    path: str,
    server: StreamServer,
) -> None:
    async with client() as http:
        response = await http.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"] == MEDIA_TYPE
    assert response.headers["cache-control"] == "no-store"
    body = response.json()
    assert set(body) == {"destination_account", "shared_secret"}
    keys = Keys(b64decode(body["shared_secret"], validate=True))
    data = keys.encrypt(stream.encode(stream.Packet(1, 12, 0)), bytes(12))
    prepare = ilp.Prepare(7, 0, condition(keys.fulfillment(data)), body["destination_account"], data)
    assert isinstance(server.handle(prepare, bytes(12)), ilp.Fulfill)


async def test_every_answer_is_another_connection() -> None:
    async with client() as http:
        answers = [(await http.get("/alice")).json() for _ in range(3)]
    assert len({answer["destination_account"] for answer in answers}) == 3
    assert len({answer["shared_secret"] for answer in answers}) == 3


async def test_an_unknown_name_is_not_found_and_says_so() -> None:
    async with client() as http:
        response = await http.get("/carol")
    assert response.status_code == 404
    assert response.headers["cache-control"] == "no-store"
    assert response.json() == {
        "id": "InvalidReceiverError",
        "message": "No receiver is called 'carol' here. Names are case-sensitive.",
    }


async def test_without_a_default_receiver_the_host_itself_cannot_be_paid() -> None:
    async with client(default=None) as http:
        response = await http.get("/.well-known/pay")
    assert response.status_code == 404
    assert response.json()["message"] == "This host has no default receiver: pay one by name, $host/NAME."


async def test_who_accepts_only_something_else_gets_406() -> None:
    async with client() as http:
        response = await http.get("/alice", headers={"accept": "text/html"})
    assert response.status_code == 406
    assert MEDIA_TYPE in response.json()["message"]
    assert "shared_secret" not in response.text


async def test_posting_is_not_allowed() -> None:
    async with client() as http:
        assert (await http.post("/alice")).status_code == 405


def headers() -> Iterator[tuple[str | None, bool]]:
    yield None, True
    yield "", True
    yield "*/*", True
    yield "application/*", True
    yield "Application/SPSP4+JSON", True
    yield "application/spsp4+json; charset=utf-8", True
    yield "text/html, */*;q=0.8", True
    yield "text/html", False
    yield "application/json", False
    yield "application/spsp4+json;q=0", False
    yield "*/*; q=0.000", False
    yield "text/*", False


@pytest.mark.parametrize(("header", "expected"), list(headers()))
def test_an_accept_header_is_read_as_http_says(header: str | None, expected: bool) -> None:
    assert accepts(header) is expected
