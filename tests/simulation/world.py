"""One seed's world: five nodes in a line, a payer and a shop at each, and what goes wrong.

Links, clocks, disks and ledgers fail, and nodes are killed between any two
steps and started again on what their disk holds. Payers and shops are other
people's machines, and survive. When trouble is over, and everything is posted,
`judge` checks what must hold after any faults; then people close what is in
doubt, and it is judged again.
"""

import gc
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from unittest.mock import patch

import msgspec
import trio
from trio.testing import MockClock

from connector.core import entries, snapshot
from connector.errors import Unavailable
from connector.links.link import Handler, dial
from connector.protocol import ilp
from tests.simulation import disk
from tests.simulation.judge import Disagreement, Judge
from tests.simulation.ledgers import LedgerServer
from tests.simulation.machine import DoubtSeen, Machine
from tests.simulation.network import NODES, Script, script
from tests.simulation.people import Payer, Shop
from tests.simulation.wire import NO_FAULTS, Cable, Faults

PACKETS = 16
TRAFFIC_S = 12.0
#: By then every packet has been answered, or has expired on each node.
_SETTLE_S = 37.0
#: A supervisor's longest pause, and a slow ledger's time for what is left.
_POST_MAX_S = 600


class Result(msgspec.Struct):
    """What became of a seed."""

    #: Replies that payers got, by code; "lost" with their connection.
    outcomes: Counter[str]
    disagreements: list[Disagreement]
    doubts: list[DoubtSeen]
    #: Kills, torn writes, outages and the like.
    events: Counter[str]
    #: The same, as they happened.
    story: list[str]
    #: A digest of all books at the end.
    books: str


