"""What a ledger is to the rest of the connector.

Two rooms implement `Ledger`, with the same answers to the same requests:
`tigerbeetle` and `embedded`. Semantics and status codes are TigerBeetle's.

Every request may raise Unavailable. It then means *unknown*: what was asked
may have been done, or may still be, exactly once; ask the same again.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from connector.core.transfers import Transfer
from connector.errors import Unavailable


class TooMuchData(Unavailable):
    """A request has more events, or asks for more rows, than the ledger takes."""


class LedgerAccount(msgspec.Struct, frozen=True, kw_only=True):
    """An account in the ledger. Balances and `timestamp` (nanoseconds) are 0 in a request."""

    id: int
    user_data_128: int = 0
    user_data_64: int = 0
    user_data_32: int = 0
    ledger: int
    code: int
    flags: int = 0
    debits_pending: int = 0
    debits_posted: int = 0
    credits_pending: int = 0
    credits_posted: int = 0
    timestamp: int = 0


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """An account's balance right after the transfer that was posted at `timestamp`."""

    timestamp: int
    debits_pending: int
    debits_posted: int
    credits_pending: int
    credits_posted: int


class AccountQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which transfers or balances of one account: newest first when `reversed`; times in nanoseconds."""

    account_id: int
    timestamp_min: int = 0
    timestamp_max: int = 0
    limit: int
    debits: bool = True
    credits: bool = True
    reversed: bool = False


class Ledger(Protocol):
    """A double-entry ledger."""

    @property
    def batch_max(self) -> int:
        """The most events, ids or rows of one request."""

    async def create_accounts(self, accounts: Sequence[LedgerAccount]) -> list[int]:
        """A status for each, in order: see `ledger.status.AccountStatus`."""

    async def create_transfers(self, events: bytes) -> Sequence[int]:
        """A status for each of the packed `events`, in order: see `ledger.status.TransferStatus`.

        Raises TooMuchData when they are more than `batch_max`: only callers know where to cut.
        """

    async def lookup_accounts(self, ids: Sequence[int]) -> list[LedgerAccount]:
        """Those that exist, in the order of `ids`."""

    async def lookup_transfers(self, ids: Sequence[int]) -> list[Transfer]:
        """Those that exist, in the order of `ids`."""

    async def query_accounts(
        self, *, user_data_128: int, code: int, limit: int, reversed: bool = False
    ) -> list[LedgerAccount]:
        """Accounts with that user data and code, in the order they were made."""

    async def account_transfers(self, query: AccountQuery) -> list[Transfer]:
        """Transfers of an account, in the order they were posted."""

    async def account_balances(self, query: AccountQuery) -> list[Balance]:
        """Balances over time of an account made with the history flag; empty for others."""

    async def aclose(self) -> None:
        """Let go of the ledger. Requests under way end in Unavailable."""
