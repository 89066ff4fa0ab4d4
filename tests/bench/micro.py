"""Micro-benchmarks of the packet path: `just bench-micro`. Commands, not tests: no time is asserted."""

from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest

from connector.core.book import Book
from connector.core.chart import Kind
from connector.core.forwarding import Forwarder
from connector.core.hop import Hop, Relation
from connector.core.instant import Instant
from connector.core.limiter import TokenBucket
from connector.core.policy import Policy
from connector.core.rates import Asset, Rates
from connector.core.routing import RoutingTable
from connector.limits import BTP_FRAME_MAX_BYTES
from connector.protocol import btp, ilp
from connector.protocol.websocket import FrameSplitter, binary_frame

Benchmark = Callable[..., Any]

PREIMAGE = bytes(range(32))
WALL_MS = 1_767_225_600_000
PREPARE = ilp.Prepare(1_000, WALL_MS + 20_000, sha256(PREIMAGE).digest(), "test.node.bob.x", bytes(32))
PACKET = ilp.encode_prepare(PREPARE)
FULFILL = ilp.encode_fulfill(ilp.Fulfill(PREIMAGE, b""))
FRAME = btp.ilp_message(7, PACKET)
BATCH = 64


def test_decode_prepare(benchmark: Benchmark) -> None:
    assert benchmark(ilp.decode_prepare, PACKET) == PREPARE


def test_rewrite_prepare(benchmark: Benchmark) -> None:
    benchmark(ilp.rewrite_prepare, PACKET, PREPARE, 999, WALL_MS + 19_000)


def test_decode_fulfill(benchmark: Benchmark) -> None:
    benchmark(ilp.decode_fulfill, FULFILL)


def test_read_packet_from_a_btp_frame(benchmark: Benchmark) -> None:
    assert benchmark(btp.read_packet, FRAME) == PACKET


def test_split_64_masked_frames(benchmark: Benchmark) -> None:
    octets = binary_frame(FRAME, b"mask") * BATCH
    splitter = FrameSplitter(masked=True, max_bytes=BTP_FRAME_MAX_BYTES)
    assert len(benchmark(splitter.split, octets).payloads) == BATCH


@pytest.mark.parametrize("routes", [10, 1_000, 100_000])
def test_look_up_64_destinations(benchmark: Benchmark, routes: int) -> None:
    """The same destinations whatever the number of routes, so that only the table differs."""
    table = RoutingTable[int]()
    for number in range(routes):
        table.add(f"test.peer.n{number}", number)
    destinations = [f"test.peer.n{number % 10}.account.x" for number in range(BATCH)]

    def look_up() -> None:
        for destination in destinations:
            table.lookup(destination)

    benchmark(look_up)


def test_forward_64_packets_and_relay_their_fulfills(benchmark: Benchmark) -> None:
    asset = Asset("USD", 6)
    book = Book()
    forwarder = Forwarder("test.node", Rates({}), Policy(spread_ppm=1_000), book)
    hops = []
    for name in ("alice", "bob"):
        account = book.open(Kind.PEER, name, asset, 10**18)
        hop = Hop(name, Relation.CHILD, f"test.node.{name}", account, TokenBucket(10**9, 10**9))
        forwarder.add(hop)
        forwarder.connected(hop, Instant(0, 0))
        hops.append(hop)
    alice, bob = hops
    now = Instant(WALL_MS, 0)

    def forward() -> None:
        for request_id in range(BATCH):
            forwarder.prepare(alice, request_id, PACKET, now)
        ((_, prepares),) = forwarder.take()
        for _, request_id, _ in prepares:
            forwarder.reply(bob, request_id, FULFILL, now)
        forwarder.take()

    benchmark(forward)
    assert forwarder.counters["fulfilled"] % BATCH == 0
    assert forwarder.in_flight == 0
