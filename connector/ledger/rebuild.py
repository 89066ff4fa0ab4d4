"""Rebuilding: a new journal for a node that lost its own, from the ledger's balances.

`plan` only reads, and refuses unless every balance in the ledger finds its
account. `carry_out` voids what is pending, writes the new journal beside the
old one, puts it in its place, and marks the ledger as its own. Wherever that is
interrupted, the node refuses to post (the ledger's newest marker is another
journal's), and it can be done again. The caller holds the directory's lock.
"""

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import msgspec

from connector.core import snapshot
from connector.core.book import Book, Settled
from connector.core.chart import Code, Kind, account_id, journal_account_id, ledger_number, node_number
from connector.core.rates import Asset
from connector.core.transfers import Transfer
from connector.errors import Unavailable
from connector.ledger import orphans, recovery
from connector.ledger.api import AccountQuery, Ledger, LedgerAccount
from connector.ledger.attach import mark
from connector.ledger.store import FILE, Checkpoint, Store, set_checkpoint, set_meta
from connector.limits import SETTLEMENTS_REMEMBERED_MAX

Holder = tuple[Kind, str, Asset]

#: Kinds that each asset has once, and their names; those that the book does not keep come last.
_OF_ASSET = (Kind.FEES, Kind.EXCHANGE, Kind.SETTLEMENT, Kind.LOSSES, Kind.OPENING, Kind.CHAIN)
_NEW = "rebuilding"


class Plan(msgspec.Struct):
    """What a rebuild would make of a ledger."""

    node: str
    book: Book
    #: Pending transfers, to be voided.
    orphans: list[Transfer]
    #: Accounts by the ledger's id.
    names: dict[int, Holder]

    def name_of(self, ident: int) -> str:
        """An account for people."""
        known = self.names.get(ident)
        if known is None:
            return f"{ident:032x}"
        kind, name, _ = known
        return name if name == kind.word else f"{kind.word} {name}"


def holders_of(peers: Iterable[tuple[str, Asset]], accounts: Iterable[tuple[str, Asset]]) -> list[Holder]:
    """The holders that a configuration names."""
    return [(Kind.PEER, *each) for each in peers] + [(Kind.LOCAL, *each) for each in accounts]


async def plan(ledger: Ledger, node: str, holders: Sequence[Holder]) -> Plan:
    """What the ledger holds for `node`. Raises Unavailable when a balance would be lost."""
    names = _names(node, holders)
    rows = await _rows(ledger, node, list(names))
    unnamed = [row for row in rows if row.id not in names and _holds_something(row)]
    if unnamed:
        raise Unavailable(_explain(unnamed))
    if not any(_holds_something(row) for row in rows):
        raise Unavailable(f"the ledger holds no balance of {node}: move the journal away, and start the node")
    book = _book(rows, names, holders)
    search = await orphans.find(ledger, rows, ())
    orphans.require_complete(search)
    await _remember_settled(ledger, node, book)
    return Plan(node, book, search.orphans, names)


def _names(node: str, holders: Sequence[Holder]) -> dict[int, Holder]:
    """The accounts that the ledger can have, by id."""
    found = {account_id(node, *holder): holder for holder in holders}
    for asset in {asset for _, _, asset in holders}:
        for kind in _OF_ASSET:
            found[account_id(node, kind, kind.word, asset)] = (kind, kind.word, asset)
    return found


async def _rows(ledger: Ledger, node: str, ids: list[int]) -> list[LedgerAccount]:
    """Every account of the node in the ledger. Raises Unavailable when there may be more."""
    rows = {row.id: row for row in await ledger.lookup_accounts(ids)}
    limit = ledger.batch_max
    for kind in Kind:
        if kind is Kind.JOURNAL:
            continue
        seen: set[int] = set()
        for newest_first in (False, True):
            part = await ledger.query_accounts(
                user_data_128=node_number(node), code=kind, limit=limit, reversed=newest_first
            )
            overlaps = any(row.id in seen for row in part)
            seen |= {row.id for row in part}
            rows.update((row.id, row) for row in part)
        if len(part) == limit and not overlaps:
            raise Unavailable(
                f"the ledger has more than {2 * limit} accounts of kind {kind.word} for {node}, "
                "which cannot all be listed: no rebuild can be sure that no balance is lost"
            )
    return list(rows.values())


def _holds_something(row: LedgerAccount) -> bool:
    return bool(row.debits_posted or row.credits_posted or row.debits_pending or row.credits_pending)


def _explain(unnamed: list[LedgerAccount]) -> str:
    lines = [
        f"  {_kind(row.code)} {row.id:032x}, ledger {row.ledger}: {row.debits_posted} debits and "
        f"{row.credits_posted} credits, pending {row.debits_pending} and {row.credits_pending}"
        for row in unnamed
    ]
    listed = "\n".join(lines)
    return (
        f"the ledger holds balances of accounts that the configuration does not name:\n{listed}\n"
        "Add the peers and accounts that they belong to, with the asset that they had, and try again."
    )


def _kind(code: int) -> str:
    try:
        return Kind(code).word
    except ValueError:
        return f"code {code}"


