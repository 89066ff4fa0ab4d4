"""The journal when its disk fails, and what it may remove after a start."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
import trio
import trio.testing

from connector.core.chart import Kind
from connector.core.entries import pack_opened
from connector.core.rates import Asset
from connector.errors import Unavailable
from connector.ledger import journal as journal_module
from connector.ledger.journal import Journal
from connector.ledger.store import Batch, Checkpoint, Store, set_checkpoint

T = TypeVar("T")
ENTRY = pack_opened(0, Kind.PEER, "alice", Asset("USD", 6))


async def _in_place(call: Callable[[], T], /) -> T:
    await trio.lowlevel.checkpoint()
    return call()


@pytest.mark.parametrize("sync", ["always", "interval"])
async def test_an_outage_ends_the_writer_in_unavailable_itself_for_its_supervisor(
    tmp_path: Path, sync: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path, "test.a", sync)
    journal = Journal(store, 0, _in_place, sync=sync, snapshot=lambda: b"")

    def refuse(*_: object) -> int:
        raise Unavailable("the disk is full")

    monkeypatch.setattr(store, "commit", refuse)
    journal.append([ENTRY], lambda: None)
    with pytest.raises(Unavailable, match="the disk is full"):
        await journal.run()
    store.close()


async def test_entries_since_the_stored_checkpoint_outlast_a_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(journal_module, "CHECKPOINT_ENTRIES", 100)
    store = Store(tmp_path, "test.a", "always")
    for number in range(1, 11):
        store.commit(Batch(number, number, number, ENTRY), [set_checkpoint("book", Checkpoint(4, b"book"))])
    journal = Journal(store, 10, _in_place, sync="always", snapshot=lambda: b"", checkpointed=4)
    journal.needed_by_ledger(10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        for _ in range(3):
            journal.append([ENTRY], lambda: None)
            await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert [batch.first for batch in store.read(4, 100)] == [5, 6, 7, 8, 9, 10, 11, 12, 13]
    with pytest.raises(Unavailable, match="missing"):
        store.read(0, 100)
    store.close()