class World:
    """The network of one seed."""

    def __init__(self, seed: int, root: Path) -> None:
        self.random = random.Random(seed)
        self.plan = script(self.random)
        self.root = root
        self.machines: dict[str, Machine] = {}
        self.cables: list[Cable] = []
        self.payers: dict[str, Payer] = {}
        self.shops: dict[str, Shop] = {}
        self.sent: list[tuple[str, int, ilp.Prepare]] = []
        self.story: list[str] = []
        self.events: Counter[str] = Counter()
        self.disagreements: list[Disagreement] = []
        self.books = ""
        self._crashes_left = self.plan.crashes_max
        self._is_calm = False

    # --- what machines ask of the world ---

    def may_crash(self) -> bool:
        """See `life.Around`."""
        if self._is_calm or not self._crashes_left:
            return False
        self._crashes_left -= 1
        return True

    def unplug(self, name: str, *, delivers: bool) -> None:
        """See `life.Around`."""
        for cable in self.cables:
            if name in cable.ends and cable.ended_s is None:
                cable.lose(name, delivers=delivers)

    def shake(self, name: str, chance: float) -> None:
        """See `life.Around`."""
        if self.plan.cuts_links and not self._is_calm and self.random.random() < chance:
            self._cut((name,))

    def _cut(self, names: tuple[str, ...]) -> None:
        """Cut a connection between nodes, one of which is among `names`."""
        between = [
            cable
            for cable in self.cables
            if cable.ended_s is None and set(cable.ends) <= set(NODES) and set(cable.ends) & set(names)
        ]
        if between:
            self.random.choice(between).cut()

    def tell(self, what: str, name: str, more: str = "") -> None:
        """See `life.Around`."""
        self.events[what] += 1
        self.story.append(f"{trio.current_time():8.3f} {name}: {what} {more}".rstrip())

    # --- what cables ask ---

    def step(self, sender: str, name: str) -> None:
        """See `wire.Watcher`."""
        machine = self.machines.get(sender)
        if machine is not None and machine.life is not None:
            machine.life.step(name)

    def prepared(self, sender: str, prepare: ilp.Prepare) -> None:
        """A Prepare with value leaves a node only after its entry is committed."""
        machine = self.machines.get(sender)
        if machine is not None and prepare.amount:
            assert prepare.condition[:16] in machine.prepared, f"{sender} sent what it had not written down"

    # --- building ---

    def build(self, nursery: trio.Nursery) -> None:
        for name in NODES:
            ledger_dir = self.root / f"{name}-ledger"
            ledger_dir.mkdir()
            ledger = LedgerServer(self.plan, self.random, ledger_dir, nursery)
            open_transport = partial(self._open, name)
            self.machines[name] = Machine(
                name, self.plan, self.random, self.root, self, open_transport, ledger
            )

    async def _open(self, dialler: str, url: str, _tls: object) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if self.plan.cuts_links and not self._is_calm and self.random.random() < 0.1:
            raise Unavailable("no route to host")
        return self.join(dialler, url.removeprefix("ws://"), self.plan.wire)

    def join(self, dialler: str, acceptor: str, faults: Faults) -> trio.abc.Stream:
        """Connect two ends. Raises Unavailable when `acceptor` is down."""
        machine = self.machines[acceptor]
        if not machine.is_up:
            raise Unavailable("connection refused")
        assert machine.life is not None
        cable = Cable(dialler, acceptor, faults, self.random.getrandbits(32), self)
        self.cables.append(cable)
        machine.life.accept(cable.acceptor_stream)
        return cable.dialler_stream

    async def attach(self, name: str, child: str, handler: Handler) -> None:
        """Keep a child of node `name` connected, over cables without faults."""
        while True:
            try:
                stream = self.join(child, name, NO_FAULTS)
                await dial(stream, handler, peer=name, host=name, resource="/", token=f"{child}-{name}")
            except Unavailable:
                await trio.sleep(0.1 + self.random.random())

    # --- playing ---

    async def play(self) -> None:
        async with trio.open_nursery() as nursery:
            self.build(nursery)
            for machine in self.machines.values():
                await nursery.start(machine.run)
            for name in NODES:
                self.payers[name] = Payer()
                nursery.start_soon(self.attach, name, "payer", self.payers[name])
                self.shops[name] = Shop(nursery)
                nursery.start_soon(self.attach, name, "shop", self.shops[name])
            await trio.sleep(3)
            nursery.start_soon(self._trouble)
            if self.plan.ledger_leaves:
                nursery.start_soon(self._outages)
            await self._traffic()
            await trio.sleep(_SETTLE_S)
            await self._calm()
            # Before links close, which would tidy up what must be tidy already.
            judge = Judge(self.machines, self.payers, self.shops, self.sent, self.cables)
            self.disagreements = judge.judge(self.root)
            closed = self._close_doubts(judge)
            await self._calm()
            judge = Judge(self.machines, self.payers, self.shops, self.sent, self.cables)
            judge.judge_books(self.root, {machine.name for machine in closed})
            judge.nothing_is_open()
            octets = b"".join(snapshot.dump(machine.node.book) for machine in self.machines.values())
            self.books = sha256(octets).hexdigest()
            nursery.cancel_scope.cancel()
        for machine in self.machines.values():
            self.events["outage"] += machine.ledger.outages
            await machine.ledger.aclose()

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
            expires_at_ms=self.machines[source].now().wall_ms
            + self.random.choice((500, 8_000, 8_000, 20_000, 20_000, 60_000)),
            condition=sha256(preimage).digest(),
            destination=f"test.{target}.shop.x",
            data=bytes((manner,)) + preimage,
        )

    async def _trouble(self) -> None:
        end_s = trio.current_time() + TRAFFIC_S
        while trio.current_time() < end_s:
            await trio.sleep(self.random.random() * 6)
            if self.plan.cuts_links:
                self._cut(NODES)
            machine = self.machines[self.random.choice(NODES)]
            if self.plan.steps_clocks:
                machine.wall_offset_ms += self.random.choice((-60_000, -1_500, 1_500, 60_000))
            if self.plan.disk_fails and self.random.random() < 0.3:
                self.tell("sick disk", machine.name)
                machine.sick_since_s = min(machine.sick_since_s, trio.current_time())
                machine.sick_until_s = trio.current_time() + self.random.random() * 5
            life = machine.life
            if self.random.random() < 0.2 and life is not None and life.is_up and self.may_crash():
                if self.random.random() < 0.3:
                    life.node.stop()
                else:
                    life.kill("at any moment")

    async def _outages(self) -> None:
        """Ledgers go away and come back."""
        while not self._is_calm:
            machine = self.machines[self.random.choice(NODES)]
            machine.ledger.is_away = True
            await trio.sleep(self.random.random() * 10)
            machine.ledger.is_away = False
            await trio.sleep(self.random.random() * 2)

    async def _calm(self) -> None:
        """No new trouble; wait until everything is up, committed and posted."""
        self._is_calm = True
        for machine in self.machines.values():
            machine.ledger.is_calm = True
        for _ in range(_POST_MAX_S):
            if all(machine.is_up and _is_idle(machine) for machine in self.machines.values()):
                return
            await trio.sleep(1)
        raise AssertionError("something is not posted, though nothing is wrong any more")

    def _close_doubts(self, judge: Judge) -> list[Machine]:
        """People decide, and agree with their neighbours; whose books that changed."""
        unclear = [machine for machine in self.machines.values() if machine.node.book.doubts]
        for machine in unclear:
            book, now_ms = machine.node.book, machine.now().wall_ms
            for number, doubt in list(book.doubts.items()):
                for side in (entries.INCOMING, entries.OUTGOING):
                    if doubt.side(side) is entries.Side.OPEN:
                        owed = judge.is_owed(machine.name, doubt, side)
                        book.close(number, side, owed=owed, now_ms=now_ms)
            machine.node.pipeline.release()
        return unclear


