"""The journal: every change of the book is on disk before the frames that it allows leave.

`append` takes the entries of a batch and what is to happen once they are
committed; one writer task joins whatever has come into one transaction after
another, off the event loop. Nothing awaits to append.

When a transaction fails, what it held is kept and tried again, in order, and
`on_failure` is told, so that no new entries need to come. A transaction whose
failure hides that it was committed after all is recognised by its number.

`departed` tells up to which entry all frames have left; it is written along
with the next batch, or by itself when none comes.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import msgspec
import trio

from connector.errors import Unavailable
from connector.ledger import recovery
from connector.ledger.store import Batch, Checkpoint, Statement, Store, set_checkpoint, set_meta
from connector.limits import (
    CHECKPOINT_ENTRIES,
    ENTRY_TYPICAL_BYTES,
    JOURNAL_COMPACT_ROWS_MAX,
    JOURNAL_FLUSH_INTERVAL_S,
    JOURNAL_MARK_DELAY_S,
)

T = TypeVar("T")


class RunBlocking(Protocol):
    """Runs a blocking function off the event loop."""

    def __call__(self, function: Callable[[], T], /) -> Awaitable[T]: ...


def in_thread() -> RunBlocking:
    """A thread at a time, and none of those that others wait for."""
    limiter = trio.CapacityLimiter(1)

    async def run(function: Callable[[], T]) -> T:
        with trio.CancelScope(shield=True):
            return await trio.to_thread.run_sync(function, limiter=limiter)

    return run


class _Waiting(msgspec.Struct):
    """What the next transaction is to hold, and whom to tell."""

    entries: list[bytes] = []
    count: int = 0
    statements: list[Statement] = []
    on_commit: list[Callable[[], None]] = []


class Journal:
    """The writing end of one node's journal."""

    def __init__(
        self,
        store: Store,
        last: int,
        run_blocking: RunBlocking,
        *,
        sync: str,
        snapshot: Callable[[], bytes],
    ) -> None:
        """`last` is the number of the newest entry; `snapshot` gives the book after all that was appended."""
        self.store = store
        #: Number of the newest entry: appended, committed, and on disk for certain.
        self.appended = self.committed = self.durable = last
        #: Up to which entry all frames have left.
        self.departed: Callable[[], int] = lambda: self.committed
        #: Told when transactions begin to fail, and when they succeed again.
        self.on_failure: Callable[[], None] = lambda: None
        self.on_success: Callable[[], None] = lambda: None
        #: Told the same as `on_success`, for health.
        self.on_recovery: Callable[[], None] = lambda: None
        #: Why the last transaction failed; empty when it did not.
        self.failure = ""
        self._run_blocking = run_blocking
        self._interval = sync == "interval"
        self._snapshot = snapshot
        self._waiting = _Waiting()
        self._work = trio.Event()
        self._moved = trio.Event()
        self._marked = 0
        #: The newest checkpoint of the book, and one that waits until its frames have left.
        self._checkpointed = last
        self._next_checkpoint: Checkpoint | None = None
        #: Up to which entry the ledger needs none any more.
        self._ledger_last = 0
        #: Octets appended by this process; what stood there before counts by the entry.
        self._octets = 0
        self._first = last
        self._compacted = 0

    # --- for those who write ---

    def append(self, log: list[bytes], on_commit: Callable[[], None]) -> int:
        """Write the entries of a batch with the next transaction; the number of the last one. Never waits."""
        waiting = self._waiting
        waiting.entries += log
        waiting.count += len(log)
        waiting.on_commit.append(on_commit)
        self.appended += len(log)
        self._octets += sum(map(len, log))
        self._work.set()
        return self.appended

    async def execute(self, *statements: Statement) -> None:
        """Write something else with the next transaction; returns when it is on disk."""
        done = trio.Event()
        self._waiting.statements += statements
        self._waiting.on_commit.append(done.set)
        self._work.set()
        await done.wait()
        if self._interval:
            await self._run_blocking(self.store.flush)

    async def checkpoint_ledger(self, checkpoint: Checkpoint) -> None:
        """Keep what the ledger holds; entries before it are not needed for it any more."""
        await self.execute(set_checkpoint(recovery.LEDGER, checkpoint))
        self._ledger_last = checkpoint.last

    def needed_by_ledger(self, after: int) -> None:
        """At the start: the ledger has a checkpoint after entry `after`."""
        self._ledger_last = after

    def octets_after(self, number: int) -> int:
        """About how many octets the entries after `number` have: the mean times their count."""
        own = self.appended - self._first
        mean = self._octets / own if own else ENTRY_TYPICAL_BYTES
        return int(mean * (self.appended - number))

    async def wait_durable(self, number: int) -> None:
        """Wait until entry `number` is on disk."""
        while self.durable < number:
            await self._moved.wait()

    async def wait_committed(self) -> None:
        """Wait until everything appended is committed, and its frames are known to have left."""
        while self.committed < self.appended or self._marked < self.departed():
            await self._moved.wait()

    # --- the writer ---

    async def run(self) -> None:
        """Commit what comes; never returns. Raises Unavailable when it cannot: run it again."""
        if self.failure:
            await self._run_blocking(self.store.reopen)
        async with trio.open_nursery() as nursery:
            if self._interval:
                nursery.start_soon(self._flush_regularly)
            while True:
                if not self._work.is_set():
                    await self._wait()
                await self._commit()

    async def _wait(self) -> None:
        """Until there is work, or frames have left that are not marked."""
        delay_s = JOURNAL_MARK_DELAY_S
        while not self._work.is_set():
            if self._marked >= self.committed:
                await self._work.wait()
                return
            with trio.move_on_after(delay_s):
                await self._work.wait()
                return
            if self.departed() > self._marked:
                return
            # A peer that does not read: look again, ever more seldom.
            delay_s = min(1.0, delay_s * 2)

    async def _commit(self) -> None:
        waiting, self._waiting = self._waiting, _Waiting()
        self._work = trio.Event()
        departed = min(self.departed(), self.committed)
        statements = waiting.statements + self._upkeep(departed)
        if not waiting.count:
            statements.append(set_meta(recovery.DEPARTED, str(departed)))
        try:
            await self._run_blocking(lambda: self._write(waiting.entries, departed, statements))
        except Unavailable as error:
            self._keep(waiting, str(error))
            raise
        self._marked = departed
        self.committed += waiting.count
        if not self._interval:
            self.durable = self.committed
        if self.failure:
            self.failure = ""
            self.on_success()
            self.on_recovery()
        self._tell_moved()
        for tell in waiting.on_commit:
            tell()

    def _write(self, log: list[bytes], departed: int, statements: list[Statement]) -> None:
        """In a thread: one transaction."""
        first = self.committed + 1
        if self.failure:
            # What seemed to fail may have been written.
            written = max(0, self.store.last() - self.committed)
            log, first = log[written:], first + written
        batch = Batch(first, first + len(log) - 1, departed, b"".join(log)) if log else None
        unneeded = min(self._checkpointed, self._ledger_last)
        if unneeded == self._compacted:
            self.store.commit(batch, statements)
        elif self.store.commit(batch, statements, unneeded) < JOURNAL_COMPACT_ROWS_MAX:
            self._compacted = unneeded

    def _upkeep(self, departed: int) -> list[Statement]:
        """Checkpoints that are due."""
        work: list[Statement] = []
        due = self._next_checkpoint
        if due is not None and due.last <= min(departed, self.durable):
            work += [set_checkpoint(recovery.BOOK, due), set_meta(recovery.DEPARTED, str(departed))]
            self._checkpointed = due.last
            self._next_checkpoint = None
        elif due is None and self.appended - self._checkpointed >= CHECKPOINT_ENTRIES:
            # Entries that this transaction holds too: nothing was appended since it was put together.
            self._next_checkpoint = Checkpoint(self.appended, self._snapshot())
        return work

    def _keep(self, waiting: _Waiting, reason: str) -> None:
        """Put back what could not be written, before all that came since."""
        later = self._waiting
        self._waiting = _Waiting(
            waiting.entries + later.entries,
            waiting.count + later.count,
            waiting.statements + later.statements,
            waiting.on_commit + later.on_commit,
        )
        self._work.set()
        was_failing = bool(self.failure)
        self.failure = reason
        if not was_failing:
            self.on_failure()

    async def _flush_regularly(self) -> None:
        while True:
            await trio.sleep(JOURNAL_FLUSH_INTERVAL_S)
            committed = self.committed
            if committed > self.durable:
                await self._run_blocking(self.store.flush)
                self.durable = committed
                self._tell_moved()

    def _tell_moved(self) -> None:
        self._moved.set()
        self._moved = trio.Event()

    async def close(self) -> None:
        """Close the file."""
        await self._run_blocking(self.store.close)
