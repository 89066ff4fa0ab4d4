"""What TigerBeetle answers to transfers, as pure functions on what one request touches.

Checks stand in TigerBeetle's order, and the first that fails is the answer.
Not taken, by assertion: timeouts of pending transfers, balancing and closing
transfers, imported events. The connector sends none.

Ids are compared as their 16 octets; amounts are integers.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from connector.core.transfers import LINKED, PENDING, POST_PENDING, VOID_PENDING
from connector.ledger.chains import CREATED, in_chains
from connector.ledger.layouts import CREDITS_MUST_NOT_EXCEED_DEBITS, DEBITS_MUST_NOT_EXCEED_CREDITS, U128_MAX
from connector.ledger.status import RECORDED, TransferStatus
from connector.limits import U64_MAX

#: Balancing debit and credit, closing debit and credit, imported.
_NOT_TAKEN: Final = 0b1_1111_0000
_RESERVED: Final = 0xFFFF & ~0b1_1111_1111
_RESOLVING: Final = POST_PENDING | VOID_PENDING

_ZERO: Final = bytes(16)
_INT_MAX: Final = b"\xff" * 16

#: Debits pending and posted, credits pending and posted.
Balances = tuple[int, int, int, int]


class Row(NamedTuple):
    """A transfer, in the order of `core.transfers.LAYOUT`."""

    id: bytes
    debit_account_id: bytes
    credit_account_id: bytes
    amount_low: int
    amount_high: int
    pending_id: bytes
    user_data_128: bytes
    user_data_64: int
    user_data_32: int
    timeout: int
    ledger: int
    code: int
    flags: int
    timestamp: int

    @property
    def amount(self) -> int:
        """In the asset's smallest unit."""
        return self.amount_high << 64 | self.amount_low


class Account:
    """What transfers need to know of an account.

    `key` is when it was made: unique, and never 0. `record` is as it was loaded.
    """

    __slots__ = ("balances", "flags", "key", "ledger", "record")

    def __init__(self, key: int, ledger: int, flags: int, record: bytes, balances: Balances) -> None:
        self.key = key
        self.ledger = ledger
        self.flags = flags
        self.record = record
        self.balances = balances


class Change(NamedTuple):
    """One transfer that was created, and what it made of its accounts."""

    row: Row
    debit: Account
    debit_before: Balances
    debit_after: Balances
    credit: Account
    credit_before: Balances
    credit_after: Balances
    #: The pending transfer that it posted or voided.
    resolved: Row | None


class State:
    """All that exists of what a request names, and what the request changes."""

    def __init__(
        self,
        accounts: dict[bytes, Account],
        transfers: dict[bytes, Row],
        failed: set[bytes],
        resolved: dict[bytes, int],
    ) -> None:
        self.accounts = accounts
        self.transfers = transfers
        #: Ids that are used up by a refusal.
        self.failed = failed
        #: POST_PENDING or VOID_PENDING of each pending transfer that was resolved, by its id.
        self.resolved = resolved
        self.changes: list[Change] = []
        self.newly_failed: list[bytes] = []

    def roll_back(self, mark: int) -> None:
        """Undo all changes but the first `mark`."""
        for change in reversed(self.changes[mark:]):
            change.debit.balances = change.debit_before
            change.credit.balances = change.credit_before
            del self.transfers[change.row.id]
            if change.resolved is not None:
                del self.resolved[change.resolved.id]
        del self.changes[mark:]


def create_transfers(state: State, rows: Sequence[Row], timestamp: int) -> list[int]:
    """A status for each of `rows`; `timestamp` is that of the last, those before count up to it."""
    first = timestamp - len(rows) + 1

    def create(index: int) -> int:
        row = rows[index]
        status = _create(state, row, first + index)
        if status != CREATED and status in RECORDED:
            # Not undone with its chain.
            state.failed.add(row.id)
            state.newly_failed.append(row.id)
        return int(status)

    return in_chains(
        [row.flags & LINKED for row in rows], create, lambda: len(state.changes), state.roll_back
    )


