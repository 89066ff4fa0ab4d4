"""A machine that a simulated node runs on: its disk, its crashes, and what it has seen.

A node is killed by cancelling its tasks; from that moment nothing it does has
an effect outside. What its disk holds is copied first, and the next life
begins on the copy. A machine remembers every entry that was committed, and
what must hold is checked after each change of the book, each commit and each
posting.
"""

import random
from collections.abc import Awaitable, Callable, Sequence
from math import inf
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec
import trio

from connector.core import entries
from connector.core.accounts import Account, Reservation
from connector.core.book import Book
from connector.core.hop import InFlight
from connector.core.instant import Instant
from connector.errors import Unavailable
from connector.ledger.api import Ledger
from connector.ledger.blocking import RunBlocking
from connector.ledger.journal import Journal
from connector.ledger.poster import Poster
from connector.ledger.store import Batch, Statement
from connector.links.dialer import OpenTransport
from connector.node.node import Node
from tests.simulation import disk, network
from tests.simulation.ledgers import LedgerServer, Session, check_balances
from tests.simulation.network import EPOCH_MS, NODES, Script

T = TypeVar("T")

#: Points at which a node may be killed, besides any moment.
_POINTS = (
    "before a commit",
    "in a commit",
    "after a commit",
    "before a write",
    "after a write",
    "before a request",
    "after a request",
)
_STEPS_MAX = 60
_DOWN_MAX_S = 6.0
#: How long after its Fulfill has left a packet may still count as not relayed.
_MARK_MAX_S = 3.0


class _KilledError(BaseException):
    """The process ends inside a blocking call."""


class Around(Protocol):
    """The world of a machine."""

    def may_crash(self) -> bool:
        """Take one of the crashes that are left."""

    def unplug(self, name: str, *, delivers: bool) -> None:
        """The process of `name` is gone, and with it its connections."""

    def tell(self, what: str, name: str, more: str = "") -> None:
        """Something to count, and to print."""


class DoubtSeen(msgspec.Struct, frozen=True):
    """A packet that came to be in doubt, as the node's book said so."""

    node: str
    packet_id: bytes
    at_s: float
    #: With whom it is open, and how much.
    sides: tuple[tuple[str, int], ...]
    after_crash: bool