def _book(rows: list[LedgerAccount], names: dict[int, Holder], holders: Sequence[Holder]) -> Book:
    """The book with the ledger's posted balances. Raises Unavailable when they make none."""
    book = Book()
    there = {names[row.id]: row for row in rows if row.id in names}
    for kind, name, asset in holders:
        book.open(kind, name, asset)
    book.take_log()
    for account in book.accounts():
        row = there.pop((account.kind, account.name, account.asset), None)
        if row is not None:
            if row.ledger != ledger_number(account.asset):
                raise Unavailable(
                    f"{account.name} stands in ledger {row.ledger}, not that of {account.asset}"
                )
            account.debits_posted, account.credits_posted = row.debits_posted, row.credits_posted
    for (kind, name, asset), row in there.items():
        # What the book does not keep must not be missing from its sums.
        if row.debits_posted != row.credits_posted:
            raise Unavailable(
                f"{kind.word} {name} {asset} has {row.debits_posted} debits and {row.credits_posted} credits "
                "in the ledger, and the book has no such account: restore the journal from a backup"
            )
    for asset, sums in book.totals().items():
        if sums.debits_posted != sums.credits_posted:
            raise Unavailable(
                f"the ledger's balances in {asset} do not add up: {sums.debits_posted} debits, "
                f"{sums.credits_posted} credits. It is damaged: restore it from a backup"
            )
    return book


def book_there(directory: Path, node: str) -> Book | None:
    """What the journal that is in `directory` says; None when there is none, or it cannot be read."""
    if not (directory / FILE).exists():
        return None
    try:
        store = Store(directory, node, "always")
    except Unavailable:
        return None
    try:
        return recovery.recover(store, 0).book
    except Unavailable:
        return None
    finally:
        store.close()


async def _remember_settled(ledger: Ledger, node: str, book: Book) -> None:
    """The newest settlements, so that none is booked again."""
    found: list[tuple[int, bytes, Settled]] = []
    holders = {
        account_id(node, account.kind, account.name, account.asset): account.number
        for account in book.accounts()
        if account.number >= 0
    }
    for asset in book.totals():
        limit = min(ledger.batch_max, SETTLEMENTS_REMEMBERED_MAX)
        ident = account_id(node, Kind.SETTLEMENT, Kind.SETTLEMENT.word, asset)
        rows = await ledger.account_transfers(AccountQuery(account_id=ident, limit=limit, reversed=True))
        for row in rows:
            by_us = row.credit_account_id == ident
            holder = holders.get(row.debit_account_id if by_us else row.credit_account_id)
            if row.code == Code.SETTLEMENT and holder is not None:
                key = row.user_data_128.to_bytes(16, "little")
                found.append((row.timestamp, key, (holder, row.amount, by_us)))
    newest = sorted(found)[-SETTLEMENTS_REMEMBERED_MAX:]
    book.settled = {key: settled for _, key, settled in newest}


async def carry_out(plan: Plan, ledger: Ledger, directory: Path, sync: str) -> Path | None:
    """Do it; where the journal that was there is now. Raises Unavailable."""
    await orphans.void(ledger, plan.orphans, time.time_ns() // 1_000_000)
    journal_id = _write(plan, directory / _NEW, sync)
    kept = _replace(directory)
    await mark(ledger, plan.node, journal_account_id(plan.node, journal_id))
    return kept


def _write(plan: Plan, directory: Path, sync: str) -> int:
    """A journal with nothing but the book, in `directory`; its id."""
    for left in directory.glob(f"{FILE}*"):
        # From a rebuild that was interrupted; nothing ever ran on it.
        left.unlink()
    store = Store(directory, plan.node, sync)
    with closing(store):
        here = Checkpoint(0, snapshot.dump(plan.book))
        store.commit(
            None,
            [
                set_checkpoint(recovery.BOOK, here),
                set_checkpoint(recovery.LEDGER, here),
                set_meta(recovery.DEPARTED, "0"),
            ],
        )
        return store.journal_id


def _replace(directory: Path) -> Path | None:
    """Put the new journal in the place of the old one, which is kept. Raises Unavailable."""
    new, old = directory / _NEW / FILE, directory / FILE
    kept: Path | None = None
    try:
        if old.exists():
            kept = _unused(directory)
            for suffix in ("-wal", "-shm"):
                with suppress(FileNotFoundError):
                    Path(f"{old}{suffix}").rename(f"{kept}{suffix}")
            old.rename(kept)
        _merge(new)
        new.rename(old)
        (directory / _NEW / "lock").unlink(missing_ok=True)
        with suppress(OSError):
            (directory / _NEW).rmdir()
        file = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)
    except OSError as error:
        raise Unavailable(f"{directory}: {error.strerror}") from error
    return kept


def _unused(directory: Path) -> Path:
    number = 1
    while (path := directory / f"journal.lost-{number}.sqlite3").exists():
        number += 1
    return path


def _merge(path: Path) -> None:
    """Bring what SQLite keeps beside the file into it."""
    try:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        raise Unavailable(f"{path}: {error}") from error
    if Path(f"{path}-wal").exists() and Path(f"{path}-wal").stat().st_size:
        raise Unavailable(f"{path}: another program has it open")


@contextmanager
def held(lock: int) -> Iterator[None]:
    """The directory's lock for as long as this lasts."""
    try:
        yield
    finally:
        os.close(lock)