def _create(state: State, row: Row, timestamp: int) -> int:
    flags = row.flags
    assert not flags & _NOT_TAKEN, "the embedded ledger takes no balancing, closing or imported transfers"
    assert row.timeout == 0, "the embedded ledger takes no timeouts"
    if row.timestamp != 0:
        return TransferStatus.TIMESTAMP_MUST_BE_ZERO
    if flags & _RESERVED:
        return TransferStatus.RESERVED_FLAG
    if row.id == _ZERO:
        return TransferStatus.ID_MUST_NOT_BE_ZERO
    if row.id == _INT_MAX:
        return TransferStatus.ID_MUST_NOT_BE_INT_MAX
    existing = state.transfers.get(row.id)
    if existing is not None:
        return _exists(state, row, existing)
    if row.id in state.failed:
        return TransferStatus.ID_ALREADY_FAILED
    if flags & _RESOLVING:
        return _resolve(state, row, timestamp)
    refused = _malformed(row)
    if refused is not None:
        return refused
    return _move(state, row, timestamp)


def _malformed(row: Row) -> int | None:
    debit, credit = row.debit_account_id, row.credit_account_id
    if debit == _ZERO:
        return TransferStatus.DEBIT_ACCOUNT_ID_MUST_NOT_BE_ZERO
    if debit == _INT_MAX:
        return TransferStatus.DEBIT_ACCOUNT_ID_MUST_NOT_BE_INT_MAX
    if credit == _ZERO:
        return TransferStatus.CREDIT_ACCOUNT_ID_MUST_NOT_BE_ZERO
    if credit == _INT_MAX:
        return TransferStatus.CREDIT_ACCOUNT_ID_MUST_NOT_BE_INT_MAX
    if credit == debit:
        return TransferStatus.ACCOUNTS_MUST_BE_DIFFERENT
    if row.pending_id != _ZERO:
        return TransferStatus.PENDING_ID_MUST_BE_ZERO
    if row.ledger == 0:
        return TransferStatus.LEDGER_MUST_NOT_BE_ZERO
    if row.code == 0:
        return TransferStatus.CODE_MUST_NOT_BE_ZERO
    return None


def _move(state: State, row: Row, timestamp: int) -> int:
    """Post a well-formed transfer, or set it aside as pending."""
    debit = state.accounts.get(row.debit_account_id)
    if debit is None:
        return TransferStatus.DEBIT_ACCOUNT_NOT_FOUND
    credit = state.accounts.get(row.credit_account_id)
    if credit is None:
        return TransferStatus.CREDIT_ACCOUNT_NOT_FOUND
    if debit.ledger != credit.ledger:
        return TransferStatus.ACCOUNTS_MUST_HAVE_THE_SAME_LEDGER
    if row.ledger != debit.ledger:
        return TransferStatus.TRANSFER_MUST_HAVE_THE_SAME_LEDGER_AS_ACCOUNTS
    amount = row.amount_high << 64 | row.amount_low
    refused = _unaffordable(row.flags, amount, debit, credit)
    if refused is not None:
        return refused
    debit_before, credit_before = debit.balances, credit.balances
    debits_pending, debits_posted, credits_pending, credits_posted = debit_before
    if row.flags & PENDING:
        debit.balances = (debits_pending + amount, debits_posted, credits_pending, credits_posted)
        debits_pending, debits_posted, credits_pending, credits_posted = credit_before
        credit.balances = (debits_pending, debits_posted, credits_pending + amount, credits_posted)
    else:
        debit.balances = (debits_pending, debits_posted + amount, credits_pending, credits_posted)
        debits_pending, debits_posted, credits_pending, credits_posted = credit_before
        credit.balances = (debits_pending, debits_posted, credits_pending, credits_posted + amount)
    posted = state.transfers[row.id] = Row._make((*row[:-1], timestamp))
    state.changes.append(
        Change(posted, debit, debit_before, debit.balances, credit, credit_before, credit.balances, None)
    )
    return CREATED


