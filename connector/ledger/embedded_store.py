"""The embedded ledger's file: SQLite, one transaction for each request.

Accounts and transfers stand in it as the 128 octets that TigerBeetle has for
them. Timestamps, in nanoseconds, are unique over both and only grow; they are
the keys, and stand for an account in the rows of its transfers.

All calls block, and must come one after the other, from any thread. Errors of
SQLite come out as they are; no request leaves half of itself behind.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from connector.core.transfers import LAYOUT, PENDING
from connector.errors import Unavailable
from connector.ledger.api import AccountQuery, LedgerAccount
from connector.ledger.embedded_accounts import create_accounts
from connector.ledger.embedded_rules import Account, Balances, Row, State, create_transfers
from connector.ledger.layouts import (
    ACCOUNT,
    BALANCE_TIME,
    HISTORY,
    U128_MAX,
    number,
    pack_account,
    unpack_accounts,
)
from connector.limits import LEDGER_LOCK_TIMEOUT_S

#: "ILPL", so that the file of something else is not taken for a ledger.
_APPLICATION_ID: Final = 0x494C_504C
_SCHEMA_VERSION: Final = 1
_TIMESTAMP_MAX: Final = 2**63 - 1
_CACHE_KIB: Final = 16_384

# An id's octets are reversed in keys: ids are made in the order of time, and so are added at the end.
# A balance is stored without its timestamp, which is a key.
_SCHEMA: Final = f"""
CREATE TABLE account (
    timestamp INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    user_data_128 BLOB NOT NULL,
    code INTEGER NOT NULL,
    record BLOB NOT NULL
);
CREATE INDEX account_by_user_data ON account (user_data_128, code);
CREATE TABLE transfer (
    timestamp INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    debit INTEGER NOT NULL REFERENCES account,
    credit INTEGER NOT NULL REFERENCES account,
    record BLOB NOT NULL
);
CREATE INDEX transfer_by_debit ON transfer (debit);
CREATE INDEX transfer_by_credit ON transfer (credit);
CREATE TABLE resolution (pending INTEGER PRIMARY KEY REFERENCES transfer, flag INTEGER NOT NULL);
CREATE TABLE failed (id BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE balance (
    account INTEGER NOT NULL REFERENCES account,
    timestamp INTEGER NOT NULL REFERENCES transfer,
    record BLOB NOT NULL,
    PRIMARY KEY (account, timestamp)
) WITHOUT ROWID;
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_SCHEMA_VERSION};
"""

_PENDING_STATE: Final = (
    "SELECT t.record, r.flag FROM transfer t LEFT JOIN resolution r ON r.pending = t.timestamp"
)


class Store:
    """The open file."""

    def __init__(self, path: Path, now_ns: Callable[[], int]) -> None:
        """Open the file at `path`, or make it.

        Raises Unavailable when it is not a ledger of this version, sqlite3.Error when SQLite cannot.
        """
        self._now_ns = now_ns
        self._db = sqlite3.connect(
            path, timeout=LEDGER_LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        self._in_max = self._db.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def create_accounts(self, accounts: Sequence[LedgerAccount]) -> list[int]:
        """A status for each."""
        with self._transaction():
            existing = {account.id: account for account in self._accounts(a.id for a in accounts)}
            statuses, made = create_accounts(existing, accounts, self._timestamp(len(accounts)))
            rows = [(a.timestamp, _key(a.id), _key(a.user_data_128), a.code, pack_account(a)) for a in made]
            self._db.executemany("INSERT INTO account VALUES (?, ?, ?, ?, ?)", rows)
        return statuses

    def create_transfers(self, events: bytes) -> list[int]:
        """A status for each."""
        rows = list(map(Row._make, LAYOUT.iter_unpack(events)))
        with self._transaction():
            state = self._load(rows)
            statuses = create_transfers(state, rows, self._timestamp(len(rows)))
            self._save(state)
        return statuses

    def lookup_accounts(self, ids: Sequence[int]) -> list[LedgerAccount]:
        """Those that exist, in the order of `ids`."""
        found = {account.id: account for account in self._accounts(ids)}
        return [found[ident] for ident in ids if ident in found]

    def lookup_transfers(self, ids: Sequence[int]) -> bytes:
        """The records of those that exist, in the order of `ids`."""
        found = dict(self._among("SELECT id, record FROM transfer WHERE id", map(_key, ids)))
        return b"".join([found[_key(ident)] for ident in ids if _key(ident) in found])

    def query_accounts(self, user_data_128: int, code: int, limit: int, descending: bool) -> bytes:
        """The records of accounts with that user data and code, 0 being any."""
        wanted = {"user_data_128 = :user_data": user_data_128, "code = :code": code}
        conditions = " AND ".join([condition for condition, value in wanted.items() if value]) or "true"
        rows = self._db.execute(
            f"SELECT record FROM account WHERE {conditions}"  # noqa: S608
            f" ORDER BY timestamp {_order(descending)} LIMIT :limit",
            {"user_data": _key(user_data_128), "code": code, "limit": limit},
        )
        return b"".join([record for (record,) in rows])

    def account_transfers(self, query: AccountQuery) -> bytes:
        """The records of transfers."""
        return b"".join([record for _, record in self._history("transfer WHERE", query)])

    def account_balances(self, query: AccountQuery) -> bytes:
        """The records of balances."""
        rows = self._history("balance WHERE account = :account AND", query)
        return b"".join([record + BALANCE_TIME.pack(timestamp) for timestamp, record in rows])

    def _prepare(self) -> None:
        self._db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        application = self._db.execute("PRAGMA application_id").fetchone()[0]
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        empty = self._db.execute("SELECT count(*) = 0 FROM sqlite_schema").fetchone()[0]
        if not empty and application != _APPLICATION_ID:
            raise Unavailable("a database of something else, not a ledger")
        if version > _SCHEMA_VERSION:
            raise Unavailable(
                f"written by a newer connector (version {version}, this one knows {_SCHEMA_VERSION})"
            )
        mode = self._db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise Unavailable(f"its file system has no shared memory for SQLite's WAL (journal mode {mode})")
        self._db.execute("PRAGMA synchronous = FULL")
        if empty:
            self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            # Some errors have ended the transaction already.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _timestamp(self, count: int) -> int:
        """The timestamp of the last of `count` events: now, or later when the clock went back."""
        last = self._db.execute(
            "SELECT max(ifnull((SELECT max(timestamp) FROM account), 0),"
            " ifnull((SELECT max(timestamp) FROM transfer), 0))"
        ).fetchone()[0]
        return max(self._now_ns(), int(last) + count)

    def _load(self, rows: Sequence[Row]) -> State:
        """What `rows` name: their transfers, what they resolve, and all accounts of both."""
        named = {row.id for row in rows} | {row.pending_id for row in rows}
        transfers: dict[bytes, Row] = {}
        resolved: dict[bytes, int] = {}
        keys = [ident[::-1] for ident in named]
        for record, flag in self._among(f"{_PENDING_STATE} WHERE t.id", keys):
            row = Row._make(LAYOUT.unpack(record))
            transfers[row.id] = row
            if flag is not None:
                resolved[row.id] = flag
        ids = {row.debit_account_id for row in rows} | {row.credit_account_id for row in rows}
        for row in transfers.values():
            if row.flags & PENDING:
                ids |= {row.debit_account_id, row.credit_account_id}
        accounts = {}
        for (record,) in self._among("SELECT record FROM account WHERE id", [ident[::-1] for ident in ids]):
            accounts[record[:16]] = _account(record)
        failed = {key[::-1] for (key,) in self._among("SELECT id FROM failed WHERE id", keys)}
        return State(accounts, transfers, failed, resolved)

    def _save(self, state: State) -> None:
        changes = state.changes
        self._db.executemany(
            "INSERT INTO transfer VALUES (?, ?, ?, ?, ?)",
            [
                (c.row.timestamp, c.row.id[::-1], c.debit.key, c.credit.key, LAYOUT.pack(*c.row))
                for c in changes
            ],
        )
        self._db.executemany(
            "INSERT INTO resolution VALUES (?, ?)",
            [
                (c.resolved.timestamp, state.resolved[c.resolved.id])
                for c in changes
                if c.resolved is not None
            ],
        )
        self._db.executemany(
            "INSERT INTO failed VALUES (?)", [(ident[::-1],) for ident in state.newly_failed]
        )
        balances: list[tuple[int, int, bytes]] = []
        touched: dict[int, Account] = {}
        for change in changes:
            timestamp = change.row.timestamp
            for account, after in ((change.debit, change.debit_after), (change.credit, change.credit_after)):
                touched[account.key] = account
                if account.flags & HISTORY:
                    balances.append((account.key, timestamp, _packed(after)))
        self._db.executemany("INSERT INTO balance VALUES (?, ?, ?)", balances)
        self._db.executemany(
            "UPDATE account SET record = ? WHERE timestamp = ?",
            [(_record(account), key) for key, account in touched.items()],
        )

    def _accounts(self, ids: Iterable[int]) -> list[LedgerAccount]:
        records = self._among("SELECT record FROM account WHERE id", map(_key, set(ids)))
        return unpack_accounts(b"".join([record for (record,) in records]))

    def _among(self, select: str, keys: Iterable[bytes]) -> Iterator[Any]:
        """The rows of `select` for any number of `keys`."""
        keys = list(keys)
        for start in range(0, len(keys), self._in_max):
            part = keys[start : start + self._in_max]
            yield from self._db.execute(f"{select} IN ({','.join('?' * len(part))})", part)

    def _history(self, source: str, query: AccountQuery) -> list[tuple[int, bytes]]:
        account = self._db.execute(
            "SELECT timestamp FROM account WHERE id = ?", (_key(query.account_id),)
        ).fetchone()
        if account is None or not _valid(query):
            return []
        order = f"ORDER BY timestamp {_order(query.reversed)} LIMIT :limit"
        sides = " UNION ALL ".join(
            f"SELECT * FROM (SELECT timestamp FROM transfer WHERE {side} = :account"  # noqa: S608
            f" AND timestamp BETWEEN :min AND :max {order})"
            for side, wanted in (("debit", query.debits), ("credit", query.credits))
            if wanted
        )
        return self._db.execute(
            f"SELECT timestamp, record FROM {source} timestamp IN ({sides}) {order}",  # noqa: S608
            {
                "account": account[0],
                "min": query.timestamp_min,
                "max": query.timestamp_max or _TIMESTAMP_MAX,
                "limit": query.limit,
            },
        ).fetchall()


def _valid(query: AccountQuery) -> bool:
    """Whether TigerBeetle would take the filter; it answers others with nothing."""
    times = (query.timestamp_min, query.timestamp_max)
    return (
        0 < query.account_id < U128_MAX
        and all(time <= _TIMESTAMP_MAX for time in times)
        and (query.timestamp_max == 0 or query.timestamp_min <= query.timestamp_max)
        and query.limit > 0
        and (query.debits or query.credits)
    )


def _account(record: bytes) -> Account:
    _, *balances, _, _, _, _, ledger, _, flags, timestamp = ACCOUNT.unpack(record)
    debits_pending, debits_posted, credits_pending, credits_posted = map(number, balances)
    return Account(
        timestamp, ledger, flags, record, (debits_pending, debits_posted, credits_pending, credits_posted)
    )


def _record(account: Account) -> bytes:
    """The record with the balances of now, which stand after the id."""
    return account.record[:16] + _packed(account.balances) + account.record[80:]


def _packed(balances: Balances) -> bytes:
    debits_pending, debits_posted, credits_pending, credits_posted = balances
    # One integer of 512 bits is packed faster than four of 128.
    joined = debits_pending | debits_posted << 128 | credits_pending << 256 | credits_posted << 384
    return joined.to_bytes(64, "little")


def _key(ident: int) -> bytes:
    return ident.to_bytes(16, "big")


def _order(descending: bool) -> str:
    return "DESC" if descending else "ASC"
