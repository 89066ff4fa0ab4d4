"""An account's history, as the ledger has it: newest first, in pages."""

from enum import StrEnum

import msgspec

from connector.core.transfers import PENDING, VOID_PENDING, Transfer
from connector.ledger.api import AccountQuery, Balance, Ledger

_NS_PER_MS = 1_000_000


class State(StrEnum):
    """What a transfer did."""

    PENDING = "pending"
    #: At once, or after it was pending.
    POSTED = "posted"
    VOIDED = "voided"


class Line(msgspec.Struct, frozen=True):
    """One transfer, seen from the account."""

    transfer: Transfer
    is_debit: bool
    #: The ledger's id of the account on the other side.
    other: int
    state: State
    #: Right after the transfer; None for accounts without history.
    balance: Balance | None


class Page(msgspec.Struct, frozen=True):
    """Lines, and where the next page begins; None when there is none."""

    lines: list[Line]
    cursor: int | None


async def read_page(
    ledger: Ledger, account_id: int, *, from_ms: int = 0, to_ms: int = 0, limit: int, cursor: int = 0
) -> Page:
    """Up to `limit` lines that were posted between two times, 0 being any. Raises Unavailable.

    `cursor` is that of the page before.
    """
    latest = (to_ms + 1) * _NS_PER_MS - 1 if to_ms else 0
    latest = min(latest, cursor) if latest and cursor else latest or cursor
    query = AccountQuery(
        account_id=account_id,
        timestamp_min=from_ms * _NS_PER_MS,
        timestamp_max=latest,
        limit=limit,
        reversed=True,
    )
    if latest and query.timestamp_min > latest:
        return Page([], None)
    transfers = await ledger.account_transfers(query)
    balances = {each.timestamp: each for each in await ledger.account_balances(query)} if transfers else {}
    lines = [_line(account_id, transfer, balances.get(transfer.timestamp)) for transfer in transfers]
    is_last = len(lines) < limit or transfers[-1].timestamp <= max(1, query.timestamp_min)
    return Page(lines, None if is_last else transfers[-1].timestamp - 1)


def _line(account_id: int, transfer: Transfer, balance: Balance | None) -> Line:
    is_debit = transfer.debit_account_id == account_id
    state = State.POSTED
    if transfer.flags & PENDING:
        state = State.PENDING
    elif transfer.flags & VOID_PENDING:
        state = State.VOIDED
    other = transfer.credit_account_id if is_debit else transfer.debit_account_id
    return Line(transfer, is_debit, other, state, balance)
