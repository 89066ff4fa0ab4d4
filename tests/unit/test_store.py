"""The journal's file, when all is well and when it is not: every failure names file and cause."""

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from connector.errors import Unavailable
from connector.ledger.store import FILE, Batch, Checkpoint, Store, set_checkpoint, set_meta

NODE = "test.node"


def batch(first: int, last: int, departed: int = 0) -> Batch:
    return Batch(first, last, departed, b"".join(b"entry %d;" % number for number in range(first, last + 1)))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path, NODE, "always")


def damage(directory: Path, sql: str, *parameters: int) -> None:
    with sqlite3.connect(directory / FILE) as connection:
        connection.execute(sql, parameters)
    connection.close()


# --- all is well ---


def test_batches_come_back_and_the_journal_keeps_its_id(store: Store, tmp_path: Path) -> None:
    written = [batch(1, 1), batch(2, 5, departed=1), batch(6, 6, departed=5)]
    for each in written:
        store.commit(each)
    journal_id = store.journal_id
    store.close()
    again = Store(tmp_path, NODE, "interval")
    assert again.journal_id == journal_id
    assert list(again.read_all(0)) == written
    assert list(again.read_all(3)) == written[1:]
    assert list(again.read_all(6)) == []
    assert again.last() == 6
    assert again.read(0, 2) == written[:2]
    assert again.read(1, 4) == written[1:2]
    again.close()


def test_two_journals_have_two_ids(tmp_path: Path) -> None:
    assert (
        Store(tmp_path / "a", NODE, "always").journal_id != Store(tmp_path / "b", NODE, "always").journal_id
    )


def test_statements_are_written_with_the_batch_and_the_newest_stands(store: Store) -> None:
    assert (store.meta("key"), store.checkpoint("book"), store.last()) == (None, None, 0)
    store.commit(batch(1, 2), [set_meta("key", "a"), set_checkpoint("book", Checkpoint(1, b"one"))])
    store.commit(None, [set_meta("key", "b")])
    store.commit(None, [set_checkpoint("book", Checkpoint(2, b"two")), set_meta("other", "c")])
    assert (store.meta("key"), store.meta("other")) == ("b", "c")
    assert store.checkpoint("book") == Checkpoint(2, b"two")
    store.flush()


def test_what_is_not_needed_is_removed_a_little_at_a_time(store: Store) -> None:
    for number in range(1, 101):
        store.commit(batch(number, number))
    assert store.commit(batch(101, 101), unneeded=90) == 64
    assert store.commit(None, unneeded=90) == 26
    assert store.commit(None, unneeded=90) == 0
    assert [each.first for each in store.read_all(90)] == list(range(91, 102))


def test_the_directory_is_the_owners_alone(tmp_path: Path) -> None:
    Store(tmp_path / "new" / "deep", NODE, "always").close()
    assert (tmp_path / "new" / "deep").stat().st_mode & 0o077 == 0


# --- who may have it ---


def test_one_process_has_the_directory_and_the_next_is_told_which(store: Store, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=f"{tmp_path} is in use by process {os.getpid()}: stop it first$"):
        Store(tmp_path, NODE, "always")
    code = (
        "import sys; from pathlib import Path; from connector.ledger.store import Store\n"
        "try: Store(Path(sys.argv[1]), 'test.node', 'always')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    held = f"is in use by process {os.getpid()}: stop it first"
    assert done.stdout == f"Unavailable state directory {tmp_path} {held}\n"
    store.close()
    Store(tmp_path, NODE, "always").close()


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Unavailable, match=f"cannot use state directory {tmp_path}/file/state: Not a dir"):
        Store(tmp_path / "file" / "state", NODE, "always")


def test_another_nodes_journal_is_refused_and_let_go_of(store: Store, tmp_path: Path) -> None:
    store.close()
    with pytest.raises(Unavailable, match=r"holds the books of node test\.node, not of test\.other"):
        Store(tmp_path, "test.other", "always")
    Store(tmp_path, NODE, "always").close()


def test_a_newer_version_is_refused(store: Store, tmp_path: Path) -> None:
    store.commit(None, [set_meta("version", "2")])
    store.close()
    with pytest.raises(Unavailable, match="version 2, this program knows 1: run the connector that wrote it"):
        Store(tmp_path, NODE, "always")


