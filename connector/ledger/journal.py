"""The journal: every change of the book is on disk before the frames that it allows leave.

`append` takes the entries of a batch and what is to happen once they are
committed. A writer off the event loop joins whatever has come into one
transaction after another, for as long as something comes; what it reports is
done on the loop. Nothing awaits to append.

When a transaction fails, what it held is kept and tried again, in order, and
`on_failure` is told, so that no new entries need to come. A transaction whose
failure hides that it was committed after all is recognised by its number.

`departed` tells up to which entry all frames have left; it is written along
with the next batch, or by itself when none comes.
"""

import threading
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue

import msgspec
import trio

from connector.errors import Unavailable
from connector.ledger import recovery
from connector.ledger.blocking import RunBlocking
from connector.ledger.store import Batch, Checkpoint, Statement, Store, set_checkpoint, set_meta
from connector.limits import (
    CHECKPOINT_ENTRIES,
    ENTRY_TYPICAL_BYTES,
    JOURNAL_COMPACT_ROWS_MAX,
    JOURNAL_FLUSH_INTERVAL_S,
    JOURNAL_IDLE_S,
    JOURNAL_MARK_DELAY_S,
)


class _Item(msgspec.Struct, frozen=True, gc=False):
    """Something to write, and whom to tell."""

    on_commit: Callable[[], None]
    entries: list[bytes] = []
    statements: tuple[Statement, ...] = ()
    #: Up to which entry all frames have left.
    departed: int = 0
    #: Batches up to this entry may be removed.
    unneeded: int = 0
    #: Whether everything is to be brought to the disk.
    flush: bool = False


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
        checkpointed: int = 0,
    ) -> None:
        """`last` is the number of the newest entry; `snapshot` gives the book after all that was appended.

        `checkpointed` is the last entry that the stored checkpoint of the book holds.
        """
        self.store = store
        #: Number of the newest entry: appended, committed, and on disk for certain.
        self.appended = self.committed = self.durable = last
        #: Up to which entry all frames have left.
        self.departed: Callable[[], int] = lambda: self.committed
        #: Accounts whose frames from some entry on have not left, whatever `departed` says.
        self.stuck: Callable[[], dict[int, int]] = dict
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
        self._queue: SimpleQueue[_Item] = SimpleQueue()
        #: What the writer has taken from the queue and not written; and the number before its entries.
        self._taken: list[_Item] = []
        self._written = last
        #: Set when there is work for a writer that sleeps.
        self._work = trio.Event()
        self._moved = trio.Event()
        self._marked = 0
        #: What was last written of `stuck`; of an earlier process nothing counts once we have written.
        self._stuck: dict[int, int] | None = None
        #: The newest checkpoint of the book, and one that waits until its frames have left.
        self._checkpointed = checkpointed
        self._next_checkpoint: Checkpoint | None = None
        #: Up to which entry the ledger needs none any more, and batches have been removed.
        self._ledger_last = 0
        self._compacted = 0
        #: Octets written by this process; what stood there before counts by the entry.
        self._octets = 0
        self._first = last

    # --- for those who write ---

    def append(self, log: list[bytes], on_commit: Callable[[], None]) -> int:
        """Write the entries of a batch with the next transaction; the number of the last one. Never waits."""
        self.appended += len(log)
        departed = min(self.departed(), self.committed)
        unneeded = min(self._checkpointed, self._ledger_last)
        self._put(
            _Item(
                on_commit,
                log,
                self._note_stuck() + self._upkeep(departed),
                departed,
                unneeded if unneeded > self._compacted else 0,
            )
        )
        return self.appended

    async def execute(self, *statements: Statement) -> None:
        """Write something else with the next transaction; returns when it is on disk."""
        done = trio.Event()
        self._put(_Item(done.set, statements=statements, flush=self._interval))
        await done.wait()

    def _put(self, item: _Item) -> None:
        self._queue.put(item)
        if not self._work.is_set():
            self._work.set()

    async def checkpoint_ledger(self, checkpoint: Checkpoint, *more: Statement) -> None:
        """Keep what the ledger holds, and `more`; entries before it are not needed for it any more."""
        await self.execute(set_checkpoint(recovery.LEDGER, checkpoint), *more)
        self._ledger_last = checkpoint.last

    def needed_by_ledger(self, after: int) -> None:
        """At the start: the ledger has a checkpoint after entry `after`."""
        self._ledger_last = after

    def octets_after(self, number: int) -> int:
        """About how many octets the entries after `number` have: the mean times their count."""
        own = self.committed - self._first
        mean = self._octets / own if own else ENTRY_TYPICAL_BYTES
        return int(mean * (self.appended - number))

    async def wait_durable(self, number: int) -> None:
        """Wait until entry `number` is on disk."""
        while self.durable < number:
            await self._moved.wait()

    async def wait_committed(self) -> None:
        """Wait until everything appended is committed, and its frames are known to have left."""
        while self.committed < self.appended or self._marked < self.committed:
            await self._moved.wait()

    def _note_stuck(self) -> tuple[Statement, ...]:
        """What is to be written of `stuck`, when it has changed."""
        stuck = self.stuck()
        if stuck == self._stuck:
            return ()
        self._stuck = stuck
        return (set_meta(recovery.STUCK, msgspec.json.encode(stuck).decode()),)

    def _upkeep(self, departed: int) -> tuple[Statement, ...]:
        """A checkpoint of the book, when one is due and every frame before it has left."""
        due = self._next_checkpoint
        if due is None:
            if self.appended - self._checkpointed >= CHECKPOINT_ENTRIES:
                self._next_checkpoint = Checkpoint(self.appended, self._snapshot())
        elif due.last <= min(departed, self.durable, *(self._stuck or {}).values()):
            self._checkpointed = due.last
            self._next_checkpoint = None
            return set_checkpoint(recovery.BOOK, due), set_meta(recovery.DEPARTED, str(departed))
        return ()

    # --- the writer ---

    async def run(self) -> None:
        """Commit what comes; never returns. Raises Unavailable when it cannot: run it again."""
        loop, token = threading.get_ident(), trio.lowlevel.current_trio_token()
        if self.failure:
            await self._run_blocking(self.store.reopen)
        async with trio.open_nursery() as nursery:
            if self._interval:
                nursery.start_soon(self._flush_regularly)
            outage = await self._write_until_outage(loop, token)
            nursery.cancel_scope.cancel()
        # Not from inside the nursery, which would make a group of it.
        raise outage

    async def _write_until_outage(self, loop: int, token: trio.lowlevel.TrioToken) -> Unavailable:
        while True:
            await self._wait()
            self._work = trio.Event()
            try:
                await self._run_blocking(lambda: self._write_all(loop, token))
            except Unavailable as error:
                self._fail(str(error))
                return error

    async def _wait(self) -> None:
        """Until there is work, or frames have left that are not marked."""
        delay_s = JOURNAL_MARK_DELAY_S
        while not (self._work.is_set() or self._taken):
            if self._marked >= self.committed and not self._stuck:
                await self._work.wait()
                return
            with trio.move_on_after(delay_s):
                await self._work.wait()
                return
            departed = self.departed()
            if departed > self._marked or self.stuck() != self._stuck:
                mark = set_meta(recovery.DEPARTED, str(departed)), *self._note_stuck()
                self._put(_Item(lambda: None, statements=mark, departed=departed))
                return
            # A peer that does not read: look again, ever more seldom.
            delay_s = min(1.0, delay_s * 2)

    def _write_all(self, loop: int, token: trio.lowlevel.TrioToken) -> None:
        """Off the loop: one transaction after another, until nothing has come for a moment.

        Raises Unavailable; what could not be written stays in `_taken`. On the
        loop itself (in simulations) nothing can come, and so it does not wait.
        """
        is_inline = threading.get_ident() == loop
        while True:
            if not self._taken:
                try:
                    self._taken.append(self._queue.get(timeout=0 if is_inline else JOURNAL_IDLE_S))
                except Empty:
                    return
            while not self._queue.empty():
                self._taken.append(self._queue.get())
            items = list(self._taken)
            removed = self._write(items)
            self._taken = []
            if is_inline:
                self._finish(items, removed)
            else:
                token.run_sync_soon(partial(self._finish, items, removed))

    def _write(self, items: list[_Item]) -> int:
        """One transaction; up to which entry all unneeded batches are removed."""
        log = [entry for item in items for entry in item.entries]
        first, last = self._written + 1, self._written + len(log)
        if self.failure:
            # What seemed to fail may have been written.
            there = max(0, self.store.last() - self._written)
            log, first = log[there:], first + there
        departed = max(item.departed for item in items)
        unneeded = max(item.unneeded for item in items)
        batch = Batch(first, last, departed, b"".join(log)) if log else None
        if batch is not None:
            self._octets += len(batch.entries)
        statements = [statement for item in items for statement in item.statements]
        removed = 0
        if batch is not None or statements or unneeded:
            removed = self.store.commit(batch, statements, unneeded)
        if any(item.flush for item in items):
            self.store.flush()
        # Not before the last thing that may fail: what is tried again begins after it.
        self._written = last
        return unneeded if removed < JOURNAL_COMPACT_ROWS_MAX else 0

    # --- on the loop ---

    def _finish(self, items: list[_Item], removed: int) -> None:
        """A transaction was committed."""
        is_flushed = not self._interval
        for item in items:
            self.committed += len(item.entries)
            self._marked = max(self._marked, item.departed)
            is_flushed = is_flushed or item.flush
        if is_flushed:
            self.durable = self.committed
        self._compacted = max(self._compacted, removed)
        if self.failure:
            self.failure = ""
            self.on_success()
            self.on_recovery()
        self._moved.set()
        self._moved = trio.Event()
        for item in items:
            item.on_commit()

    def _fail(self, reason: str) -> None:
        was_failing = bool(self.failure)
        self.failure = reason
        if not was_failing:
            self.on_failure()

    async def _flush_regularly(self) -> None:
        while True:
            await trio.sleep(JOURNAL_FLUSH_INTERVAL_S)
            if self.committed > self.durable:
                self._put(_Item(lambda: None, flush=True))

    async def close(self) -> None:
        """Close the file."""
        await self._run_blocking(self.store.close)