class Machine:
    """Runs one node, life after life."""

    def __init__(
        self,
        name: str,
        plan: Script,
        rng: random.Random,
        root: Path,
        around: Around,
        open_transport: OpenTransport,
        ledger: LedgerServer,
    ) -> None:
        self.name = name
        self.random = rng
        self.ledger = ledger
        self.wall_offset_ms = 0
        self.lives = 0
        self.life: Life | None = None
        #: Every entry that is in the journal, from number 1 on.
        self.entries: list[tuple[Any, ...]] = []
        #: The packets among them that were prepared.
        self.prepared: set[bytes] = set()
        #: How many of them the node was told to be on disk.
        self.reported = 0
        self.doubts: list[DoubtSeen] = []
        #: By condition, over all lives: how often each packet was resolved, and until when it could be.
        self.resolved: dict[bytes, int] = {}
        self.deadlines_ms: dict[bytes, int] = {}
        #: By packet id: when it was resolved.
        self.ended_s: dict[bytes, float] = {}
        #: Packets that were in flight when the last life ended.
        self.in_flight: set[bytes] = set()
        #: The disk takes nothing between these.
        self.sick_since_s = inf
        self.sick_until_s = 0.0
        self.crashed_s = 0.0
        self._plan = plan
        self._root = root
        self._around = around
        self._open_transport = open_transport

    def now(self) -> Instant:
        elapsed_ms = int(trio.current_time() * 1000)
        return Instant(EPOCH_MS + elapsed_ms + self.wall_offset_ms, elapsed_ms)

    @property
    def state_dir(self) -> Path:
        return self._root / f"{self.name}-{self.lives}"

    @property
    def node(self) -> Node:
        """The node of the present or the last life."""
        assert self.life is not None
        return self.life.node

    @property
    def is_up(self) -> bool:
        """Whether connections can be made to it."""
        return self.life is not None and self.life.is_up

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Live for ever, again and again."""
        while True:
            life = self.life = Life(self, self._plan, self._around)
            self._after_start(life)
            await life.run(self._around, task_status if self.lives == 0 else trio.TASK_STATUS_IGNORED)
            directory = self.state_dir
            self.lives += 1
            if life.left is None:
                directory.rename(self.state_dir)
            await trio.sleep(self.random.random() * _DOWN_MAX_S)

    def make(self, life: "Life") -> Node:
        """A node on the present state directory."""
        config = network.config(NODES.index(self.name), self.state_dir, self._plan)
        return Node(
            config,
            now=self.now,
            open_transport=self._open_transport,
            run_blocking=life.run_blocking,
            open_ledger=life.open_ledger,
        )

    def leave(self) -> Path:
        """What a process that is killed now leaves behind."""
        copy = self._root / f"{self.name}-{self.lives + 1}"
        disk.leave(self.state_dir, copy)
        return copy

    def commit(self, batch: Batch) -> None:
        """Entries are in the journal."""
        assert batch.first == len(self.entries) + 1, "entries are written in order, and once"
        self._enter(list(entries.decode(batch.entries)))
        assert batch.last == len(self.entries)

    def _enter(self, log: list[tuple[Any, ...]]) -> None:
        self.entries += log
        self.prepared |= {entry[3] for entry in log if entry[0] == entries.PREPARED}

    # --- a start ---

    def _after_start(self, life: "Life") -> None:
        """What the journal kept is what was committed, and exactly what was open is in doubt."""
        last = life.journal.committed
        assert self.reported <= last <= len(self.entries), (
            f"{self.name}: {self.reported} entries were reported to be on disk, {last} are there"
        )
        kept, self.entries = self.entries[:last], []
        self.prepared.clear()
        self._enter(kept)
        if self.lives == 0:
            return
        before = Book()
        for entry in self.entries:
            before.apply(entry)
        for number, held in before.pending.items():
            doubt = life.book.doubts[number]
            assert (doubt.packet_id, doubt.incoming_side, doubt.outgoing_side, doubt.amount_in) == (
                held.packet_id,
                entries.Side.OPEN,
                entries.Side.OPEN,
                held.amount_in,
            )
            self._check_recent(held.packet_id)
        for number in life.book.doubts.keys() - before.doubts.keys():
            doubt = life.book.doubts[number]
            self._check_recent(doubt.packet_id)
            self.see_doubt(doubt, after_crash=True)

    def _check_recent(self, packet_id: bytes) -> None:
        """A packet in doubt after a crash was in flight, or had just been resolved."""
        if packet_id not in self.in_flight:
            since_s = max(self.crashed_s - _MARK_MAX_S, 0.0)
            assert self.ended_s[packet_id] >= min(since_s, self.sick_since_s), "it had ended long before"

    def see_doubt(self, doubt: Any, *, after_crash: bool) -> None:
        """A packet is in doubt."""
        sides = []
        if doubt.incoming_side is entries.Side.OPEN:
            sides.append((doubt.incoming.name, doubt.amount_in))
        if doubt.outgoing_side is entries.Side.OPEN:
            sides.append((doubt.outgoing.name, doubt.amount_out))
        at_s = self.ended_s[doubt.packet_id] = trio.current_time()
        self.doubts.append(DoubtSeen(self.name, doubt.packet_id, at_s, tuple(sides), after_crash))
        self._around.tell("doubt", self.name, f"{doubt.packet_id.hex()} {sides}")


class Life:
    """One process of a node, from its start until it is killed or stops."""

    def __init__(self, machine: Machine, plan: Script, around: Around) -> None:
        self.machine = machine
        self.state_dir = machine.state_dir
        self.is_alive = True
        self.is_up = False
        #: The directory that a killed process left.
        self.left: Path | None = None
        self._plan = plan
        self._around = around
        rng = machine.random
        self._fatal = rng.choice(_POINTS)
        self._steps = rng.randrange(_STEPS_MAX) if rng.random() < 0.5 else -1
        self._nursery: trio.Nursery | None = None
        self.node = machine.make(self)
        assert self.node.books.journal is not None
        assert self.node.books.poster is not None
        self.journal: Journal = self.node.books.journal
        self.poster: Poster = self.node.books.poster
        self.book = self.node.book
        self._watch_book()
        self._watch_journal()
        self._watch_poster()

    async def open_ledger(self) -> Ledger:
        return await self.machine.ledger.open(self)

    # --- living and dying ---

    async def run(self, around: Around, task_status: trio.TaskStatus[None]) -> None:
        """Run the node until it stops or is killed."""
        name = self.machine.name
        async with trio.open_nursery() as nursery:
            self._nursery = nursery

            async def run(*, task_status: trio.TaskStatus[None]) -> None:
                await self.node.run(task_status=task_status)
                if self.is_alive:
                    self.is_alive = self.is_up = False
                    self.machine.crashed_s = trio.current_time()
                    self.machine.in_flight = self._in_flight()
                    around.tell("stop", name)
                    around.unplug(name, delivers=True)
                    nursery.cancel_scope.cancel()

            await nursery.start(run)
            self.is_up = self.is_alive
            if self.machine.lives:
                around.tell("start", name, f"with {len(self.book.doubts)} packets in doubt")
            task_status.started()

    def accept(self, stream: trio.abc.Stream) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(self.node.listener.accept, stream)

    def step(self, name: str) -> None:
        """The process is at point `name`, and killed there if that is so decided."""
        if not self.is_alive or not self.is_up or name != self._fatal or self._steps < 0:
            return
        self._steps -= 1
        if self._steps < 0 and self._around.may_crash():
            self.kill(name)

    def kill(self, when: str, before: disk.Journal | None = None) -> None:
        """End the process here and now; with `before`, what was written since is torn."""
        if not self.is_alive:
            return
        machine = self.machine
        self.left = machine.leave()
        self.is_alive = self.is_up = False
        machine.crashed_s = trio.current_time()
        machine.in_flight = self._in_flight()
        if before is not None and disk.tear(self.left, before, machine.random):
            self._around.tell("torn write", machine.name)
        self._around.tell("kill", machine.name, when)
        self._around.unplug(machine.name, delivers=machine.random.random() < 0.5)
        assert self._nursery is not None
        self._nursery.cancel_scope.cancel()

    def _in_flight(self) -> set[bytes]:
        return {held.packet_id for held in self.book.pending.values()}

    # --- the disk ---

    def run_blocking(self) -> RunBlocking:
        """A thread of its own, as it were: blocking calls, in place and one at a time, after a delay."""
        machine, thread = self.machine, trio.Lock()

        async def run(function: Callable[[], T]) -> T:
            if not self.is_alive:
                await trio.lowlevel.checkpoint()
                return function()
            async with thread:
                await trio.sleep(self._plan.disk_delay_max_s * machine.random.random() ** 2)
                try:
                    result = function()
                except _KilledError:
                    await trio.sleep_forever()
                return result

        return run

    def _watch_journal(self) -> None:
        store, machine = self.journal.store, self.machine
        write = store.commit

        def commit(batch: Batch | None, statements: Sequence[Statement] = (), unneeded: int = 0) -> int:
            self.step("before a commit")
            self._stop_if_killed()
            if trio.current_time() < machine.sick_until_s and machine.random.random() < 0.5:
                raise Unavailable("the disk is full")
            torn = self._fatal == "in a commit" and self._steps == 0
            before = disk.Journal(self.state_dir) if torn else None
            removed = write(batch, statements, unneeded)
            if batch is not None:
                machine.commit(batch)
            if before is not None and self._around.may_crash():
                self.kill("in a commit", before)
            self.step("in a commit")
            self.step("after a commit")
            self._stop_if_killed()
            self._check_book()
            if trio.current_time() < machine.sick_until_s:
                raise Unavailable("the disk is full, after all")
            return removed

        finish = self.journal._finish

        def finished(*about: Any) -> None:
            machine.reported = max(machine.reported, self.journal._written)
            finish(*about)

        store.commit = commit  # type: ignore[method-assign]
        self.journal._finish = finished  # type: ignore[method-assign, assignment]

    def _stop_if_killed(self) -> None:
        """Nothing comes after a kill, least of all a report of the commit."""
        if not self.is_alive:
            raise _KilledError

    # --- what must hold after each step ---

    def _check_book(self) -> None:
        for asset, totals in self.book.totals().items():
            whose = f"{self.machine.name} {asset}"
            assert totals.debits_posted == totals.credits_posted, whose
            assert totals.debits_pending == totals.credits_pending, whose

    def _watch_book(self) -> None:
        book, machine = self.book, self.machine
        reserve, resolve = book.reserve, self.node.forwarder._resolve

        def reserved(incoming: Account, *rest: Any) -> Reservation | None:
            held = reserve(incoming, *rest)
            if held is not None:
                assert incoming.net + incoming.debits_pending <= incoming.credit_limit
            self._check_book()
            return held

        def resolved(entry: InFlight, *, due: bool = False) -> None:
            if self.is_alive:
                machine.resolved[entry.condition] = machine.resolved.get(entry.condition, 0) + 1
                machine.deadlines_ms[entry.condition[:16]] = entry.deadline_ms
            resolve(entry, due=due)

        book.reserve = reserved  # type: ignore[method-assign, assignment]
        self.node.forwarder._resolve = resolved  # type: ignore[method-assign]
        for name in ("commit", "void", "doubt", "unrelayed"):
            setattr(book, name, self._checked(name, getattr(book, name)))

    def _checked(self, name: str, change: Callable[..., None]) -> Callable[..., None]:
        machine = self.machine

        def changed(held: Reservation, *rest: Any) -> None:
            change(held, *rest)
            self._check_book()
            if self.is_alive:
                if name in ("doubt", "unrelayed"):
                    machine.see_doubt(self.book.doubts[held.number], after_crash=False)
                if name != "unrelayed":
                    machine.ended_s[held.packet_id] = trio.current_time()

        return changed

    def _watch_poster(self) -> None:
        poster = self.poster
        send: Callable[[Any, Any], Awaitable[None]] = poster._send
        prepare: Callable[[int], Awaitable[None]] = poster._prepare
        preparing: list[bool] = []

        async def prepared(transfers_max: int) -> None:
            preparing.append(True)
            try:
                await prepare(transfers_max)
            finally:
                preparing.pop()

        async def sent(session: Session, request: Any) -> None:
            await send(session, request)
            assert poster.posted <= self.journal.durable, "only what is on disk is posted"
            if preparing or len(poster._requests) > 1:
                return  # The poster's book is ahead of the ledger.
            posting = poster._posting
            assert posting is not None
            check_balances(
                session.ledger, posting.legs, list(posting.book.accounts()), f"{self.machine.name}'s ledger:"
            )

        poster._send = sent  # type: ignore[method-assign, assignment]
        poster._prepare = prepared  # type: ignore[method-assign]
