"""Short ways to say what a test asks of a ledger."""

import random
from itertools import count
from typing import Any

from connector.core.transfers import Transfer, pack
from connector.ledger.api import AccountQuery, Ledger, LedgerAccount
from connector.ledger.status import AccountStatus, TransferStatus

CREATED = TransferStatus.CREATED
EXISTS = TransferStatus.EXISTS
LINKED_EVENT_FAILED = TransferStatus.LINKED_EVENT_FAILED
AMOUNT_MAX = 2**128 - 1
INT_MAX = 2**128 - 1


class Teller:
    """Asks one ledger, with ids that nobody has used."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._ids = count(random.getrandbits(100) << 20 | 1)

    def id(self) -> int:
        """An unused id; each is greater than those before."""
        return next(self._ids)

    async def account(self, **fields: Any) -> int:
        """The id of a new account, in ledger 1 with code 1 unless told otherwise."""
        account = LedgerAccount(**{"id": self.id(), "ledger": 1, "code": 1, **fields})
        assert await self.open(account) == [AccountStatus.CREATED]
        return account.id

    async def open(self, *accounts: LedgerAccount) -> list[AccountStatus]:
        """Ask for `accounts` in one request."""
        return [AccountStatus(status) for status in await self.ledger.create_accounts(accounts)]

    def transfer(self, debit: int, credit: int, amount: int = 10, **fields: Any) -> Transfer:
        """A transfer with a new id, in ledger 1 with code 1 unless told otherwise."""
        return Transfer(
            **{
                "id": self.id(),
                "debit_account_id": debit,
                "credit_account_id": credit,
                "amount": amount,
                "ledger": 1,
                "code": 1,
                **fields,
            }
        )

    async def post(self, *transfers: Transfer) -> list[TransferStatus]:
        """Ask for `transfers` in one request."""
        statuses = await self.ledger.create_transfers(b"".join(map(pack, transfers)))
        return [TransferStatus(status) for status in statuses]

    async def balances(self, account: int) -> tuple[int, int, int, int]:
        """Debits pending and posted, credits pending and posted."""
        (found,) = await self.ledger.lookup_accounts([account])
        return found.debits_pending, found.debits_posted, found.credits_pending, found.credits_posted

    async def transfers_of(self, account: int, **fields: Any) -> list[int]:
        """The ids of an account's transfers."""
        query = AccountQuery(**{"account_id": account, "limit": 100, **fields})
        return [transfer.id for transfer in await self.ledger.account_transfers(query)]
