"""What hostile HTTP clients send to a node's port: their own connection ends, and the next one is served."""

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import trio

from connector.core.health import Health
from connector.limits import HTTP_CONNECTIONS_MAX
from connector.links.listener import open_listeners
from connector.node import http, http_server
from connector.node.accounts_http import AccountsHttp
from connector.node.books import Books
from connector.node.clerk import Clerk
from connector.node.http_server import HttpServer
from tests.integration.peers import mock_instant, node_config

UPGRADE = (
    b"GET /alice HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)
H2C = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n"
    b"HTTP2-Settings: AAAA\r\n\r\n"
)


def h2_frame(kind: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, 0)) + struct.pack(">I", stream) + payload


PRIORITIES = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    + h2_frame(4, 0, b"")
    + b"".join(h2_frame(2, stream, struct.pack(">IB", 0, 15)) for stream in range(1, 2_400, 2))
)


@asynccontextmanager
async def served() -> AsyncIterator[int]:
    """A node's HTTP application on a real port, which must still answer at the end."""
    health = Health()
    health.started = True
    books = Books(node_config(), health, mock_instant)
    clerk = Clerk("test.node", books, lambda: None, mock_instant)
    app = http.application("node", "test.node", health, AccountsHttp("node", clerk).routes(), [])
    listeners = await open_listeners("127.0.0.1", 0)
    port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(HttpServer(app).run, listeners)
        yield port
        async with httpx.AsyncClient() as web:
            with trio.fail_after(5):
                # Until the server has heard of every connection that ended.
                while True:
                    try:
                        answer = await web.get(f"http://127.0.0.1:{port}/readyz")
                        break
                    except httpx.RemoteProtocolError:
                        await trio.lowlevel.checkpoint()
            assert answer.status_code == 200
        with trio.fail_after(5):
            nursery.cancel_scope.cancel()
            await trio.lowlevel.checkpoint_if_cancelled()


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(UPGRADE + b"Sec-WebSocket-Protocol: \xff\r\n\r\n", id="websocket protocol not ASCII"),
        pytest.param(UPGRADE + b"Sec-WebSocket-Extensions: \xff\r\n\r\n", id="websocket extension not ASCII"),
        pytest.param(H2C, id="h2c upgrade with broken settings"),
        pytest.param(PRIORITIES, id="too many HTTP/2 streams"),
        pytest.param(b"\x00\xff" * 5_000, id="no HTTP at all"),
        pytest.param(b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 20_000, id="endless header"),
    ],
)
async def test_what_breaks_the_parser_closes_its_own_connection(octets: bytes) -> None:
    async with served() as port:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        with trio.fail_after(15):
            try:
                await stream.send_all(octets)
                await stream.send_eof()
                while await stream.receive_some():
                    pass
            except trio.BrokenResourceError:
                pass
        await stream.aclose()


async def test_a_client_that_does_not_read_cannot_hold_up_the_stop() -> None:
    async with served() as port:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        request = b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n" * 500
        with trio.move_on_after(1):
            while True:
                await stream.send_all(request)
        # The server is stuck in a write to us now; leaving the block cancels it.
    await stream.aclose()


async def test_connections_past_the_bound_are_closed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # Hypercorn lets go of a connection that ended only after this long.
    monkeypatch.setattr(http_server, "HTTP_TIMEOUT_S", 0.2)
    async with served() as port:
        idle = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(HTTP_CONNECTIONS_MAX)]
        await trio.testing.wait_all_tasks_blocked()
        late = await trio.open_tcp_stream("127.0.0.1", port)
        with trio.fail_after(5):
            assert await late.receive_some() == b""
        for stream in (*idle, late):
            await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()


@pytest.mark.parametrize(
    "headers",
    [{"host": "pay.example.com"}, {"x-forwarded-for": "203.0.113.9"}, {"forwarded": "for=203.0.113.9"}],
)
async def test_balances_and_reasons_are_for_this_machine_only(headers: dict[str, str]) -> None:
    async with served() as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as web:
        assert (await web.get("/api/accounts")).status_code == 200
        assert "components" in (await web.get("/readyz")).json()
        assert (await web.get("/api/accounts", headers=headers)).status_code == 403
        ready = await web.get("/readyz", headers=headers)
        assert ready.json() == {"node": "node", "address": "test.node", "status": "ready"}
