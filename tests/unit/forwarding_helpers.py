"""A forwarder with neighbours, and the packets that tests send through it."""

from fractions import Fraction
from hashlib import sha256
from typing import Any

from connector.core.book import Book
from connector.core.chart import Kind
from connector.core.entries import Side
from connector.core.forwarding import Forwarder
from connector.core.hop import Hop, Relation
from connector.core.instant import Instant
from connector.core.limiter import TokenBucket
from connector.core.policy import Policy
from connector.core.rates import Asset, Rates
from connector.limits import U64_MAX
from connector.protocol import ilp
from connector.protocol.btp import MESSAGE, RESPONSE

USD, USD6, EUR = Asset("USD", 2), Asset("USD", 6), Asset("EUR", 2)
PRICES = {"USD": Fraction(1), "EUR": Fraction("1.1")}
POLICY = Policy()
NODE = "test.node"
WALL_MS = 1_767_268_800_000
FULFILLMENT = b"f" * 32
CONDITION = sha256(FULFILLMENT).digest()


class World:
    """One forwarder: peers alice and bob, child carol, parent dave, local account shop, euro peer erin.

    Time stands still until `wait` (both clocks) or `step` (wall time alone).
    """

    def __init__(self, policy: Policy = POLICY, network: str = NODE) -> None:
        self.book = Book()
        self.forwarder = Forwarder(network, Rates(PRICES), policy, self.book)
        self.now = Instant(WALL_MS, 5_000)
        self.scheme = network.partition(".")[0]
        self.alice = self.hop("alice", Relation.PEER, f"{self.scheme}.alice")
        self.bob = self.hop("bob", Relation.PEER, f"{self.scheme}.bob")
        self.carol = self.hop("carol", Relation.CHILD, f"{network}.carol")
        self.dave = self.hop("dave", Relation.PARENT, f"{self.scheme}.dave")
        self.shop = self.hop("shop", Relation.LOCAL, f"{network}.shop")
        self.erin = self.hop("erin", Relation.PEER, f"{self.scheme}.erin", asset=EUR)
        self.hops = list(self.forwarder.hops.values())

    def hop(
        self,
        name: str,
        relation: Relation,
        address: str,
        *,
        asset: Asset = USD,
        credit_limit: int = 10**9,
        packets: int = 10**6,
        max_packet_amount: int = U64_MAX,
    ) -> Hop:
        kind = Kind.LOCAL if relation is Relation.LOCAL else Kind.PEER
        account = self.book.open(kind, name, asset, credit_limit)
        hop = Hop(name, relation, address, account, TokenBucket(packets, packets), max_packet_amount)
        self.forwarder.add(hop)
        self.forwarder.connected(hop, self.now)
        return hop

    # --- time ---

    def wait(self, ms: int) -> None:
        self.now = Instant(self.now.wall_ms + ms, self.now.mono_ms + ms)

    def step(self, ms: int) -> None:
        self.now = Instant(self.now.wall_ms + ms, self.now.mono_ms)

    # --- packets ---

    def prepare(self, **fields: Any) -> bytes:
        values: dict[str, Any] = {
            "amount": 1_000,
            "expires_at_ms": self.now.wall_ms + 10_000,
            "condition": CONDITION,
            "destination": f"{self.scheme}.bob.x",
            "data": b"data",
        }
        return ilp.encode_prepare(ilp.Prepare(**{**values, **fields}))

    def send(self, source: Hop, request_id: int, packet: bytes | None = None, **fields: Any) -> None:
        """`source` sends a Prepare."""
        self.forwarder.prepare(source, request_id, packet or self.prepare(**fields), self.now)

    def answer(self, target: Hop, request_id: int, packet: ilp.Packet | bytes) -> None:
        """`target` answers."""
        self.forwarder.reply(
            target, request_id, packet if isinstance(packet, bytes) else encode(packet), self.now
        )

    def fulfill(
        self, target: Hop, request_id: int, fulfillment: bytes = FULFILLMENT, data: bytes = b""
    ) -> None:
        self.answer(target, request_id, ilp.Fulfill(fulfillment, data))

    def outgoing(self) -> dict[str, list[tuple[int, int, ilp.Packet]]]:
        """What leaves, by hop, decoded."""
        return {
            hop.name: [(kind, request_id, ilp.decode(packet)) for kind, request_id, packet in items]
            for hop, items in self.forwarder.take()
        }

    def only_reject(self, hop: Hop, request_id: int) -> ilp.Reject:
        """The Reject that is all that leaves."""
        outgoing = self.outgoing()
        assert list(outgoing) == [hop.name]
        [(kind, answered, packet)] = outgoing[hop.name]
        assert (kind, answered) == (RESPONSE, request_id)
        assert isinstance(packet, ilp.Reject)
        return packet

    def only_prepare(self, hop: Hop) -> tuple[int, ilp.Prepare]:
        """(request id, packet) of the Prepare that is all that leaves."""
        outgoing = self.outgoing()
        assert list(outgoing) == [hop.name]
        [(kind, request_id, packet)] = outgoing[hop.name]
        assert kind == MESSAGE
        assert isinstance(packet, ilp.Prepare)
        return request_id, packet

    # --- invariants ---

    def check(self) -> None:
        """Tables, clock and book agree, and the book balances."""
        forwarder = self.forwarder
        sent = [entry for hop in self.hops for entry in hop.sent.values()]
        assert forwarder.in_flight == len(sent) == len(set(map(id, sent)))
        on_clock = [entry for bucket in forwarder.clock._buckets.values() for entry in bucket]
        assert set(map(id, on_clock)) == set(map(id, sent))
        for hop in self.hops:
            from_here = [entry for entry in sent if entry.source is hop]
            assert hop.held == len(from_here)
            # A connection's table holds what came over it and nothing of an earlier one.
            of_session = {e.source_request_id: e for e in from_here if e.source_session == hop.session}
            assert hop.received == (of_session if hop.session else {})
            for request_id, entry in hop.sent.items():
                assert (entry.target, entry.request_id) == (hop, request_id)
            for deadline_ms, bucket in forwarder.clock._buckets.items():
                assert all(entry.deadline_ms == deadline_ms for entry in bucket)
            account = hop.account
            owed_by, owed_to = self.in_doubt(hop)
            assert account.debits_pending == sum(e.amount_in for e in from_here) + owed_by
            assert account.credits_pending == sum(e.amount_out for e in hop.sent.values()) + owed_to
            assert account.net + account.debits_pending <= account.credit_limit
        for sums in self.book.totals().values():
            assert sums.debits_posted == sums.credits_posted
            assert sums.debits_pending == sums.credits_pending

    def in_doubt(self, hop: Hop) -> tuple[int, int]:
        """What the hop may owe, and may be owed, for packets in doubt."""
        doubts = self.book.doubts.values()
        open_by = [d for d in doubts if d.incoming is hop.account and d.incoming_side is Side.OPEN]
        open_to = [d for d in doubts if d.outgoing is hop.account and d.outgoing_side is Side.OPEN]
        assert hop.account.doubts == len(open_by) + len(open_to)
        return sum(d.amount_in for d in open_by), sum(d.amount_out for d in open_to)

    def check_at_rest(self) -> None:
        """Nothing is in flight, and nothing is left of it but what is in doubt."""
        self.check()
        forwarder = self.forwarder
        assert forwarder.in_flight == 0
        assert not any(hop.sent or hop.received or hop.held for hop in self.hops)
        if not self.book.doubts:
            for account in self.book.accounts():
                assert (account.debits_pending, account.credits_pending) == (0, 0)


def encode(packet: ilp.Packet) -> bytes:
    """Any packet, encoded."""
    if isinstance(packet, ilp.Prepare):
        return ilp.encode_prepare(packet)
    return ilp.encode_fulfill(packet) if isinstance(packet, ilp.Fulfill) else ilp.encode_reject(packet)


def balances(world: World) -> dict[str, tuple[int, int]]:
    """(debits, credits) posted of each account that has any, by name and asset code."""
    return {
        f"{account.name} {account.asset.code}": (account.debits_posted, account.credits_posted)
        for account in world.book.accounts()
        if account.debits_posted or account.credits_posted
    }
