"""The journal or the ledger swapped under the poster for an older one or another: refused, whatever."""

import shutil
import sqlite3
from pathlib import Path

import pytest

from connector.core.chart import Kind
from connector.errors import Unavailable
from connector.ledger import recovery
from connector.ledger.attach import ForeignLedger
from connector.ledger.store import Store
from tests.unit.books_helpers import NODE
from tests.unit.posting_helpers import Office


async def test_an_older_journal_is_not_let_at_a_newer_ledger(tmp_path: Path, autojump_clock: object) -> None:
    office = Office(tmp_path / "office", tmp_path / "ledger.sqlite3")
    office.batch_max = 1000
    office.packets(3, ends="commit")
    await office.post()
    office.crash()
    journal, backup = office.directory / "journal", tmp_path / "backup"
    shutil.copytree(journal, backup)
    office.start()
    office.packets(5, ends="commit")
    await office.post()
    office.crash()
    shutil.rmtree(journal)
    shutil.copytree(backup, journal)
    store = Store(journal, NODE, "always")
    office.book = recovery.recover(store, 1).book
    store.close()
    office.start()
    with pytest.raises(ForeignLedger, match="ledger and journal disagree on peer "):
        await office.post(retries=False)


async def test_a_new_journal_is_not_let_at_balances_without_a_marker(
    tmp_path: Path, autojump_clock: object
) -> None:
    """As an opening leaves them that was cut short, when its journal is lost as well."""
    older = Office(tmp_path / "older", tmp_path / "ledger.sqlite3")
    older.batch_max = 1000
    older.packets(3, ends="commit")
    await older.post()
    older.crash()
    ledger = sqlite3.connect(tmp_path / "ledger.sqlite3")
    assert ledger.execute("DELETE FROM account WHERE code = ?", (Kind.JOURNAL,)).rowcount == 1
    ledger.commit()
    ledger.close()
    newer = Office(tmp_path / "newer", tmp_path / "ledger.sqlite3", fills_empty=True)
    newer.batch_max = 1000
    newer.packets(1, ends="commit")
    with pytest.raises(ForeignLedger, match="knows nothing of"):
        await newer.post(retries=False)


async def test_a_ledger_that_was_left_for_another_is_not_taken_again(
    tmp_path: Path, autojump_clock: object
) -> None:
    """What it had not answered went into the other one as balances."""
    first, second = tmp_path / "first.sqlite3", tmp_path / "second.sqlite3"
    office = Office(tmp_path / "office", first, fills_empty=True)
    office.batch_max = 1000
    office.packets(3, ends="commit")
    await office.post()
    office.packets(2, ends="commit")

    def lost(events: bytes) -> bytes:
        raise Unavailable("gone before it arrived")

    office.forge = lost
    await office.post(retries=False)
    assert office.poster.unposted
    office.forge = lambda events: events
    office.ledger_path = second
    await office.post()
    await office.check()
    office.crash()
    office.ledger_path = first
    office.start()
    office.packets(1, ends="commit")
    with pytest.raises(ForeignLedger, match="ledger and journal disagree on peer "):
        await office.post()
