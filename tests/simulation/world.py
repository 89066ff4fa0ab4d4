"""One seed's world: five nodes in a line, a payer and a shop at each, and what goes wrong.

`run_seed` plays it and checks, at the end, what must hold after any faults:

- every Prepare of a payer was answered exactly once;
- no packet was resolved twice on any node, and none is left in flight;
- in each book debits equal credits, nothing is pending, and no credit limit was passed;
- each pair of neighbours agrees on every packet, except for those whose Fulfill
  was dropped, late, or under way when its connection ended; these are returned,
  each with its value and its reason.
"""

import random
from collections import Counter
from functools import partial
from hashlib import sha256
from itertools import pairwise

import msgspec
import trio
from trio.testing import MockClock

from connector.config.schema import NodeConfig, Secret
from connector.core.hop import InFlight
from connector.core.instant import Instant
from connector.errors import Unavailable
from connector.links.link import Handler, dial
from connector.node.node import Node
from connector.protocol import ilp
from tests.simulation.people import Payer, Shop
from tests.simulation.wire import NO_FAULTS, Cable, Faults

NODES = ("n1", "n2", "n3", "n4", "n5")
PACKETS = 30
#: 2026-01-01, so that no seed depends on today.
EPOCH_MS = 1_767_225_600_000
TRAFFIC_S = 20.0
CREDIT_LIMIT = 40_000
USD = {"code": "USD", "scale": 6}
EUR = {"code": "EUR", "scale": 4}


class Disagreement(msgspec.Struct, frozen=True):
    """A packet that `creditor` holds for fulfilled and `debtor` does not."""

    debtor: str
    creditor: str
    condition: bytes
    amount: int
    reason: str


class Resolution(msgspec.Struct):
    """How one node resolved one packet."""

    source: str
    target: str
    amount_in: int
    amount_out: int
    posted: bool
    deadline_ms: int


