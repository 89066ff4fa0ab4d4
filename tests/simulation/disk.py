"""A state directory as a killed process leaves it: copied as the system has it, perhaps with a torn write.

SQLite would tidy up when it closes a file, which a killed process does not do.
So the files are copied first; locks and shared memory are not, they end with
the process.
"""

import random
import shutil
import tempfile
from pathlib import Path

from connector.ledger.store import FILE

_WAL = f"{FILE}-wal"
_WAL_HEADER_BYTES = 32
_SECTOR_BYTES = 512


def make_root() -> Path:
    """A directory for a seed's files: in memory where there is such a thing."""
    memory = Path("/dev/shm")  # noqa: S108
    return Path(tempfile.mkdtemp(prefix="simulation-", dir=memory if memory.is_dir() else None))


def leave(directory: Path, copy: Path) -> None:
    """Copy what a process that is killed now leaves."""
    copy.mkdir()
    for file in sorted(directory.iterdir()):
        if file.name != "lock" and not file.name.endswith("-shm"):
            shutil.copyfile(file, copy / file.name)


class Journal:
    """The octets of a journal's two files at one moment."""

    def __init__(self, directory: Path) -> None:
        self.main = (directory / FILE).read_bytes()
        wal = directory / _WAL
        self.log = wal.read_bytes() if wal.exists() else b""


def tear(directory: Path, before: Journal, rng: random.Random) -> bool:
    """Have only a part of what was written since `before` on the disk; False if that cannot be.

    SQLite appends a transaction to its log and then syncs: until that is done,
    any part of it may be there. What it has copied to the main file is synced.
    """
    after = Journal(directory)
    if after.main != before.main or after.log == before.log:
        return False
    log = after.log
    old = before.log.ljust(len(log), b"\0")
    changed = [at for at in range(0, len(log), _SECTOR_BYTES) if log[at : at + 512] != old[at : at + 512]]
    first = next(at for at in range(changed[0], len(log)) if log[at] != old[at])
    last = next(at for at in range(len(log) - 1, -1, -1) if log[at] != old[at])
    if first < _WAL_HEADER_BYTES or rng.random() < 0.5:
        # In order: a part of the transaction's beginning.
        cut = rng.randint(first, last)
        torn = log[:cut] + before.log[cut:]
    else:
        lost = set(rng.sample(changed, rng.randint(1, len(changed))))
        torn = b"".join(
            (old if at in lost else log)[at : at + _SECTOR_BYTES] for at in range(0, len(log), _SECTOR_BYTES)
        )
    (directory / _WAL).write_bytes(torn)
    return True
