"""The journal's file: SQLite in WAL mode, one transaction per batch.

Blocking, and used by one thread at a time; `read` has a connection of its own,
so that it may run beside `commit`. Entries are numbered from 1 without gaps; a
batch is one row, named by the number of its last entry. A row carries a
checksum, so that damage is told from an end.

The directory belongs to one process: a lock is held on it for as long as the
store is open. Every failure is Unavailable, and names file and cause.
"""

import fcntl
import os
import secrets
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from connector.errors import Unavailable
from connector.limits import JOURNAL_COMPACT_ROWS_MAX, JOURNAL_LOCK_TIMEOUT_S

FILE = "journal.sqlite3"
_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batch
    (last INTEGER PRIMARY KEY, first INTEGER, departed INTEGER, checksum INTEGER, entries BLOB);
CREATE TABLE IF NOT EXISTS checkpoint (name TEXT PRIMARY KEY, last INTEGER, checksum INTEGER, state BLOB);
"""

_COMPACT = "DELETE FROM batch WHERE last IN (SELECT last FROM batch WHERE last <= ? ORDER BY last LIMIT ?)"

#: What to run in a transaction: SQL and its parameters.
Statement = tuple[str, tuple[Any, ...]]


class Batch(msgspec.Struct, frozen=True):
    """Entries numbered `first` to `last`; the frames of entries up to `departed` had left by then."""

    first: int
    last: int
    departed: int
    entries: bytes


class Checkpoint(msgspec.Struct, frozen=True):
    """A book as it is after entry `last`."""

    last: int
    state: bytes


class Store:
    """An open journal file."""

    def __init__(self, directory: Path, node: str, sync: str) -> None:
        """Open or make it, for `node`; `sync` is `always` or `interval`. Raises Unavailable."""
        self.path = directory / FILE
        self._lock = lock_directory(directory)
        try:
            self._synchronous = "FULL" if sync == "always" else "NORMAL"
            self._writer = self._connect()
            try:
                self._reader = self._connect()
                self.journal_id = self._identify(node)
            except BaseException:
                self._writer.close()
                raise
        except BaseException:
            os.close(self._lock)
            raise

    def _connect(self) -> sqlite3.Connection:
        with self._translated():
            connection = sqlite3.connect(
                self.path, isolation_level=None, check_same_thread=False, timeout=JOURNAL_LOCK_TIMEOUT_S
            )
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute(f"PRAGMA synchronous = {self._synchronous}")
                connection.execute("PRAGMA fullfsync = 1")
                connection.executescript(_SCHEMA)
            except BaseException:
                connection.close()
                raise
        return connection

    def _identify(self, node: str) -> int:
        with self._translated():
            stored = dict(self._writer.execute("SELECT key, value FROM meta"))
            if not stored:
                fresh = {"version": str(_VERSION), "node": node, "journal": secrets.token_hex(16)}
                self._transact([set_meta(key, value) for key, value in fresh.items()])
                stored = fresh
        if stored.get("version") != str(_VERSION):
            raise Unavailable(
                f"{self.path}: version {stored.get('version')}, this program knows {_VERSION}: "
                "run the connector that wrote it"
            )
        if stored["node"] != node:
            raise Unavailable(
                f"{self.path}: holds the books of node {stored['node']}, not of {node}: "
                "set node.state_dir to another directory"
            )
        return int(stored["journal"], 16)

    # --- writing ---

    def commit(self, batch: Batch | None, statements: Sequence[Statement] = (), unneeded: int = 0) -> int:
        """Write entries and whatever else, in one transaction; remove some batches up to entry `unneeded`.

        Returns how many were removed. Raises Unavailable; then nothing was
        written, or, seldom, everything: `last` tells.
        """
        work = list(statements)
        if batch is not None:
            values = (batch.last, batch.first, batch.departed, zlib.crc32(batch.entries), batch.entries)
            work.append(("INSERT INTO batch VALUES (?, ?, ?, ?, ?)", values))
        if unneeded:
            work.append((_COMPACT, (unneeded, JOURNAL_COMPACT_ROWS_MAX)))
        with self._translated():
            changed = self._transact(work)
        return changed if unneeded else 0

    def _transact(self, work: list[Statement]) -> int:
        """Run statements, all or none; how many rows the last one changed."""
        if len(work) == 1:
            return self._writer.execute(*work[0]).rowcount
        changed = 0
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            for sql, parameters in work:
                changed = self._writer.execute(sql, parameters).rowcount
            self._writer.execute("COMMIT")
        except BaseException:
            # SQLite has rolled back by itself after some errors.
            with suppress(sqlite3.Error):
                self._writer.execute("ROLLBACK")
            raise
        return changed

    def reopen(self) -> None:
        """Open the file anew for writing, after a failure; `read` may be under way. Raises Unavailable."""
        with suppress(sqlite3.Error):
            self._writer.close()
        self._writer = self._connect()

    def last(self) -> int:
        """The number of the newest entry; 0 when there is none. Raises Unavailable."""
        with self._translated():
            row = self._writer.execute("SELECT coalesce(max(last), 0) FROM batch").fetchone()
        return int(row[0])

    def flush(self) -> None:
        """Bring what was committed to the disk. Raises Unavailable."""
        with self._translated():
            try:
                file = os.open(f"{self.path}-wal", os.O_RDONLY)
            except FileNotFoundError:
                return
            try:
                os.fsync(file)
            finally:
                os.close(file)

    # --- reading ---

    def read(self, after: int, entries_max: int) -> list[Batch]:
        """Batches that hold entries after number `after`, about `entries_max` of them. Raises Unavailable."""
        found: list[Batch] = []
        count = 0
        with self._translated():
            for batch in self._batches(after):
                found.append(batch)
                count += batch.last - max(after, batch.first - 1)
                if count >= entries_max:
                    break
        return found

    def read_all(self, after: int) -> Iterator[Batch]:
        """Every batch after entry number `after`. Raises Unavailable."""
        with self._translated():
            yield from self._batches(after)

    def _batches(self, after: int) -> Iterator[Batch]:
        rows = self._reader.execute(
            "SELECT first, last, departed, entries, checksum FROM batch WHERE last > ? ORDER BY last",
            (after,),
        )
        expected = None
        for first, last, departed, entries, checksum in rows:
            if zlib.crc32(entries) != checksum:
                raise Unavailable(f"{self.path}: entries {first} to {last} are damaged{_DAMAGED}")
            if (first > after + 1) if expected is None else (first != expected):
                raise Unavailable(f"{self.path}: entries before {first} are missing{_DAMAGED}")
            expected = last + 1
            yield Batch(first, last, departed, entries)

    def meta(self, key: str) -> str | None:
        """A value of the table of single values. Raises Unavailable."""
        with self._translated():
            row = self._reader.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def checkpoint(self, name: str) -> Checkpoint | None:
        """The checkpoint of that name. Raises Unavailable."""
        with self._translated():
            row = self._reader.execute(
                "SELECT last, state, checksum FROM checkpoint WHERE name = ?", (name,)
            ).fetchone()
        if row is None:
            return None
        if zlib.crc32(row[1]) != row[2]:
            raise Unavailable(f"{self.path}: checkpoint {name} is damaged{_DAMAGED}")
        return Checkpoint(row[0], row[1])

    def close(self) -> None:
        """Close the file and let go of the directory."""
        with suppress(sqlite3.Error):
            self._reader.close()
            self._writer.close()
        os.close(self._lock)

    def _translated(self) -> "_Translated":
        return _Translated(self.path)


_DAMAGED = "; restore the directory from a backup, or run 'connector ledger rebuild'"


class _Translated:
    """SQLite's and the system's errors as Unavailable."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlite3.DatabaseError | OSError):
            raise Unavailable(f"{self._path}: {_explain(error)}") from error


def _explain(error: sqlite3.DatabaseError | OSError) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return f"{error}{_DAMAGED}"
    return f"{error} ({name})" if name else str(error)


def lock_directory(directory: Path) -> int:
    """Take the directory for this process; the file that holds the lock. Raises Unavailable."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Unavailable(f"cannot use state directory {directory}: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.read(file, 32).decode("ascii", "replace").strip()
        os.close(file)
        raise Unavailable(
            f"state directory {directory} is in use by process {owner or 'unknown'}: stop it first"
        ) from None
    os.truncate(file, 0)
    os.pwrite(file, str(os.getpid()).encode(), 0)
    return file


# --- statements that others add to a transaction ---


def set_meta(key: str, value: str) -> Statement:
    """Keep a single value."""
    return "INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value)


def set_checkpoint(name: str, checkpoint: Checkpoint) -> Statement:
    """Keep a checkpoint."""
    values = (name, checkpoint.last, zlib.crc32(checkpoint.state), checkpoint.state)
    return "INSERT OR REPLACE INTO checkpoint VALUES (?, ?, ?, ?)", values
