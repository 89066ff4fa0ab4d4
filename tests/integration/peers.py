"""A node under test, and peers that speak to it through stock trio-websocket, octet by octet if need be."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256

import msgspec
import trio
import trio_websocket as tw
from trio.testing import memory_stream_pair

from connector.config.schema import NodeConfig, Secret
from connector.core.hop import Hop
from connector.core.instant import Instant
from connector.node.node import Node
from connector.protocol import btp, ilp

#: Longer than anything a node waits for; on a mock clock it costs nothing.
_PATIENCE_S = 120
USD = {"code": "USD", "scale": 6}
PREIMAGE = b"a preimage of thirty-two octets!"
CONDITION = sha256(PREIMAGE).digest()
FULFILL = ilp.encode_fulfill(ilp.Fulfill(PREIMAGE, b""))

#: A client's half of a WebSocket handshake, for tests that go below the WebSocket.
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: node\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def child(name: str, **settings: object) -> dict[str, object]:
    """The configuration of a child whose token is its name."""
    return {"name": name, "relation": "child", "token": name, "asset": USD, "credit_limit": 10**9, **settings}


def node_config(*peers: dict[str, object], **sections: object) -> NodeConfig:
    """A configuration with these peers; no ports."""

    def secret(kind: type, value: object) -> Secret:
        assert isinstance(value, str)
        return Secret(value)

    tree = {
        "node": {"name": "node", "address": "test.node"},
        "journal": {"sync": "off"},
        "peers": list(peers),
        **sections,
    }
    return msgspec.convert(tree, NodeConfig, dec_hook=secret)


def prepare(destination: str = "test.node.bob.x", **fields: object) -> ilp.Prepare:
    """A Prepare that anybody who knows PREIMAGE can fulfill."""
    # Far enough away for every clock; the node cuts it to its own longest hold.
    values = {"amount": 100, "expires_at_ms": ilp.TIMESTAMP_MAX_MS, "condition": CONDITION, "data": b""}
    return ilp.Prepare(destination=destination, **(values | fields))  # type: ignore[arg-type]


class Peer:
    """One end of a connection, with nothing between the test and the wire but the WebSocket."""

    def __init__(self, ws: tw.WebSocketConnection, stream: trio.abc.Stream) -> None:
        self.ws = ws
        self.stream = stream

    async def send(self, frame: btp.Frame | bytes) -> None:
        """Send one BTP frame in a binary message."""
        await self.ws.send_message(frame if isinstance(frame, bytes) else btp.encode(frame))

    async def receive(self) -> btp.Frame:
        """The next BTP frame."""
        with trio.fail_after(_PATIENCE_S):
            message = await self.ws.get_message()
        assert isinstance(message, bytes)
        return btp.decode(message)

    async def authenticate(self, token: str, username: str | None = None) -> btp.Frame:
        """Send `auth` and return the answer."""
        parts = [btp.SubProtocol("auth", 0, b""), btp.SubProtocol("auth_token", 1, token.encode())]
        if username is not None:
            parts.append(btp.SubProtocol("auth_username", 1, username.encode()))
        await self.send(btp.Message(1, tuple(parts)))
        return await self.receive()

    async def ask(self, packet: ilp.Prepare | bytes, request_id: int = 2) -> None:
        """Send an ILP packet in a BTP message."""
        octets = packet if isinstance(packet, bytes) else ilp.encode_prepare(packet)
        await self.send(btp.ilp_message(request_id, octets))

    async def reply(self, request_id: int, packet: bytes) -> None:
        """Send an ILP packet in a BTP response."""
        await self.send(btp.ilp_response(request_id, packet))

    async def answer(self) -> ilp.Packet:
        """The ILP packet of the next frame."""
        frame = await self.receive()
        assert isinstance(frame, btp.Message | btp.Response)
        packet = btp.find(frame.sub_protocols, "ilp")
        assert packet is not None
        return ilp.decode(packet.data)

    async def rejection(self) -> ilp.Reject:
        """The Reject in the next frame."""
        reject = await self.answer()
        assert isinstance(reject, ilp.Reject)
        return reject

    async def closed(self) -> tw.CloseReason:
        """Wait until the node has closed the connection; everything before that is read and dropped."""
        try:
            with trio.fail_after(_PATIENCE_S):
                while True:
                    await self.ws.get_message()
        except tw.ConnectionClosed as error:
            assert error.reason is not None
            return error.reason


class World:
    """A running node, and as many peers as the test opens."""

    def __init__(self, node: Node, nursery: trio.Nursery) -> None:
        self.node = node
        self._nursery = nursery

    def hop(self, name: str) -> Hop:
        """The node's view of a peer."""
        return self.node.forwarder.hops[name]

    def stream(self) -> trio.abc.Stream:
        """A fresh connection to the node's listener, before any WebSocket."""
        ours, theirs = memory_stream_pair()
        self._nursery.start_soon(self.node.listener.accept, theirs)
        return ours

    async def open(self) -> Peer:
        """A WebSocket to the node, not authenticated."""
        stream = self.stream()
        ws = await tw.wrap_client_stream(self._nursery, stream, "node", "/")  # type: ignore[arg-type]
        return Peer(ws, stream)

    async def peer(self, name: str) -> Peer:
        """A connection that is authenticated as the child `name`."""
        peer = await self.open()
        assert isinstance(await peer.authenticate(name), btp.Response)
        return peer

    async def assert_link_works(self, source: Peer, target: Peer, name: str = "bob") -> None:
        """One packet goes from `source` to `target` and its Fulfill comes back."""
        request_id = 0x7FFF_FF00
        await source.ask(prepare(f"test.node.{name}.x"), request_id)
        frame = await target.receive()
        assert isinstance(frame, btp.Message)
        await target.reply(frame.request_id, FULFILL)
        assert await source.receive() == btp.decode(btp.ilp_response(request_id, FULFILL))


#: 2026-01-01, so that no test depends on today.
EPOCH_MS = 1_767_225_600_000


def mock_instant() -> Instant:
    """Both clocks follow trio's, which the tests mock."""
    elapsed_ms = int(trio.current_time() * 1000)
    return Instant(EPOCH_MS + elapsed_ms, elapsed_ms)


@asynccontextmanager
async def running(config: NodeConfig) -> AsyncIterator[World]:
    """A node with this configuration, on memory streams."""
    async with trio.open_nursery() as nursery:
        node = Node(config, now=mock_instant)
        await nursery.start(node.run)
        yield World(node, nursery)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def honest_pair(*more: dict[str, object]) -> AsyncIterator[tuple[World, Peer, Peer]]:
    """A node with alice and bob connected, whose packets must still flow at the end; mallory may come."""
    async with running(node_config(child("alice"), child("bob"), child("mallory"), *more)) as world:
        alice, bob = await world.peer("alice"), await world.peer("bob")
        yield world, alice, bob
        await world.assert_link_works(alice, bob)
        assert world.node.forwarder.in_flight == 0
        for totals in world.node.book.totals().values():
            assert totals.debits_posted == totals.credits_posted
            assert totals.debits_pending == totals.credits_pending == 0