# --- disks ---


def test_a_full_disk_writes_nothing_and_works_again_later(store: Store) -> None:
    store.commit(batch(1, 1), [set_meta("key", "before")])
    pages = store._writer.execute("PRAGMA page_count").fetchone()[0]
    store._writer.execute(f"PRAGMA max_page_count = {pages}")
    large = Batch(2, 3, 0, bytes(1 << 20))
    with pytest.raises(Unavailable, match=rf"{FILE}: database or disk is full \(SQLITE_FULL\)"):
        store.commit(large, [set_meta("key", "after")])
    with pytest.raises(Unavailable, match="SQLITE_FULL"):
        store.commit(large)
    assert store.last() == 1
    assert store.meta("key") == "before"
    assert list(store.read_all(0)) == [batch(1, 1)]
    store.reopen()
    store.commit(large, [set_meta("key", "after")])
    assert list(store.read_all(0)) == [batch(1, 1), large]
    assert store.meta("key") == "after"


def test_the_same_numbers_are_not_written_twice(store: Store) -> None:
    store.commit(batch(1, 2))
    with pytest.raises(Unavailable, match="UNIQUE"):
        store.commit(batch(2, 2), [set_meta("key", "with it")])
    assert store.meta("key") is None


@pytest.mark.parametrize("content", [b"no database at all" * 400, b"SQLite format 3\0" + b"\xa5" * 4096])
def test_a_file_of_something_else_is_named_with_what_to_do(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(Unavailable, match=rf"{FILE}: .*; restore the directory from a backup"):
        Store(tmp_path, NODE, "always")
    (tmp_path / FILE).unlink()
    Store(tmp_path, NODE, "always").close()


def test_a_flipped_bit_is_found_and_the_entries_are_named(store: Store, tmp_path: Path) -> None:
    for each in (batch(1, 2), batch(3, 7), batch(8, 8)):
        store.commit(each)
    damage(tmp_path, "UPDATE batch SET entries = CAST('X' || substr(entries, 2) AS BLOB) WHERE first = 3")
    with pytest.raises(Unavailable, match=f"{FILE}: entries 3 to 7 are damaged"):
        list(store.read_all(0))
    assert list(store.read_all(7)) == [batch(8, 8)]


def test_a_damaged_checkpoint_is_found(store: Store, tmp_path: Path) -> None:
    store.commit(None, [set_checkpoint("book", Checkpoint(2, b"state"))])
    damage(tmp_path, "UPDATE checkpoint SET state = CAST('stale' AS BLOB)")
    with pytest.raises(Unavailable, match="checkpoint book is damaged"):
        store.checkpoint("book")


@pytest.mark.parametrize(("gone", "named"), [(1, 3), (3, 6)])
def test_missing_rows_are_found(store: Store, tmp_path: Path, gone: int, named: int) -> None:
    for each in (batch(1, 2), batch(3, 5), batch(6, 6)):
        store.commit(each)
    damage(tmp_path, "DELETE FROM batch WHERE first = ?", gone)
    with pytest.raises(Unavailable, match=f"entries before {named} are missing"):
        list(store.read_all(0))


def test_a_torn_tail_leaves_the_batches_before_it(store: Store, tmp_path: Path) -> None:
    written = [batch(number, number) for number in range(1, 9)]
    for each in written:
        store.commit(each)
    wal = (tmp_path / f"{FILE}-wal").read_bytes()
    found = set()
    for size in range(0, len(wal) + 1, 1_111):
        torn = tmp_path / f"torn{size}"
        torn.mkdir()
        shutil.copy(tmp_path / FILE, torn)
        (torn / f"{FILE}-wal").write_bytes(wal[:size])
        after = Store(torn, NODE, "always")
        read = list(after.read_all(0))
        assert read == written[: len(read)], "a prefix, of whole batches"
        assert after.last() == len(read)
        found.add(len(read))
        following = batch(len(read) + 1, len(read) + 1)
        after.commit(following)
        assert list(after.read_all(len(read))) == [following]
        after.close()
    assert found >= {0, 3, 7}