def _unaffordable(flags: int, amount: int, debit: Account, credit: Account) -> int | None:
    debits_pending, debits_posted, _, credits_posted_of_debit = debit.balances
    _, debits_posted_of_credit, credits_pending, credits_posted = credit.balances
    debits = debits_pending + debits_posted + amount
    credits = credits_pending + credits_posted + amount
    # No part of a sum overflows unless the sum does.
    if debits > U128_MAX or credits > U128_MAX:
        if flags & PENDING:
            if amount + debits_pending > U128_MAX:
                return TransferStatus.OVERFLOWS_DEBITS_PENDING
            if amount + credits_pending > U128_MAX:
                return TransferStatus.OVERFLOWS_CREDITS_PENDING
        if amount + debits_posted > U128_MAX:
            return TransferStatus.OVERFLOWS_DEBITS_POSTED
        if amount + credits_posted > U128_MAX:
            return TransferStatus.OVERFLOWS_CREDITS_POSTED
        return TransferStatus.OVERFLOWS_DEBITS if debits > U128_MAX else TransferStatus.OVERFLOWS_CREDITS
    if debit.flags & DEBITS_MUST_NOT_EXCEED_CREDITS and debits > credits_posted_of_debit:
        return TransferStatus.EXCEEDS_CREDITS
    if credit.flags & CREDITS_MUST_NOT_EXCEED_DEBITS and credits > debits_posted_of_credit:
        return TransferStatus.EXCEEDS_DEBITS
    return None


def _resolve(state: State, row: Row, timestamp: int) -> int:
    """Post or void a pending transfer, which gives what `row` leaves open."""
    refused = _malformed_resolution(row)
    if refused is not None:
        return refused
    pending = state.transfers.get(row.pending_id)
    if pending is None:
        return TransferStatus.PENDING_TRANSFER_NOT_FOUND
    amount = _amount_resolved(row, pending)
    refused = _unfit(state, row, pending, amount)
    if refused is not None:
        return refused
    debit = state.accounts[pending.debit_account_id]
    credit = state.accounts[pending.credit_account_id]
    debit_before, credit_before = debit.balances, credit.balances
    posted = amount if row.flags & POST_PENDING else 0
    debits_pending, debits_posted, credits_pending, credits_posted = debit_before
    debit.balances = (
        debits_pending - pending.amount,
        debits_posted + posted,
        credits_pending,
        credits_posted,
    )
    debits_pending, debits_posted, credits_pending, credits_posted = credit_before
    credit.balances = (
        debits_pending,
        debits_posted,
        credits_pending - pending.amount,
        credits_posted + posted,
    )
    made = state.transfers[row.id] = row._replace(
        debit_account_id=pending.debit_account_id,
        credit_account_id=pending.credit_account_id,
        amount_low=amount & U64_MAX,
        amount_high=amount >> 64,
        user_data_128=_or(row.user_data_128, pending.user_data_128),
        user_data_64=row.user_data_64 or pending.user_data_64,
        user_data_32=row.user_data_32 or pending.user_data_32,
        ledger=pending.ledger,
        code=pending.code,
        timestamp=timestamp,
    )
    state.resolved[pending.id] = row.flags & _RESOLVING
    state.changes.append(
        Change(made, debit, debit_before, debit.balances, credit, credit_before, credit.balances, pending)
    )
    return CREATED


def _malformed_resolution(row: Row) -> int | None:
    if row.flags & _RESOLVING == _RESOLVING or row.flags & PENDING:
        return TransferStatus.FLAGS_ARE_MUTUALLY_EXCLUSIVE
    if row.pending_id == _ZERO:
        return TransferStatus.PENDING_ID_MUST_NOT_BE_ZERO
    if row.pending_id == _INT_MAX:
        return TransferStatus.PENDING_ID_MUST_NOT_BE_INT_MAX
    if row.pending_id == row.id:
        return TransferStatus.PENDING_ID_MUST_BE_DIFFERENT
    return None


