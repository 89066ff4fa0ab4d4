"""Links between real nodes: who dials, which of two stays, what is noticed, how they end."""

import ssl
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trustme
from trio.testing import memory_stream_pair

from connector import limits
from connector.config.schema import NodeConfig
from connector.errors import AuthenticationError, Unavailable
from connector.links.client import connect
from connector.links.link import Link
from connector.links.listener import Listener, open_listeners
from connector.links.registry import Credentials, Registry
from connector.links.session import Item
from connector.node.node import Node
from connector.protocol import btp, ilp
from tests.integration.peers import (
    FULFILL,
    USD,
    child,
    mock_instant,
    node_config,
    prepare,
    running,
)

Opener = Callable[[str, ssl.SSLContext | None], Awaitable[trio.abc.Stream]]


def neighbour(name: str, *, dials: bool, token: str = "shared") -> dict[str, object]:
    """The configuration of a peer called `name`."""
    peer: dict[str, object] = {
        "name": name,
        "relation": "peer",
        "address": f"test.{name}",
        "token": token,
        "asset": USD,
        "credit_limit": 10**6,
    }
    return peer | ({"url": f"ws://{name}"} if dials else {})


class Pair:
    """Two nodes, `a` and `b`, that can dial each other over memory streams."""

    def __init__(self, a: NodeConfig, b: NodeConfig) -> None:
        self.nodes: dict[str, Node] = {}
        self.reachable = True
        #: One for each connection: cancelling it cuts the cable.
        self.streams: list[trio.abc.Stream] = []
        self.dials: list[tuple[str, float]] = []
        for name, config in (("a", a), ("b", b)):
            self.nodes[name] = Node(config, now=mock_instant, open_transport=self._opener(name))

    def _opener(self, dialler: str) -> Opener:
        async def open_transport(url: str, _tls: ssl.SSLContext | None) -> trio.abc.Stream:
            self.dials.append((dialler, trio.current_time()))
            await trio.lowlevel.checkpoint()
            if not self.reachable:
                raise Unavailable("nobody there")
            ours, theirs = memory_stream_pair()
            self.streams += (ours, theirs)
            self.nursery.start_soon(self.nodes[url.removeprefix("ws://")].listener.accept, theirs)
            return ours

        return open_transport

    def link(self, name: str) -> Link | None:
        """The link of node `name` to the other."""
        other = "b" if name == "a" else "a"
        return self.nodes[name].registry.link(other)

    async def settle(self, seconds: float = 5.0) -> None:
        """Let time pass."""
        await trio.sleep(seconds)

    nursery: trio.Nursery


@asynccontextmanager
async def pair(*, a_dials: bool, b_dials: bool, b_token: str = "shared") -> AsyncIterator[Pair]:
    a = node_config(neighbour("b", dials=a_dials), node={"name": "a", "address": "test.a"})
    b = node_config(neighbour("a", dials=b_dials, token=b_token), node={"name": "b", "address": "test.b"})
    two = Pair(a, b)
    async with trio.open_nursery() as nursery:
        two.nursery = nursery
        for node in two.nodes.values():
            await nursery.start(node.run)
        yield two
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("a_dials", "b_dials"), [(True, False), (False, True), (True, True)])
async def test_either_side_may_dial_and_one_link_results(
    a_dials: bool, b_dials: bool, autojump_clock: object
) -> None:
    async with pair(a_dials=a_dials, b_dials=b_dials) as two:
        await two.settle()
        here, there = two.link("a"), two.link("b")
        assert here is not None
        assert there is not None
        assert here.dialled != there.dialled
        assert two.nodes["a"].health.status == two.nodes["b"].health.status == "ready"
        await two.settle(300)
        assert (two.link("a"), two.link("b")) == (here, there)


async def test_a_crossing_link_dialled_by_the_higher_address_gives_way() -> None:
    registry = Registry("test.m")
    registry.add(Credentials("low", "1", "test.a"))
    registry.add(Credentials("high", "2", "test.z"))

    def link(peer: str, *, dialled: bool) -> Link:
        made = Link(memory_stream_pair()[0], _Deaf(), dialled=dialled)
        made.session.peer = peer
        return made

    # test.m is lower than test.z: the link that we dialled stays, whichever came first.
    ours, theirs = link("high", dialled=True), link("high", dialled=False)
    assert registry.admit(ours) is None
    assert "stays" in (registry.admit(theirs) or "")
    assert registry.link("high") is ours
    registry.remove(ours)
    assert registry.admit(theirs) is None
    assert registry.admit(ours) is None
    assert registry.link("high") is ours
    # test.m is higher than test.a: the link that they dialled stays.
    ours, theirs = link("low", dialled=True), link("low", dialled=False)
    assert registry.admit(theirs) is None
    assert "stays" in (registry.admit(ours) or "")
    assert registry.link("low") is theirs


