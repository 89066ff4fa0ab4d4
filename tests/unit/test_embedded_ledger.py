"""The embedded ledger's file: what lasts, what goes wrong with it, and what is said then."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
import trio

from connector.core.transfers import Transfer, pack
from connector.errors import Unavailable
from connector.ledger.api import AccountQuery, LedgerAccount
from connector.ledger.embedded import EmbeddedLedger, open_embedded
from connector.ledger.layouts import HISTORY
from connector.ledger.status import TransferStatus

T = TypeVar("T")

A, B = 1, 2


async def inline(call: Callable[[], T], /) -> T:
    return call()


async def opened(path: Path, now_ns: Callable[[], int] = lambda: 1_000) -> EmbeddedLedger:
    ledger = await open_embedded(path, run_blocking=inline, now_ns=now_ns)
    await ledger.create_accounts(
        [LedgerAccount(id=ident, ledger=1, code=1, flags=HISTORY) for ident in (A, B)]
    )
    return ledger


def transfer(ident: int, **fields: int) -> bytes:
    return pack(
        Transfer(
            **{
                "id": ident,
                "debit_account_id": A,
                "credit_account_id": B,
                "amount": 5,
                "ledger": 1,
                "code": 1,
            }
            | fields
        )
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


async def test_what_was_answered_is_there_after_reopening(path: Path) -> None:
    ledger = await opened(path)
    assert await ledger.create_transfers(transfer(1) + transfer(2, credit_account_id=9)) == [
        TransferStatus.CREATED,
        TransferStatus.CREDIT_ACCOUNT_NOT_FOUND,
    ]
    await ledger.aclose()
    again = await opened(path)
    assert await again.create_transfers(transfer(1) + transfer(2)) == [
        TransferStatus.EXISTS,
        TransferStatus.ID_ALREADY_FAILED,
    ]
    (account,) = await again.lookup_accounts([A])
    assert account.debits_posted == 5
    assert len(await again.account_balances(AccountQuery(account_id=A, limit=9))) == 1
    await again.aclose()


async def test_an_answer_is_on_disk_before_it_is_given(path: Path) -> None:
    ledger = await opened(path)
    await ledger.create_transfers(transfer(1))
    # What another process would find if this one were killed now.
    copy = path.with_name("copy.db")
    for suffix in ("", "-wal"):
        await trio.Path(f"{copy}{suffix}").write_bytes(await trio.Path(f"{path}{suffix}").read_bytes())
    survivor = await opened(copy)
    assert [found.id for found in await survivor.lookup_transfers([1])] == [1]
    await survivor.aclose()
    await ledger.aclose()


async def test_every_commit_is_synced(path: Path) -> None:
    ledger = await opened(path)
    settings = [
        ledger._store._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")
    ]
    assert settings == ["wal", 2]
    await ledger.aclose()


async def test_timestamps_grow_though_the_clock_goes_back(path: Path) -> None:
    times = iter([1_000, 5_000, 10, 20])
    ledger = await opened(path, now_ns=lambda: next(times))
    for ident in (1, 2, 3):
        assert await ledger.create_transfers(transfer(ident)) == [TransferStatus.CREATED]
    found = await ledger.lookup_transfers([1, 2, 3])
    assert [each.timestamp for each in found] == [5_000, 5_001, 5_002]
    accounts = await ledger.lookup_accounts([A, B])
    assert [account.timestamp for account in accounts] == [999, 1_000]
    await ledger.aclose()


async def test_a_full_disk_leaves_nothing_behind_and_passes(path: Path) -> None:
    ledger = await opened(path)
    db = ledger._store._db
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    db.execute(f"PRAGMA max_page_count = {pages}")
    batch = b"".join(transfer(ident) for ident in range(1, 1_001))
    with pytest.raises(Unavailable, match=f"{path}: database or disk is full"):
        await ledger.create_transfers(batch)
    assert await ledger.lookup_transfers(range(1, 1_001)) == []
    assert (await ledger.lookup_accounts([A]))[0].debits_posted == 0
    db.execute("PRAGMA max_page_count = 1000000")
    assert await ledger.create_transfers(batch) == [TransferStatus.CREATED] * 1_000
    await ledger.aclose()


async def test_a_file_that_somebody_else_writes_to(path: Path) -> None:
    ledger = await opened(path)
    ledger._store._db.execute("PRAGMA busy_timeout = 1")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="database is locked"):
        await ledger.create_transfers(transfer(1))
    other.close()
    assert await ledger.create_transfers(transfer(1)) == [TransferStatus.CREATED]
    await ledger.aclose()


async def test_a_file_that_is_no_database(path: Path) -> None:
    await trio.Path(path).write_bytes(b"no database at all" * 100)
    with pytest.raises(Unavailable, match=f"{path}: file is not a database"):
        await opened(path)
    assert (await trio.Path(path).read_bytes()).startswith(b"no database at all")


async def test_a_database_of_something_else(path: Path) -> None:
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE cats (name)")
    other.close()
    with pytest.raises(Unavailable, match="a database of something else, not a ledger"):
        await opened(path)


async def test_a_ledger_of_a_newer_connector(path: Path) -> None:
    await (await opened(path)).aclose()
    other = sqlite3.connect(path)
    other.execute("PRAGMA user_version = 99")
    other.close()
    with pytest.raises(Unavailable, match=r"written by a newer connector \(version 99, this one knows 1\)"):
        await opened(path)


async def test_a_file_that_was_damaged(path: Path) -> None:
    ledger = await opened(path)
    await ledger.create_transfers(b"".join(transfer(ident) for ident in range(1, 1_001)))
    await ledger.aclose()
    octets = bytearray(await trio.Path(path).read_bytes())
    for page in range(4096, len(octets), 4096):
        octets[page : page + 512] = b"\xff" * 512
    await trio.Path(path).write_bytes(octets)
    with pytest.raises(Unavailable, match=f"{path}: database disk image is malformed"):
        await (await opened(path)).lookup_transfers([1])


async def test_a_directory_that_is_not_there_and_a_file_that_is_one(path: Path) -> None:
    with pytest.raises(Unavailable, match="unable to open database file"):
        await opened(path / "below")
    await trio.Path(path).mkdir()
    with pytest.raises(Unavailable, match="unable to open database file"):
        await opened(path)


async def test_a_file_that_may_only_be_read(path: Path) -> None:
    ledger = await opened(path)
    ledger._store._db.execute("PRAGMA query_only = 1")
    with pytest.raises(Unavailable, match="attempt to write a readonly database"):
        await ledger.create_transfers(transfer(1))
    await ledger.aclose()


async def test_a_closed_ledger(path: Path) -> None:
    ledger = await opened(path)
    await ledger.aclose()
    await ledger.aclose()
    with pytest.raises(Unavailable, match="the ledger was closed"):
        await ledger.lookup_accounts([A])


@pytest.mark.parametrize("fields", [{"timeout": 1, "flags": 2}, {"flags": 1 << 4}, {"flags": 1 << 8}])
async def test_what_the_connector_never_asks_is_a_bug(path: Path, fields: dict[str, int]) -> None:
    ledger = await opened(path)
    with pytest.raises(AssertionError, match="the embedded ledger takes no"):
        await ledger.create_transfers(transfer(1, **fields))
    assert await ledger.create_transfers(transfer(1)) == [TransferStatus.CREATED]
    await ledger.aclose()


async def test_a_request_whose_task_is_cancelled_is_finished(path: Path) -> None:
    ledger = await open_embedded(path)
    await ledger.create_accounts([LedgerAccount(id=ident, ledger=1, code=1) for ident in (A, B)])
    with trio.CancelScope() as scope:
        scope.cancel()
        await ledger.create_transfers(transfer(1))
    assert await ledger.create_transfers(transfer(1)) in ([TransferStatus.EXISTS], [TransferStatus.CREATED])
    async with trio.open_nursery() as nursery:
        for ident in range(2, 12):
            nursery.start_soon(ledger.create_transfers, transfer(ident))
    assert (await ledger.lookup_accounts([A]))[0].debits_posted == 55
    await ledger.aclose()
