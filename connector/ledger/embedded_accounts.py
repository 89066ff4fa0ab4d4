"""What TigerBeetle answers to accounts, as pure functions on those that exist.

Not taken, by assertion: imported accounts, and such as are made closed.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from connector.ledger.api import LedgerAccount
from connector.ledger.chains import CREATED, in_chains
from connector.ledger.layouts import (
    CREDITS_MUST_NOT_EXCEED_DEBITS,
    DEBITS_MUST_NOT_EXCEED_CREDITS,
    LINKED,
    U128_MAX,
)
from connector.ledger.status import AccountStatus

#: Imported, closed.
_NOT_TAKEN: Final = 0b11_0000
_RESERVED: Final = 0xFFFF & ~0b11_1111
_BOTH_LIMITS: Final = DEBITS_MUST_NOT_EXCEED_CREDITS | CREDITS_MUST_NOT_EXCEED_DEBITS


def create_accounts(
    existing: dict[int, LedgerAccount], accounts: Sequence[LedgerAccount], timestamp: int
) -> tuple[list[int], list[LedgerAccount]]:
    """A status for each of `accounts`, and those that are new; `timestamp` is that of the last."""
    first = timestamp - len(accounts) + 1
    known = dict(existing)
    made: list[LedgerAccount] = []

    def create(index: int) -> int:
        account = accounts[index]
        status = _refusal(known, account)
        if status is not None:
            return int(status)
        new = msgspec.structs.replace(account, timestamp=first + index)
        known[new.id] = new
        made.append(new)
        return CREATED

    def roll_back(mark: int) -> None:
        for account in made[mark:]:
            del known[account.id]
        del made[mark:]

    linked = [account.flags & LINKED for account in accounts]
    return in_chains(linked, create, lambda: len(made), roll_back), made


def _refusal(known: dict[int, LedgerAccount], account: LedgerAccount) -> AccountStatus | None:
    flags = account.flags
    assert not flags & _NOT_TAKEN, "the embedded ledger takes no imported or closed accounts"
    if account.timestamp != 0:
        return AccountStatus.TIMESTAMP_MUST_BE_ZERO
    if flags & _RESERVED:
        return AccountStatus.RESERVED_FLAG
    if account.id == 0:
        return AccountStatus.ID_MUST_NOT_BE_ZERO
    if account.id == U128_MAX:
        return AccountStatus.ID_MUST_NOT_BE_INT_MAX
    if account.id in known:
        return _exists(account, known[account.id])
    if flags & _BOTH_LIMITS == _BOTH_LIMITS:
        return AccountStatus.FLAGS_ARE_MUTUALLY_EXCLUSIVE
    for field, status in _MUST_BE_ZERO:
        if getattr(account, field) != 0:
            return status
    if account.ledger == 0:
        return AccountStatus.LEDGER_MUST_NOT_BE_ZERO
    if account.code == 0:
        return AccountStatus.CODE_MUST_NOT_BE_ZERO
    return None


def _exists(account: LedgerAccount, existing: LedgerAccount) -> AccountStatus:
    for field, status in _COMPARED:
        if getattr(account, field) != getattr(existing, field):
            return status
    return AccountStatus.EXISTS


_MUST_BE_ZERO: Final = (
    ("debits_pending", AccountStatus.DEBITS_PENDING_MUST_BE_ZERO),
    ("debits_posted", AccountStatus.DEBITS_POSTED_MUST_BE_ZERO),
    ("credits_pending", AccountStatus.CREDITS_PENDING_MUST_BE_ZERO),
    ("credits_posted", AccountStatus.CREDITS_POSTED_MUST_BE_ZERO),
)

_COMPARED: Final = (
    ("flags", AccountStatus.EXISTS_WITH_DIFFERENT_FLAGS),
    ("user_data_128", AccountStatus.EXISTS_WITH_DIFFERENT_USER_DATA_128),
    ("user_data_64", AccountStatus.EXISTS_WITH_DIFFERENT_USER_DATA_64),
    ("user_data_32", AccountStatus.EXISTS_WITH_DIFFERENT_USER_DATA_32),
    ("ledger", AccountStatus.EXISTS_WITH_DIFFERENT_LEDGER),
    ("code", AccountStatus.EXISTS_WITH_DIFFERENT_CODE),
)
