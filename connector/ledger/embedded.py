"""The embedded ledger: the answers of TigerBeetle, from a file on this machine.

What an answer says is on disk before it is given. Calls of SQLite block, and
are made one at a time by `run_blocking`: in a thread, or wherever a test wants
them. A request whose task is cancelled is finished all the same.
"""

import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import trio

from connector.core.transfers import TRANSFER_BYTES, Transfer, unpack
from connector.errors import Unavailable
from connector.ledger import layouts
from connector.ledger.api import AccountQuery, Balance, LedgerAccount, TooMuchData
from connector.ledger.blocking import RunBlocking, in_thread
from connector.ledger.embedded_store import Store
from connector.limits import LEDGER_BATCH_MAX

T = TypeVar("T")

#: Errors of SQLite that are ours, not the file's.
_BUGS: Final = (
    sqlite3.IntegrityError,
    sqlite3.ProgrammingError,
    sqlite3.DataError,
    sqlite3.NotSupportedError,
)


class EmbeddedLedger:
    """`Ledger` in one file; use `open_embedded`."""

    def __init__(self, path: Path, store: Store, run_blocking: RunBlocking) -> None:
        self._path = path
        self._store = store
        self._run_blocking = run_blocking
        self._closed = False

    @property
    def batch_max(self) -> int:
        """The most events, ids or rows of one request."""
        return LEDGER_BATCH_MAX

    async def create_accounts(self, accounts: Sequence[LedgerAccount]) -> list[int]:
        """A status for each. Linked chains must fit a request."""
        statuses: list[int] = []
        for batch in layouts.requests(accounts, LEDGER_BATCH_MAX):
            statuses += await self._ask(partial(self._store.create_accounts, batch))
        return statuses

    async def create_transfers(self, events: bytes) -> Sequence[int]:
        """A status for each; at most `batch_max`."""
        count, rest = divmod(len(events), TRANSFER_BYTES)
        assert rest == 0
        if count > LEDGER_BATCH_MAX:
            raise TooMuchData(f"a request of {count} transfers, where {LEDGER_BATCH_MAX} are taken")
        return await self._ask(lambda: self._store.create_transfers(events))

    async def lookup_accounts(self, ids: Sequence[int]) -> list[LedgerAccount]:
        """Those that exist, in the order of `ids`, which may be any number."""
        return await self._ask(lambda: self._store.lookup_accounts(ids))

    async def lookup_transfers(self, ids: Sequence[int]) -> list[Transfer]:
        """Those that exist, in the order of `ids`, which may be any number."""
        return unpack(await self._ask(lambda: self._store.lookup_transfers(ids)))

    async def query_accounts(
        self, *, user_data_128: int, code: int, limit: int, reversed: bool = False
    ) -> list[LedgerAccount]:
        """Accounts with that user data and code (0: any), in the order they were made."""
        assert limit <= LEDGER_BATCH_MAX
        return layouts.unpack_accounts(
            await self._ask(lambda: self._store.query_accounts(user_data_128, code, limit, reversed))
        )

    async def account_transfers(self, query: AccountQuery) -> list[Transfer]:
        """Transfers of an account, in the order they were posted."""
        assert query.limit <= LEDGER_BATCH_MAX
        return unpack(await self._ask(lambda: self._store.account_transfers(query)))

    async def account_balances(self, query: AccountQuery) -> list[Balance]:
        """Balances over time of an account made with the history flag; empty for others."""
        assert query.limit <= LEDGER_BATCH_MAX
        return layouts.unpack_balances(await self._ask(lambda: self._store.account_balances(query)))

    async def aclose(self) -> None:
        """Close the file, when requests before this one are done."""
        if not self._closed:
            self._closed = True
            with trio.CancelScope(shield=True):
                await self._run_blocking(self._store.close)

    async def _ask(self, call: Callable[[], T]) -> T:
        if self._closed:
            raise Unavailable(f"{self._path}: the ledger was closed")
        return await self._run_blocking(lambda: _translated(self._path, call))


def _translated(path: Path, call: Callable[[], T]) -> T:
    try:
        return call()
    except _BUGS:
        raise
    except sqlite3.Error as error:
        raise Unavailable(f"{path}: {error}") from error
    except Unavailable as error:
        raise Unavailable(f"{path}: {error}") from error


async def open_embedded(
    path: Path, *, run_blocking: RunBlocking | None = None, now_ns: Callable[[], int] = time.time_ns
) -> EmbeddedLedger:
    """The ledger in the file at `path`, which is made if there is none; its directory must exist.

    `run_blocking` is a thread of its own unless it is given. Raises Unavailable
    when the file cannot be read or written, or is no ledger of this version.
    """
    run = run_blocking if run_blocking is not None else in_thread()
    store = await run(lambda: _translated(path, lambda: Store(path, now_ns)))
    return EmbeddedLedger(path, store, run)