def _is_idle(machine: Machine) -> bool:
    """Whether everything is committed, marked and posted."""
    assert machine.life is not None
    journal, poster = machine.life.journal, machine.life.poster
    return (
        poster.ledger is not None
        and poster.posted == journal.appended == journal.committed
        and journal.departed() == journal._marked == journal.committed
    )


@contextmanager
def _bounds(plan: Script) -> Iterator[None]:
    """Checkpoints often, in some seeds; and less of what only costs time."""
    values = {
        "connector.ledger.journal.JOURNAL_FLUSH_INTERVAL_S": 2.0,
        "connector.node.books.LAG_WATCH_INTERVAL_S": 5.0,
        "connector.links.link.PING_INTERVAL_S": 60.0,
    }
    if plan.checkpoints:
        values |= dict.fromkeys(
            ("connector.ledger.journal.CHECKPOINT_ENTRIES", "connector.ledger.poster.CHECKPOINT_ENTRIES"), 24
        )
    with ExitStack() as stack:
        for name, value in values.items():
            stack.enter_context(patch(name, value))
        yield


def run_seed(seed: int) -> Result:
    """Play one seed. AssertionError if it fails."""
    # trio shuffles tasks; with its own random source seeded, a seed is one schedule.
    trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    trio._core._run._r.seed(seed)
    random.seed(seed)
    root = disk.make_root()
    # The garbage of a seed is cheaper to collect at its end.
    gc.disable()
    try:
        world = World(seed, root)
        try:
            with _bounds(world.plan):
                trio.run(world.play, clock=MockClock(autojump_threshold=0))
        except BaseException as error:
            story = "\n".join(world.story)
            error.add_note(f"seed {seed}: reproduce with `python -m tests.simulation {seed}`\n{story}")
            raise
    finally:
        gc.enable()
        shutil.rmtree(root)
    outcomes: Counter[str] = Counter()
    for name, request_id, _ in world.sent:
        for reply in world.payers[name].replies[request_id] or (None,):
            if reply is None:
                outcomes["lost"] += 1
            else:
                outcomes["fulfilled" if isinstance(reply, ilp.Fulfill) else reply.code] += 1
    doubts = [doubt for machine in world.machines.values() for doubt in machine.doubts]
    return Result(outcomes, world.disagreements, doubts, world.events, world.story, world.books)
