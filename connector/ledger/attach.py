"""Attaching: is this the ledger that the journal feeds?

A ledger says so by an account that holds nothing: its id follows from node and
journal, and it is made last. The newest of them names the journal that the
ledger belongs to.

    our marker is the newest      the ledger is ours, if it has our newest transfer, and,
                                  once every request is answered, every balance agrees
    no marker, none of our accounts holds anything
                                  a new ledger: one transfer per balance from `opening`
                                  brings it to where the journal is; asks first, unless
                                  the journal has nothing to bring
    anything else                 another journal's ledger: refused, until
                                  `connector ledger rebuild`
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from hashlib import sha256

import trio

from connector.core.accounts import Account
from connector.core.chart import Code, Kind, account_id, journal_account_id, ledger_number, node_number
from connector.core.legs import Legs
from connector.core.posting import Posting
from connector.core.rates import Asset
from connector.core.transfers import LINKED, TRANSFER_BYTES, Transfer, pack
from connector.errors import Unavailable
from connector.ledger.api import Ledger, LedgerAccount
from connector.ledger.journal import Journal
from connector.ledger.outcome import LedgerRefusal, check
from connector.ledger.status import AccountStatus
from connector.ledger.store import Statement, set_meta
from connector.limits import ATTACH_SLICE_ACCOUNTS

#: Key: an opening was begun, so what stands in the ledger may be its first part.
_OPENING = "opening"
_HISTORY = 1 << 3
#: The marker needs a ledger number, and no asset.
_MARKER_LEDGER = 1


class ForeignLedger(Unavailable):
    """The ledger is not the one that the journal feeds."""


class EmptyLedger(ForeignLedger):
    """The ledger holds nothing, and the journal does: a person has to say that it is meant to be new."""


class UnknownBooks(ForeignLedger):
    """The ledger holds balances that the journal does not know: what is owed is not what we think."""


async def attach(
    ledger: Ledger,
    posting: Posting,
    journal: Journal,
    newest: str,
    *,
    fills_empty: bool,
    begin: Callable[[Statement], Awaitable[None]],
) -> None:
    """Recognise `ledger`, or bring it to where `posting` is.

    Raises ForeignLedger, LedgerRefusal, Unavailable. `newest` is the newest
    transfer that the ledger confirmed, in hex. Before a new ledger is opened,
    `begin(statement)` records where `posting` is, along with `statement`.
    """
    node, journal_id = posting.legs.node, journal.store.journal_id
    marker = journal_account_id(node, journal_id)
    markers = await ledger.query_accounts(
        user_data_128=node_number(node), code=Kind.JOURNAL, limit=1, reversed=True
    )
    accounts = list(posting.book.accounts())
    if markers and markers[0].id != marker:
        raise UnknownBooks(
            f"the ledger holds the books of {node} from another journal than {journal.store.path}: "
            "put that journal back, or stop the node and run 'connector ledger rebuild'"
        )
    if markers:
        await _check_newest(ledger, newest)
        if journal.store.meta(_OPENING):
            await journal.execute(set_meta(_OPENING, ""))
        return
    await _check_unused(ledger, posting.legs, accounts, journal)
    if not fills_empty and any(any(account.balance()) for account in accounts):
        raise EmptyLedger(
            "the ledger is empty, and the journal has balances: if it is meant to be new, "
            "run 'connector ledger open', else restore it"
        )
    await begin(set_meta(_OPENING, "begun"))
    await make_accounts(ledger, posting.legs, accounts)
    await _open(ledger, posting, journal_id)
    await mark(ledger, node, marker)
    await journal.execute(set_meta(_OPENING, ""))


async def _check_newest(ledger: Ledger, newest: str) -> None:
    """A ledger that was restored from a backup lacks what was posted since."""
    if newest and not await ledger.lookup_transfers([int.from_bytes(bytes.fromhex(newest), "little")]):
        raise ForeignLedger(
            "the ledger lacks transfers that it had confirmed (was it restored from a backup?): restore the "
            "newest one; 'connector ledger rebuild' would give up what was posted since"
        )


async def _check_unused(ledger: Ledger, legs: Legs, accounts: Sequence[Account], journal: Journal) -> None:
    if journal.store.meta(_OPENING):
        return
    # Ours by name, and ours by their mark: a new journal does not know yet what accounts it will have.
    rows = await ledger.lookup_accounts([legs.side(account).id for account in accounts])
    rows += await ledger.query_accounts(
        user_data_128=node_number(legs.node), code=0, limit=ledger.batch_max, reversed=True
    )
    for found in rows:
        if found.debits_posted or found.credits_posted or found.debits_pending or found.credits_pending:
            raise UnknownBooks(
                f"the ledger holds balances of {legs.node} that {journal.store.path} knows nothing of: "
                "put their journal back, or stop the node and run 'connector ledger rebuild'"
            )


async def agree(ledger: Ledger, posting: Posting) -> None:
    """Compare every balance with what was posted, now that every request is answered.

    Makes accounts that are missing. Raises ForeignLedger when a posted balance
    differs, or something pending is missing: the journal, or the ledger, is an
    older one put back. What is pending besides is the doctor's to find.
    """
    legs = posting.legs
    accounts = list(posting.book.accounts())
    for start in range(0, len(accounts), ATTACH_SLICE_ACCOUNTS):
        part = accounts[start : start + ATTACH_SLICE_ACCOUNTS]
        found = {row.id: row for row in await ledger.lookup_accounts([legs.side(each).id for each in part])}
        missing = []
        for account in part:
            row = found.get(legs.side(account).id)
            if row is None:
                missing.append(account)
                row = _row(legs, account)
            debits, credits_, pending_debits, pending_credits = account.balance()
            if (row.debits_posted, row.credits_posted) != (debits, credits_) or (
                row.debits_pending < pending_debits or row.credits_pending < pending_credits
            ):
                raise UnknownBooks(
                    f"ledger and journal disagree on {account.kind.word} {account.name} {account.asset}: "
                    f"{row.debits_posted} debits and {row.credits_posted} credits in the ledger, {debits} "
                    f"and {credits_} were posted. Was one of them restored from a backup? "
                    "Put the newest back; 'connector ledger rebuild' makes a journal of what the ledger holds"
                )
        if missing:
            await make_accounts(ledger, legs, missing)
        await trio.lowlevel.checkpoint()


async def make_accounts(ledger: Ledger, legs: Legs, accounts: Iterable[Account]) -> None:
    """Make what is not there, with the accounts of each asset. Raises LedgerRefusal, Unavailable."""
    wanted = {legs.side(account).id: _row(legs, account) for account in _with_others(accounts)}
    for asset in {account.asset for account in accounts}:
        opening = _opening_row(legs.node, asset)
        wanted[opening.id] = opening
    rows = list(wanted.values())
    statuses = await ledger.create_accounts(rows)
    for row, status in zip(rows, statuses, strict=True):
        if status not in (AccountStatus.CREATED, AccountStatus.EXISTS):
            found = await ledger.lookup_accounts([row.id])
            raise LedgerRefusal(
                f"the ledger refused an account ({AccountStatus(status).name.lower()}); "
                f"sent: {row!r}; the ledger holds: {found[0] if found else 'nothing'!r}"
            )


def _with_others(accounts: Iterable[Account]) -> Iterable[Account]:
    for account in accounts:
        yield from (account, account.fees, account.exchange, account.settlement, account.losses)


def _row(legs: Legs, account: Account) -> LedgerAccount:
    side = legs.side(account)
    return LedgerAccount(
        id=side.id,
        user_data_128=node_number(legs.node),
        ledger=side.ledger,
        code=side.code,
        flags=_HISTORY if side.has_history else 0,
    )


def _opening_row(node: str, asset: Asset) -> LedgerAccount:
    return LedgerAccount(
        id=account_id(node, Kind.OPENING, "opening", asset),
        user_data_128=node_number(node),
        ledger=ledger_number(asset),
        code=Kind.OPENING,
    )


async def _open(ledger: Ledger, posting: Posting, journal_id: int) -> None:
    """Bring every balance into a new ledger, and what is pending."""
    events: list[bytes] = []
    for account in posting.book.accounts():
        side = posting.legs.side(account)
        opening = _opening_row(posting.legs.node, account.asset).id
        for word, amount, debit, credit in (
            ("debits", account.debits_posted, side.id, opening),
            ("credits", account.credits_posted, opening, side.id),
        ):
            if amount:
                ident = sha256(f"opening\0{journal_id}\0{side.id}\0{word}".encode()).digest()[:16]
                transfer = Transfer(
                    id=int.from_bytes(ident, "little"),
                    debit_account_id=debit,
                    credit_account_id=credit,
                    amount=amount,
                    user_data_32=side.tag,
                    ledger=side.ledger,
                    code=Code.OPENING,
                )
                events.append(pack(transfer))
    events += posting.held()
    for request in _requests(events, ledger.batch_max):
        await check(ledger, request, await ledger.create_transfers(request))


def _requests(events: list[bytes], batch_max: int) -> Iterable[bytes]:
    """Requests of at most `batch_max`, with no chain torn."""
    request: list[bytes] = []
    chain: list[bytes] = []
    for event in events:
        chain.append(event)
        if event[_FLAGS] & LINKED:
            continue
        if len(request) + len(chain) > batch_max:
            yield b"".join(request)
            request = []
        request += chain
        chain = []
    if request:
        yield b"".join(request)


#: Where the low octet of a packed transfer's flags stands.
_FLAGS = TRANSFER_BYTES - 10


async def mark(ledger: Ledger, node: str, marker: int) -> None:
    """Say in `ledger` that it belongs to the journal of that marker. Raises LedgerRefusal, Unavailable."""
    row = LedgerAccount(id=marker, user_data_128=node_number(node), ledger=_MARKER_LEDGER, code=Kind.JOURNAL)
    statuses = await ledger.create_accounts([row])
    if statuses[0] not in (AccountStatus.CREATED, AccountStatus.EXISTS):
        raise LedgerRefusal(f"the ledger refused to be marked ({AccountStatus(statuses[0]).name.lower()})")