class _Deaf:
    def opened(self, link: Link) -> str | None:
        return None

    def packets(self, link: Link, batch: list[Item]) -> None: ...
    def drained(self, link: Link) -> None: ...
    def asked(self, link: Link, name: str, data: bytes) -> bytes | None: ...
    def closed(self, link: Link) -> None: ...


async def test_a_newer_link_of_the_same_peer_replaces_the_older(autojump_clock: object) -> None:
    async with running(node_config(child("alice"), child("bob"))) as world:
        older, bob = await world.peer("alice"), await world.peer("bob")
        await older.ask(prepare(), 5)
        frame = await bob.receive()
        newer = await world.peer("alice")
        reason = await older.closed()
        assert reason.reason == "replaced by a newer link"
        # What the older link asked is answered to nobody: the id may mean something else on the newer.
        await bob.reply(frame.request_id, FULFILL)
        await newer.send(btp.Message(99, ()))
        assert await newer.receive() == btp.Response(99, ())
        await world.assert_link_works(newer, bob)
        assert world.hop("bob").account.net == -200


async def test_a_lost_link_is_dialled_again_for_ever_with_growing_waits(autojump_clock: object) -> None:
    async with pair(a_dials=True, b_dials=False) as two:
        await two.settle()
        two.reachable = False
        two.dials.clear()
        await two.streams[0].aclose()
        await two.settle(3_600)
        waits = [later - earlier for (_, earlier), (_, later) in zip(two.dials, two.dials[1:], strict=False)]
        assert waits[0] <= 2 * limits.BACKOFF_MIN_S
        assert all(wait <= limits.BACKOFF_MAX_S for wait in waits)
        assert all(wait >= limits.BACKOFF_MAX_S / 2 for wait in waits[10:])
        assert len(two.dials) > 3_600 / limits.BACKOFF_MAX_S
        assert two.nodes["a"].health.status == "unavailable"
        assert two.nodes["a"].health.components["link b"].reason == "nobody there"
        two.reachable = True
        await two.settle(limits.BACKOFF_MAX_S + 1)
        assert two.nodes["a"].health.status == "ready"


async def test_a_refused_token_is_said_and_tried_again(autojump_clock: object) -> None:
    async with pair(a_dials=True, b_dials=False, b_token="another") as two:
        await two.settle()
        assert two.link("a") is None
        reason = two.nodes["a"].health.components["link b"].reason
        assert "b refused authentication: F00" in reason
        assert "shared" not in reason
        await two.settle(60)
        assert len(two.dials) > 3


async def test_a_peer_that_stops_answering_pings_is_put_out(autojump_clock: object) -> None:
    async with pair(a_dials=True, b_dials=False) as two:
        await two.settle()
        dead = two.link("a")
        assert dead is not None
        # A cable that was pulled: nothing comes, and nothing says so.
        silent = trio.Event()

        async def nothing(max_bytes: int | None = None) -> bytes:
            await silent.wait()
            return b""

        for stream in two.streams:
            stream.receive_some = nothing  # type: ignore[method-assign]
        await two.settle(limits.PING_INTERVAL_S * 2 + limits.PONG_TIMEOUT_S)
        assert dead.close_reason == "no pong within 10 s"
        assert two.link("a") is not dead


async def test_a_live_link_knows_its_round_trip(autojump_clock: object) -> None:
    async with pair(a_dials=True, b_dials=False) as two:
        await two.settle(limits.PING_INTERVAL_S + 1)
        link = two.link("a")
        assert link is not None
        assert link.rtt_ms is not None


async def test_stopping_lets_packets_resolve_then_says_goodbye(autojump_clock: object) -> None:
    async with running(node_config(child("alice"), child("bob"))) as world:
        alice, bob = await world.peer("alice"), await world.peer("bob")
        await alice.ask(prepare(), 5)
        frame = await bob.receive()
        world.node.stop()
        await trio.testing.wait_all_tasks_blocked()
        assert world.node.health.status == "draining"
        await alice.ask(prepare(), 6)
        reject = await alice.rejection()
        assert (reject.code, reject.message) == ("T03", "this connector is shutting down")
        await bob.reply(frame.request_id, FULFILL)
        assert isinstance(await alice.answer(), ilp.Fulfill)
        for peer in (alice, bob):
            reason = await peer.closed()
            assert (reason.code, reason.reason) == (1000, "shutting down")


async def test_stopping_does_not_wait_longer_than_its_deadline(autojump_clock: object) -> None:
    async with running(node_config(child("alice"), child("bob"))) as world:
        alice, bob = await world.peer("alice"), await world.peer("bob")
        await alice.ask(prepare(), 5)
        await bob.receive()
        started_s = trio.current_time()
        world.node.stop()
        assert (await alice.closed()).reason == "shutting down"
        assert trio.current_time() - started_s == pytest.approx(limits.DRAIN_TIMEOUT_S, abs=0.1)