def _amount_resolved(row: Row, pending: Row) -> int:
    """What is posted or voided: a void of 0 and a post of AMOUNT_MAX mean all."""
    all_of_it = 0 if row.flags & VOID_PENDING else U128_MAX
    return pending.amount if row.amount == all_of_it else row.amount


def _unfit(state: State, row: Row, pending: Row, amount: int) -> int | None:
    if not pending.flags & PENDING:
        return TransferStatus.PENDING_TRANSFER_NOT_PENDING
    if row.debit_account_id not in (_ZERO, pending.debit_account_id):
        return TransferStatus.PENDING_TRANSFER_HAS_DIFFERENT_DEBIT_ACCOUNT_ID
    if row.credit_account_id not in (_ZERO, pending.credit_account_id):
        return TransferStatus.PENDING_TRANSFER_HAS_DIFFERENT_CREDIT_ACCOUNT_ID
    if row.ledger not in (0, pending.ledger):
        return TransferStatus.PENDING_TRANSFER_HAS_DIFFERENT_LEDGER
    if row.code not in (0, pending.code):
        return TransferStatus.PENDING_TRANSFER_HAS_DIFFERENT_CODE
    if amount > pending.amount:
        return TransferStatus.EXCEEDS_PENDING_TRANSFER_AMOUNT
    if row.flags & VOID_PENDING and amount < pending.amount:
        return TransferStatus.PENDING_TRANSFER_HAS_DIFFERENT_AMOUNT
    resolved = state.resolved.get(pending.id)
    if resolved == POST_PENDING:
        return TransferStatus.PENDING_TRANSFER_ALREADY_POSTED
    if resolved == VOID_PENDING:
        return TransferStatus.PENDING_TRANSFER_ALREADY_VOIDED
    return None


def _exists(state: State, row: Row, existing: Row) -> int:
    if row.flags != existing.flags:
        return TransferStatus.EXISTS_WITH_DIFFERENT_FLAGS
    if row.pending_id != existing.pending_id:
        return TransferStatus.EXISTS_WITH_DIFFERENT_PENDING_ID
    if row.flags & _RESOLVING:
        # What was left open meant the pending transfer's, also when it is asked again.
        pending = state.transfers[row.pending_id]
        amount = _amount_resolved(row, pending)
        row = row._replace(
            debit_account_id=_or(row.debit_account_id, existing.debit_account_id),
            credit_account_id=_or(row.credit_account_id, existing.credit_account_id),
            amount_low=amount & U64_MAX,
            amount_high=amount >> 64,
            user_data_128=_or(row.user_data_128, pending.user_data_128),
            user_data_64=row.user_data_64 or pending.user_data_64,
            user_data_32=row.user_data_32 or pending.user_data_32,
            ledger=row.ledger or existing.ledger,
            code=row.code or existing.code,
        )
    for status, field in _COMPARED:
        if row[field] != existing[field]:
            return status
    return TransferStatus.EXISTS


def _or(octets: bytes, otherwise: bytes) -> bytes:
    return octets if octets != _ZERO else otherwise


_COMPARED: Final = tuple(
    (status, Row._fields.index(field))
    for status, field in (
        (TransferStatus.EXISTS_WITH_DIFFERENT_DEBIT_ACCOUNT_ID, "debit_account_id"),
        (TransferStatus.EXISTS_WITH_DIFFERENT_CREDIT_ACCOUNT_ID, "credit_account_id"),
        (TransferStatus.EXISTS_WITH_DIFFERENT_AMOUNT, "amount_low"),
        (TransferStatus.EXISTS_WITH_DIFFERENT_AMOUNT, "amount_high"),
        (TransferStatus.EXISTS_WITH_DIFFERENT_USER_DATA_128, "user_data_128"),
        (TransferStatus.EXISTS_WITH_DIFFERENT_USER_DATA_64, "user_data_64"),
        (TransferStatus.EXISTS_WITH_DIFFERENT_USER_DATA_32, "user_data_32"),
        (TransferStatus.EXISTS_WITH_DIFFERENT_LEDGER, "ledger"),
        (TransferStatus.EXISTS_WITH_DIFFERENT_CODE, "code"),
    )
)
