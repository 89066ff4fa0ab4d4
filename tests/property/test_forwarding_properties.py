"""The forwarder among neighbours that do anything: one reply a Prepare, and every unit accounted for."""

from typing import NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from connector.core.hop import Hop
from connector.core.policy import Policy
from connector.errors import RemoteProtocolError
from connector.protocol import ilp
from connector.protocol.btp import MESSAGE, RESPONSE
from tests.unit.forwarding_helpers import FULFILLMENT, World

NAMES = ("alice", "bob", "carol", "dave", "shop", "erin")
SENDERS = ("alice", "bob", "carol", "dave", "erin")
DESTINATIONS = (
    "test.alice.x",
    "test.bob",
    "test.node.carol.app",
    "test.dave.y",
    "test.node.shop.token",
    "test.erin",
    "test.nowhere",
    "test.node.nobody",
    "peer.config",
    "peer.x",
    "g.alice",
)
POLICY = Policy(spread_ppm=3_000, in_flight_max=12, in_flight_per_link_max=6)


class Offer(NamedTuple):
    """A Prepare that left, as an observer of the wire knows it."""

    source: str
    source_session: int
    source_id: int
    session: int
    amount_in: int
    amount_out: int
    deadline_ms: int


class Neighbours(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World(POLICY)
        for name in ("alice", "carol"):
            self.world.forwarder.hops[name].account.credit_limit = 5_000
        #: Prepares without a reply, of connections that live: (hop, session, request id).
        self.waiting: set[tuple[str, int, int]] = set()
        #: What each may owe, and may be owed, for packets in doubt.
        self.doubtful = {name: [0, 0] for name in NAMES}
        #: Prepares that left and are not resolved: by hop and our request id.
        self.offers: dict[tuple[str, int], Offer] = {}
        self.net = dict.fromkeys(NAMES, 0)
        self.offered: list[tuple[str, int]] = []

    def hop(self, name: str) -> Hop:
        return self.world.forwarder.hops[name]

    # --- what neighbours do ---

    @rule(
        name=st.sampled_from(SENDERS),
        request_id=st.integers(0, 9),
        destination=st.sampled_from(DESTINATIONS),
        amount=st.one_of(st.just(0), st.integers(1, 3_000), st.just(2**64 - 1)),
        left_ms=st.sampled_from((-5, 0, 1, 1_000, 1_001, 1_500, 4_000, 60_000)),
        garbage=st.booleans(),
    )
    def prepare(
        self, name: str, request_id: int, destination: str, amount: int, left_ms: int, garbage: bool
    ) -> None:
        world, hop = self.world, self.hop(name)
        if not hop.session:
            return
        expires_at_ms = world.now.wall_ms + left_ms
        packet = world.prepare(destination=destination, amount=amount, expires_at_ms=expires_at_ms)
        if garbage and request_id == 0:
            packet = packet[:-1]
        key = (name, hop.session, request_id)
        try:
            world.forwarder.prepare(hop, request_id, packet, world.now)
        except RemoteProtocolError:
            assert key in self.waiting
        else:
            assert key not in self.waiting
            self.waiting.add(key)
        self.observe(key, amount)

    @precondition(lambda self: self.offered)
    @rule(
        which=st.integers(0, 30),
        how=st.sampled_from(("fulfill", "fulfill", "wrong", "reject", "garbage", "failure")),
        elsewhere=st.sampled_from((None, None, None, *NAMES)),
        loses=st.booleans(),
    )
    def reply(self, which: int, how: str, elsewhere: str | None, loses: bool) -> None:
        """Any offer there ever was is answered: in time, late, again, or by someone else.

        `loses`: the link of whoever sent the Prepare is lost before the answer leaves.
        """
        world = self.world
        name, request_id = self.offered[-1 - which % len(self.offered)]
        name = elsewhere or name
        hop = self.hop(name)
        if not hop.session:
            return
        offer = self.offers.get((name, request_id))
        counts = offer is not None and offer.session == hop.session
        timely = counts and offer is not None and world.now.mono_ms < offer.deadline_ms
        if how == "failure":
            world.forwarder.failure(hop, request_id, "said nothing", world.now)
        else:
            replies = {
                "fulfill": ilp.encode_fulfill(ilp.Fulfill(FULFILLMENT, b"")),
                "wrong": ilp.encode_fulfill(ilp.Fulfill(bytes(32), b"")),
                "reject": ilp.encode_reject(ilp.Reject("F99", "test.far", "no", b"")),
                "garbage": b"\x0d\x01",
            }
            world.answer(hop, request_id, replies[how])
        if offer is not None and timely:
            del self.offers[name, request_id]
            lost = offer.source_session != self.hop(offer.source).session
            if loses and not lost:
                self._lose(offer.source)
                lost = True
            if how == "fulfill":
                self.net[name] -= offer.amount_out
                if lost:
                    self.doubtful[offer.source][0] += offer.amount_in
                else:
                    self.net[offer.source] += offer.amount_in
        self.observe()

    @rule(name=st.sampled_from(SENDERS), again=st.booleans())
    def disconnect(self, name: str, again: bool) -> None:
        self._lose(name)
        if again:
            self.world.forwarder.connected(self.hop(name), self.world.now)

    def _lose(self, name: str) -> None:
        self.waiting = {key for key in self.waiting if key[0] != name}
        self.world.forwarder.disconnected(self.hop(name), self.world.now)

    @rule(name=st.sampled_from(SENDERS))
    def connect(self, name: str) -> None:
        if not self.hop(name).session:
            self.world.forwarder.connected(self.hop(name), self.world.now)

    @rule(name=st.sampled_from(SENDERS), congested=st.booleans())
    def congest(self, name: str, congested: bool) -> None:
        self.hop(name).congested = congested

    # --- time ---

    @rule(ms=st.sampled_from((1, 400, 500, 3_000)), expire=st.booleans())
    def wait(self, ms: int, expire: bool) -> None:
        self.world.wait(ms)
        if expire:
            self.expire()

    @rule(ms=st.sampled_from((-86_400_000, -700, 700, 86_400_000)))
    def step_wall_time(self, ms: int) -> None:
        self.world.step(ms)
        self.expire()

    def expire(self) -> None:
        self.world.forwarder.expire(self.world.now)
        due = [key for key, offer in self.offers.items() if offer.deadline_ms <= self.world.now.mono_ms]
        for key in due:
            offer = self.offers.pop(key)
            if offer.session != self.hop(key[0]).session:
                # The answer may have been lost with its link.
                self.doubtful[key[0]][1] += offer.amount_out
        self.observe()

    # --- what leaves ---

    def observe(self, cause: tuple[str, int, int] | None = None, amount_in: int = 0) -> None:
        world = self.world
        for hop, items in world.forwarder.take():
            assert hop.session
            # They leave in this moment, and so do the Fulfills among them.
            hop.relayed.clear()
            for kind, request_id, packet in items:
                if kind == RESPONSE:
                    # Raises KeyError for a reply to nothing, or a second one.
                    self.waiting.remove((hop.name, hop.session, request_id))
                    assert not isinstance(ilp.decode(packet), ilp.Prepare)
                    continue
                assert kind == MESSAGE
                assert cause is not None
                key = (hop.name, request_id)
                assert key not in self.offers
                prepare = ilp.decode_prepare(packet)
                deadline_ms = world.now.mono_ms + prepare.expires_at_ms - world.now.wall_ms
                self.offers[key] = Offer(*cause, hop.session, amount_in, prepare.amount, deadline_ms)
                self.offered.append(key)

    # --- invariants ---

    @invariant()
    def tables_clock_and_book_agree(self) -> None:
        self.world.check()

    @invariant()
    def an_observer_of_the_wire_counts_the_same(self) -> None:
        world = self.world
        assert world.forwarder.in_flight == len(self.offers) <= POLICY.in_flight_max
        entries = {(hop.name, own_id): entry for hop in world.hops for own_id, entry in hop.sent.items()}
        assert entries.keys() == self.offers.keys()
        for key, entry in entries.items():
            offer = self.offers[key]
            assert (entry.amount_in, entry.amount_out) == (offer.amount_in, offer.amount_out)
            assert entry.deadline_ms == offer.deadline_ms
        for name in NAMES:
            assert self.hop(name).account.net == self.net[name]
            assert list(world.in_doubt(self.hop(name))) == self.doubtful[name]
            assert self.hop(name).held <= POLICY.in_flight_per_link_max
            assert len(self.hop(name).sent) <= POLICY.in_flight_per_link_max

    @invariant()
    def only_what_was_offered_waits(self) -> None:
        live = {
            (offer.source, offer.source_session, offer.source_id)
            for offer in self.offers.values()
            if offer.source_session == self.hop(offer.source).session
        }
        assert self.waiting == live

    def teardown(self) -> None:
        self.world.wait(60_000)
        self.expire()
        assert not self.waiting
        assert not self.offers
        self.world.check_at_rest()


TestNeighbours = Neighbours.TestCase
TestNeighbours.settings = settings(max_examples=120, stateful_step_count=50)