async def test_a_child_learns_its_address(autojump_clock: object) -> None:
    async with running(node_config(child("alice"))) as world:
        alice = await world.peer("alice")
        # As RFC 31 and the stock clients have it.
        condition = b64decode("Zmh6rfhivXdsj8GLjp+OIAiXFIVu4jOzkCpZHQ1fKSU=")
        request = ilp.Prepare(0, ilp.TIMESTAMP_MAX_MS, condition, "peer.config", b"")
        await alice.ask(request)
        reply = await alice.answer()
        assert isinstance(reply, ilp.Fulfill)
        assert reply.data == b"\x0ftest.node.alice\x06\x03USD"


# --- TLS and the client, on real sockets ---


@asynccontextmanager
async def tls_listener(ca: trustme.CA, handler: "_Echo") -> AsyncIterator[int]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("localhost").configure_cert(context)
    registry = Registry("test.node")
    registry.add(Credentials("alice", "secret-token", "test.node.alice"))
    listener = Listener(registry, handler, context)
    listeners = await open_listeners("127.0.0.1", 0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, listener.accept, listeners)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


class _Echo(_Deaf):
    """Fulfills everything."""

    def packets(self, link: Link, batch: list[Item]) -> None:
        link.send([(btp.RESPONSE, request_id, FULFILL) for _, request_id, _ in batch])


async def test_wss_carries_packets_when_the_certificate_is_trusted() -> None:
    ca = trustme.CA()
    with ca.cert_pem.tempfile() as ca_file:
        async with tls_listener(ca, _Echo()) as port:
            url = f"wss://localhost:{port}"
            async with connect(url, token="secret-token", ca_file=ca_file) as client:
                packet = ilp.encode_prepare(prepare())
                assert await client.send(packet, timeout_s=5) == FULFILL


async def test_wss_with_an_unknown_certificate_is_refused_and_says_why() -> None:
    async with tls_listener(trustme.CA(), _Echo()) as port:
        with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
            async with connect(f"wss://localhost:{port}", token="secret-token"):
                raise AssertionError("not reached")


async def test_plain_bytes_to_a_tls_listener_are_closed() -> None:
    async with tls_listener(trustme.CA(), _Echo()) as port:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
        with trio.fail_after(5):
            try:
                while await stream.receive_some():
                    pass
            except trio.BrokenResourceError:
                pass
        await stream.aclose()


async def test_the_client_says_that_its_token_is_refused() -> None:
    ca = trustme.CA()
    with ca.cert_pem.tempfile() as ca_file:
        async with tls_listener(ca, _Echo()) as port:
            with pytest.raises(AuthenticationError, match="unknown token") as caught:
                async with connect(f"wss://localhost:{port}", token="wrong", ca_file=ca_file):
                    raise AssertionError("not reached")
            assert "wrong" not in str(caught.value)


async def test_the_client_says_that_nobody_is_there() -> None:
    with pytest.raises(Unavailable, match="cannot connect to 127"):
        async with connect("ws://127.0.0.1:1", token="x"):
            raise AssertionError("not reached")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "404"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nnot here\n", "404"),
        (b"HTTP/1.1 101 x\r\n\r\n", "WebSocket failed"),
        (
            b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
            "WebSocket failed",
        ),
        (b"HTTP/1.1 101 \xff\r\n\r\n", "not ASCII"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "WebSocket failed|closed the connection"),
    ],
)
async def test_the_client_says_that_a_server_speaks_no_websocket(answer: bytes, said: str) -> None:
    async def refuse(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(answer)
        await stream.aclose()

    listeners = await open_listeners("127.0.0.1", 0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, refuse, listeners)
        port = listeners[0].socket.getsockname()[1]
        with pytest.raises(Unavailable, match=said):
            async with connect(f"ws://127.0.0.1:{port}", token="x"):
                raise AssertionError("not reached")
        nursery.cancel_scope.cancel()


async def test_errors_of_the_caller_pass_through_the_client_unwrapped() -> None:
    ca = trustme.CA()
    with ca.cert_pem.tempfile() as ca_file:
        async with tls_listener(ca, _Echo()) as port:
            with pytest.raises(KeyError, match="mine"):
                async with connect(f"wss://localhost:{port}", token="secret-token", ca_file=ca_file):
                    raise KeyError("mine")


async def test_a_port_in_use_is_unavailable_and_named() -> None:
    taken = await open_listeners("127.0.0.1", 0)
    port = taken[0].socket.getsockname()[1]
    with pytest.raises(Unavailable, match=f"cannot listen on 127.0.0.1:{port}"):
        await open_listeners("127.0.0.1", port)
    await taken[0].aclose()
