"""One process of a simulated node: where it is killed, and what is checked at each of its steps.

A node is killed by cancelling its tasks; from that moment nothing it does has
an effect outside. What must hold is checked after each change of the book,
each commit and each posting.
"""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import trio

from connector.core import entries
from connector.core.accounts import Account, Reservation
from connector.core.hop import InFlight
from connector.errors import Unavailable
from connector.ledger.api import Ledger
from connector.ledger.blocking import RunBlocking
from connector.ledger.journal import Journal
from connector.ledger.poster import Poster
from connector.ledger.store import Batch, Statement
from tests.simulation import disk
from tests.simulation.ledgers import Session, check_balances
from tests.simulation.network import Script

if TYPE_CHECKING:
    from tests.simulation.machine import Machine

T = TypeVar("T")

#: Points at which a node may be killed, besides any moment; and by the how manieth of its kind at most.
_POINTS = {
    "before a commit": 25,
    "in a commit": 25,
    "after a commit": 25,
    "in the commit of a fulfill": 6,
    "after the commit of a fulfill": 6,
    "before a write": 60,
    "after a write": 60,
    "before a request": 25,
    "after a request": 25,
}


class _KilledError(BaseException):
    """The process ends inside a blocking call."""


class Around(Protocol):
    """The world of a machine."""

    def may_crash(self) -> bool:
        """Take one of the crashes that are left."""

    def unplug(self, name: str, *, delivers: bool) -> None:
        """The process of `name` is gone, and with it its connections."""

    def shake(self, name: str, chance: float) -> None:
        """A connection of `name` may be cut now."""

    def tell(self, what: str, name: str, more: str = "") -> None:
        """Something to count, and to print."""


class Life:
    """One process of a node, from its start until it is killed or stops."""

    def __init__(self, machine: "Machine", plan: Script, around: Around) -> None:
        self.machine = machine
        self.state_dir = machine.state_dir
        self.is_alive = True
        self.is_up = False
        #: The directory that a killed process left.
        self.left: Path | None = None
        self._plan = plan
        self._around = around
        rng = machine.random
        self._fatal = rng.choice(list(_POINTS))
        self._steps = rng.randrange(_POINTS[self._fatal]) if rng.random() < 0.6 else -1
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

    def step(self, name: str, before: disk.Journal | None = None) -> None:
        """The process is at point `name`, and killed there if that is so decided."""
        if not self.is_alive or not self.is_up or name != self._fatal or self._steps < 0:
            return
        self._steps -= 1
        if self._steps < 0 and self._around.may_crash():
            self.kill(name, before)

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
                self._around.shake(machine.name, 0.004)
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
            self._step_commit("before", batch)
            if trio.current_time() < machine.sick_until_s and machine.random.random() < 0.5:
                raise Unavailable("the disk is full")
            before = disk.Journal(self.state_dir) if self._steps == 0 else None
            removed = write(batch, statements, unneeded)
            if batch is not None:
                machine.commit(batch)
            self._step_commit("in", batch, before)
            self._step_commit("after", batch)
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

    def _step_commit(self, when: str, batch: Batch | None, before: disk.Journal | None = None) -> None:
        """The process is before, in, or after a transaction."""
        if batch is not None:
            self.step(f"{when} a commit", before)
            if any(entry[0] == entries.FULFILLED for entry in entries.decode(batch.entries)):
                self.step(f"{when} the commit of a fulfill", before)
                self._around.shake(self.machine.name, 0.05)
        if not self.is_alive:
            # Nothing comes after a kill, least of all a report of the commit.
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
