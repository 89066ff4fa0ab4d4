"""The journal: in order, in few transactions, told only when committed, and exactly once whatever fails."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
import trio.testing

from connector.core import entries
from connector.errors import Unavailable
from connector.ledger import journal as journal_module
from connector.ledger import recovery
from connector.ledger.blocking import in_thread
from connector.ledger.journal import Journal
from connector.ledger.store import Batch, Checkpoint, Statement, Store, set_meta
from connector.limits import JOURNAL_FLUSH_INTERVAL_S
from tests.unit.books_helpers import NODE, in_place


class Writer:
    """A journal on a real file, whose transactions and flushes fail as told."""

    def __init__(self, directory: Path, *, sync: str = "always", threads: bool = False) -> None:
        self.store = Store(directory, NODE, sync)
        self.journal = Journal(
            self.store,
            0,
            in_thread() if threads else in_place,
            sync=sync,
            snapshot=lambda: b"book at %d" % self.journal.appended,
        )
        self.committed: list[int] = []
        self.commits = 0
        #: How each of the next transactions fails: not at all, before anything is written, or after all is.
        self.failures: list[str] = []
        self.flush_failures = 0
        self.flushes = 0
        self.states: list[str] = []
        self.journal.on_failure = lambda: self.states.append("fails")
        self.journal.on_success = lambda: self.states.append("works")
        self.number = 0
        self._commit, self._flush = self.store.commit, self.store.flush
        self.store.commit = self.commit  # type: ignore[method-assign]
        self.store.flush = self.flush  # type: ignore[method-assign]

    def commit(self, batch: Batch | None, statements: Sequence[Statement] = (), unneeded: int = 0) -> int:
        failure = self.failures.pop(0) if self.failures else ""
        if failure == "before":
            raise Unavailable("the disk is full")
        self.commits += 1
        removed = self._commit(batch, statements, unneeded)
        if failure == "after":
            raise Unavailable("the disk is full, it seems")
        return removed

    def flush(self) -> None:
        self.flushes += 1
        if self.flush_failures:
            self.flush_failures -= 1
            raise Unavailable("the disk does not answer")
        self._flush()

    def append(self, count: int = 1) -> int:
        """So many entries, each with a number of its own."""
        log = []
        for _ in range(count):
            self.number += 1
            log.append(entries.pack_end(entries.FULFILLED, self.number, 0))
        last = self.journal.append(log, lambda: self._told(last))
        return last

    def _told(self, last: int) -> None:
        assert self.store.last() >= last, "it is told when it is committed"
        self.committed.append(last)

    async def run(self) -> None:
        """As its supervisor does."""
        while True:
            try:
                await self.journal.run()
            except Unavailable as error:
                self.states.append(str(error))
                await trio.sleep(0.5)

    def written(self) -> list[int]:
        """Numbers of the entries in the file."""
        found: list[int] = []
        for batch in self.store.read_all(0):
            assert batch.first == len(found) + 1
            found += [entry[1] for entry in entries.decode(batch.entries)]
            assert batch.last == len(found)
        return found

    async def settle(self) -> None:
        await self.journal.wait_durable(self.journal.appended)


async def test_entries_come_to_the_file_in_order_and_are_told_once_committed(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    writer = Writer(tmp_path)
    assert [writer.append(2), writer.append(), writer.append(0), writer.append(3)] == [2, 3, 3, 6]
    assert (writer.committed, writer.journal.committed, writer.store.last()) == ([], 0, 0)
    nursery.start_soon(writer.run)
    await writer.settle()
    assert writer.written() == [1, 2, 3, 4, 5, 6]
    assert writer.committed == [2, 3, 3, 6]
    assert writer.commits == 1, "what has come by then is one transaction"
    assert (writer.journal.committed, writer.journal.durable) == (6, 6)


async def test_with_threads_batches_join_and_none_is_lost(tmp_path: Path, nursery: trio.Nursery) -> None:
    writer = Writer(tmp_path, threads=True)
    nursery.start_soon(writer.run)
    for number in range(300):
        writer.append()
        if number % 7 == 0:
            await trio.lowlevel.checkpoint()
    await writer.settle()
    assert writer.written() == list(range(1, 301))
    assert writer.committed == list(range(1, 301))
    assert writer.commits < 300


@pytest.mark.parametrize(
    "failures",
    [["before"], ["after"], ["before", "before"], ["after", "before"], ["before", "after", "after"]],
)
@pytest.mark.parametrize("more", [0, 2])
async def test_what_failed_is_written_exactly_once_and_in_order(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: object, failures: list[str], more: int
) -> None:
    writer = Writer(tmp_path)
    nursery.start_soon(writer.run)
    writer.append(2)
    await writer.settle()
    writer.failures = list(failures)
    writer.append(3)
    await trio.testing.wait_all_tasks_blocked()
    assert writer.committed == [2]
    assert writer.states[0] == "fails"
    if more:
        writer.append(more)
    await writer.settle()
    assert writer.written() == list(range(1, 6 + more))
    assert writer.committed == ([2, 5, 5 + more] if more else [2, 5])
    assert [state for state in writer.states if state in ("fails", "works")] == ["fails", "works"]
    writer.append()
    await writer.settle()
    assert writer.written() == list(range(1, 7 + more))


async def test_statements_survive_a_failure_and_are_waited_for(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: object
) -> None:
    writer = Writer(tmp_path)
    nursery.start_soon(writer.run)
    writer.failures = ["before", "after"]
    writer.append()
    await writer.journal.execute(set_meta("key", "value"))
    assert writer.store.meta("key") == "value"
    assert writer.written() == [1]


# --- interval ---


async def test_with_interval_what_is_committed_is_durable_after_the_next_flush(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    writer = Writer(tmp_path, sync="interval")
    nursery.start_soon(writer.run)
    writer.append(3)
    await trio.testing.wait_all_tasks_blocked()
    assert (writer.committed, writer.journal.committed, writer.journal.durable) == ([3], 3, 0)
    start = trio.current_time()
    await writer.settle()
    assert trio.current_time() - start == pytest.approx(JOURNAL_FLUSH_INTERVAL_S, abs=0.02)
    assert (writer.journal.durable, writer.flushes) == (3, 1)
    await trio.sleep(10)
    assert writer.flushes == 1, "nothing new, nothing to flush"


async def test_with_interval_what_is_executed_is_on_disk_when_it_returns(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: object
) -> None:
    writer = Writer(tmp_path, sync="interval")
    nursery.start_soon(writer.run)
    writer.append(2)
    await writer.journal.execute(set_meta("key", "value"))
    assert writer.flushes == 1
    assert writer.journal.durable == 2


async def test_a_flush_that_fails_repeats_no_entries(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: object
) -> None:
    writer = Writer(tmp_path, sync="interval")
    nursery.start_soon(writer.run)
    writer.flush_failures = 2
    writer.append(2)
    await writer.journal.execute(set_meta("key", "value"))
    writer.append(2)
    await writer.settle()
    assert writer.written() == [1, 2, 3, 4]
    assert writer.committed == [2, 4]


# --- what has departed ---


async def test_what_has_left_is_marked_with_the_next_batch_or_by_itself(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: object
) -> None:
    writer = Writer(tmp_path)
    left = 0
    writer.journal.departed = lambda: left
    nursery.start_soon(writer.run)
    writer.append(2)
    await writer.settle()
    left = 1
    writer.append(1)
    await writer.settle()
    assert [batch.departed for batch in writer.store.read_all(0)] == [0, 1]
    assert writer.store.meta(recovery.DEPARTED) is None
    left = 3
    await trio.sleep(2)
    assert writer.store.meta(recovery.DEPARTED) == "3"
    await writer.journal.wait_committed()
    assert writer.written() == [1, 2, 3]


async def test_what_is_not_committed_has_not_left_whatever_anybody_says(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: object
) -> None:
    writer = Writer(tmp_path)
    writer.journal.departed = lambda: 99
    writer.append(2)
    nursery.start_soon(writer.run)
    await writer.settle()
    assert [batch.departed for batch in writer.store.read_all(0)] == [0]


# --- checkpoints ---


async def test_a_checkpoint_waits_until_all_before_it_has_left(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "CHECKPOINT_ENTRIES", 4)
    writer = Writer(tmp_path)
    left = 0
    writer.journal.departed = lambda: left
    nursery.start_soon(writer.run)
    writer.append(5)
    for _ in range(3):
        await writer.settle()
        writer.append()
    await writer.settle()
    assert writer.store.checkpoint(recovery.BOOK) is None
    left = 4
    writer.append()
    await writer.settle()
    assert writer.store.checkpoint(recovery.BOOK) is None, "entry 5 has not left"
    left = 5
    writer.append()
    await writer.settle()
    checkpoint = writer.store.checkpoint(recovery.BOOK)
    assert checkpoint is not None
    assert (checkpoint.last, checkpoint.state) == (5, b"book at 5")
    assert writer.store.meta(recovery.DEPARTED) == "5"


async def test_only_what_is_behind_both_checkpoints_is_removed(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "CHECKPOINT_ENTRIES", 10)
    writer = Writer(tmp_path)
    nursery.start_soon(writer.run)

    async def pass_by(count: int) -> None:
        for _ in range(count):
            writer.append()
            await writer.settle()

    await pass_by(40)
    assert writer.written() == list(range(1, 41)), "the ledger needs it all"
    await writer.journal.checkpoint_ledger(Checkpoint(7, b"ledger"))
    await pass_by(3)
    assert writer.store.read(7, 1)[0].first == 8
    with pytest.raises(Unavailable, match="missing"):
        writer.written()
    book = writer.store.checkpoint(recovery.BOOK)
    assert book is not None
    await writer.journal.checkpoint_ledger(Checkpoint(43, b"ledger"))
    await pass_by(1)
    assert writer.store.read(book.last, 1)[0].first == book.last + 1
    with pytest.raises(Unavailable, match="missing"):
        list(writer.store.read_all(book.last - 1))