class World:
    """The network of one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.wall_offset_ms = dict.fromkeys(NODES, 0)
        self.nodes: dict[str, Node] = {}
        self.cables: list[Cable] = []
        self.payers: dict[str, Payer] = {}
        self.shops: dict[str, Shop] = {}
        self.sent: list[tuple[str, int, ilp.Prepare]] = []
        #: By (node, condition); test packets have conditions of their own.
        self.resolutions: dict[tuple[str, bytes], list[Resolution]] = {}
        self.faults = Faults(
            drop=self.random.choice((0.0, 0.0, 0.05, 0.2)),
            repeat=self.random.choice((0.0, 0.0, 0.05)),
            delay_max_s=self.random.choice((0.0, 0.05, 0.5, 3.0)),
        )
        self.cut_links = self.random.random() < 0.5
        self.step_clocks = self.random.random() < 0.3

    # --- building ---

    def build(self, nursery: trio.Nursery) -> None:
        for index, name in enumerate(NODES):
            config = msgspec.convert(_config(index), NodeConfig, dec_hook=_secret)
            open_transport = partial(self._open, nursery, name)
            node = Node(config, now=partial(self._now, name), open_transport=open_transport)
            self._witness(node)
            self.nodes[name] = node

    def _witness(self, node: Node) -> None:
        """Note every resolution of a packet on `node`."""
        resolve = node.forwarder._resolve

        def noted(entry: InFlight, *, posted: bool, due: bool = False) -> None:
            resolution = Resolution(
                entry.source.name,
                entry.target.name,
                entry.amount_in,
                entry.amount_out,
                posted,
                entry.deadline_ms,
            )
            self.resolutions.setdefault((node.name, entry.condition), []).append(resolution)
            resolve(entry, posted=posted, due=due)

        node.forwarder._resolve = noted  # type: ignore[method-assign]

    def _now(self, name: str) -> Instant:
        elapsed_ms = int(trio.current_time() * 1000)
        return Instant(EPOCH_MS + elapsed_ms + self.wall_offset_ms[name], elapsed_ms)

    async def _open(self, nursery: trio.Nursery, dialler: str, url: str, _tls: object) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        acceptor = url.removeprefix("ws://")
        if self.cut_links and self.random.random() < 0.1:
            raise Unavailable("no route to host")
        return self.join(nursery, dialler, acceptor, self.faults)

    def join(self, nursery: trio.Nursery, dialler: str, acceptor: str, faults: Faults) -> trio.abc.Stream:
        cable = Cable(dialler, acceptor, faults, self.random.getrandbits(32))
        self.cables.append(cable)
        nursery.start_soon(self.nodes[acceptor].listener.accept, cable.acceptor_stream)
        return cable.dialler_stream

    async def attach(self, nursery: trio.Nursery, name: str, child: str, handler: Handler) -> None:
        """Keep a child of node `name` connected, over a cable without faults."""
        stream = self.join(nursery, child, name, NO_FAULTS)
        try:
            token = f"{child}-{name}"
            await dial(stream, handler, peer=name, host=name, resource="/", token=token)
        except Unavailable:
            return

    # --- playing ---

    async def play(self) -> None:
        async with trio.open_nursery() as nursery:
            self.build(nursery)
            for node in self.nodes.values():
                await nursery.start(node.run)
            for name in NODES:
                self.payers[name] = Payer()
                nursery.start_soon(self.attach, nursery, name, "payer", self.payers[name])
                self.shops[name] = Shop(nursery)
                nursery.start_soon(self.attach, nursery, name, "shop", self.shops[name])
            await trio.sleep(3)
            nursery.start_soon(self._trouble)
            await self._traffic()
            # By then every packet has been answered, or has expired on each node.
            await trio.sleep(45)
            # Before links close, which would tidy up what must be tidy already.
            for node in self.nodes.values():
                self._judge_node(node)
            nursery.cancel_scope.cancel()

    async def _traffic(self) -> None:
        for _ in range(PACKETS):
            await trio.sleep(self.random.random() * 2 * TRAFFIC_S / PACKETS)
            source, target = self.random.sample(NODES, 2)
            payer = self.payers[source]
            if payer.link is None:
                continue
            manner = self.random.choice((Shop.FULFILL,) * 9 + tuple(range(8)))
            prepare = self._prepare(source, target, manner)
            self.sent.append((source, payer.pay(prepare), prepare))

    def _prepare(self, source: str, target: str, manner: int) -> ilp.Prepare:
        preimage = self.random.randbytes(32)
        return ilp.Prepare(
            amount=self.random.choice((0, 1, 500, 1_000, 1_000, 9_999, 30_000)),
            expires_at_ms=self._now(source).wall_ms
            + self.random.choice((500, 8_000, 8_000, 20_000, 20_000, 60_000)),
            condition=sha256(preimage).digest(),
            destination=f"test.{target}.shop.x",
            data=bytes((manner,)) + preimage,
        )

    async def _trouble(self) -> None:
        end_s = trio.current_time() + TRAFFIC_S
        while trio.current_time() < end_s:
            await trio.sleep(self.random.random() * 6)
            if self.cut_links:
                between = [cable for cable in self.cables if set(cable.ends) <= set(NODES)]
                self.random.choice(between).cut()
            if self.step_clocks:
                name = self.random.choice(NODES)
                self.wall_offset_ms[name] += self.random.choice((-60_000, -1_500, 1_500, 60_000))

    # --- judging ---

    def judge(self) -> list[Disagreement]:
        for name in NODES:
            self._judge_people(name)
        for (name, _), resolutions in self.resolutions.items():
            assert len(resolutions) == 1, f"{name} resolved a packet {len(resolutions)} times"
        found: list[Disagreement] = []
        for left, right in pairwise(NODES):
            found += self._compare(left, right)
            found += self._compare(right, left)
        return found

    def _judge_people(self, name: str) -> None:
        """The payer and the shop of a node, whose links never fail, agree with its books."""
        paid = 0
        for payer, request_id, prepare in self.sent:
            if payer != name:
                continue
            replies = self.payers[name].replies[request_id]
            assert len(replies) == 1, f"{name}'s packet {request_id} has {len(replies)} replies"
            if isinstance(replies[0], ilp.Fulfill):
                assert sha256(replies[0].fulfillment).digest() == prepare.condition
                paid += prepare.amount
        hops = self.nodes[name].forwarder.hops
        assert hops["payer"].account.debits_posted == paid
        earned = sum(self.shops[name].sold.values()) - sum(
            self.shops[name].sold[condition]
            for (node, condition), (resolution,) in self.resolutions.items()
            # A Fulfill in time counts; this one came at or after the expiry.
            if node == name
            and condition in self.shops[name].sold
            and not resolution.posted
            and self.shops[name].sold_ms[condition] >= resolution.deadline_ms
        )
        assert hops["shop"].account.credits_posted == earned

    def _judge_node(self, node: Node) -> None:
        forwarder = node.forwarder
        assert forwarder.in_flight == 0, f"{node.name} has packets in flight"
        for hop in forwarder.hops.values():
            assert not hop.sent, f"{node.name} waits for {hop.name}"
            assert not hop.received, f"{node.name} has not answered {hop.name}"
            assert hop.held == 0
            assert hop.account.net <= hop.account.credit_limit
        for asset, totals in node.book.totals().items():
            assert totals.debits_posted == totals.credits_posted, f"{node.name} {asset}"
            assert totals.debits_pending == totals.credits_pending == 0, f"{node.name} {asset}"

    def _compare(self, debtor: str, creditor: str) -> list[Disagreement]:
        """Packets that `debtor` sent to `creditor`: what each holds for owed."""
        found: list[Disagreement] = []
        owed = claimed = 0
        for (name, condition), (there,) in self.resolutions.items():
            if name == creditor and there.source == debtor and there.posted:
                claimed += there.amount_in
                here = self.resolutions[debtor, condition][0]
                if here.posted:
                    assert here.amount_out == there.amount_in
                    continue
                reason = self._explain(debtor, creditor, condition, here)
                found.append(Disagreement(debtor, creditor, condition, there.amount_in, reason))
            elif name == debtor and there.target == creditor and there.posted:
                owed += there.amount_out
                assert self.resolutions[creditor, condition][0].posted, "fulfilled here, not there"
        accounts = self.nodes[debtor].forwarder.hops[creditor].account
        assert accounts.credits_posted == owed
        assert self.nodes[creditor].forwarder.hops[debtor].account.debits_posted == claimed
        assert claimed - owed == sum(packet.amount for packet in found)
        return found

    def _explain(self, debtor: str, creditor: str, condition: bytes, here: Resolution) -> str:
        """Why the Fulfill that `creditor` sent did not count; fails if nothing explains it."""
        for cable in self.cables:
            if set(cable.ends) != {debtor, creditor}:
                continue
            for (asker, _), fate in cable.fates.items():
                if asker != debtor or fate.condition != condition:
                    continue
                if fate.dropped:
                    return "dropped"
                if fate.read_s is None:
                    return "under way when the connection ended"
                if fate.read_s * 1000 >= here.deadline_ms:
                    return "late"
                if cable.dialler_stream.outgoing.closed or cable.acceptor_stream.outgoing.closed:
                    return "read when the connection was closed already"
        raise AssertionError(f"{debtor} got a good Fulfill from {creditor} in time and did not book it")


def _secret(kind: type, value: object) -> Secret:
    assert kind is Secret
    assert isinstance(value, str)
    return Secret(value)


def _config(index: int) -> dict[str, object]:
    name = NODES[index]
    # The last node deals in another asset, so that its neighbour converts.
    own = EUR if index == 4 else USD
    peers: list[dict[str, object]] = [
        {
            "name": child,
            "relation": "child",
            "token": f"{child}-{name}",
            "asset": own,
            "credit_limit": 10**9,
        }
        for child in ("payer", "shop")
    ]
    routes: list[dict[str, str]] = []
    for other, there in enumerate(NODES):
        if abs(other - index) == 1:
            low, high = min(index, other), max(index, other)
            peer: dict[str, object] = {
                "name": there,
                "relation": "peer",
                "address": f"test.{there}",
                "token": f"{low}-{high}",
                "asset": EUR if high == 4 else USD,
                "credit_limit": CREDIT_LIMIT,
            }
            # Between n2 and n3 both dial, so that links cross.
            if index < other or {index, other} == {1, 2}:
                peer["url"] = f"ws://{there}"
            peers.append(peer)
        elif other != index:
            routes.append(
                {
                    "prefix": f"test.{there}",
                    "next_hop": NODES[index + (1 if other > index else -1)],
                }
            )
    return {
        "node": {"name": name, "address": f"test.{name}"},
        "fees": {"spread_ppm": 1_000},
        "prices": {"USD": "1", "EUR": "1.1"},
        "peers": peers,
        "routes": routes,
    }


def run_seed(seed: int) -> tuple[Counter[str], list[Disagreement]]:
    """Play one seed; what the payers were answered, and the disagreements. AssertionError if it fails."""
    # trio shuffles tasks; with its own random source seeded, a seed is one schedule.
    trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    trio._core._run._r.seed(seed)
    random.seed(seed)
    world = World(seed)
    trio.run(world.play, clock=MockClock(autojump_threshold=0))
    disagreements = world.judge()
    outcomes: Counter[str] = Counter()
    for name, request_id, _ in world.sent:
        reply = world.payers[name].replies[request_id][0]
        outcomes["fulfilled" if isinstance(reply, ilp.Fulfill) else reply.code] += 1
    return outcomes, disagreements
