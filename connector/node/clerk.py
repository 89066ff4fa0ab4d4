"""The clerk: what people ask of the books, and have entered into them.

What is entered is answered for only once it is on disk.
"""

from collections.abc import Callable
from hashlib import sha256
from typing import Literal

import msgspec
import trio

from connector.core import entries
from connector.core.accounts import NEVER, Account, Doubt
from connector.core.chart import Code, Kind, account_id
from connector.core.entries import Side
from connector.core.evidence import evidence
from connector.core.instant import Instant
from connector.core.rates import Asset
from connector.errors import ConnectorError, Unavailable
from connector.ledger import history
from connector.ledger.api import Ledger
from connector.limits import BALANCE_SLICE_ACCOUNTS, BOOKING_TIMEOUT_S
from connector.node.books import Books

Row = dict[str, object]
SIDES = {"incoming": entries.INCOMING, "outgoing": entries.OUTGOING}


class Refused(ConnectorError):
    """What was asked cannot be done; `status` is HTTP's word for why."""

    def __init__(self, status: int, reason: str, where: str = "") -> None:
        super().__init__(reason)
        self.status = status
        #: The field of the request that is wrong.
        self.where = where


class Booked(msgspec.Struct, frozen=True):
    """A settlement, and the account after it."""

    already_booked: bool
    account: Row


class Clerk:
    """Serves one node's people."""

    def __init__(
        self,
        address: str,
        books: Books,
        release: Callable[[], None],
        now: Callable[[], Instant],
    ) -> None:
        """`release` hands what was entered to the journal; see `Pipeline`."""
        self.address = address
        self.books = books
        self._release = release
        self._now = now
        #: Accounts by the ledger's id, and how many of the book's are among them.
        self._named: dict[int, tuple[str, str]] = {}
        self._named_count = 0

    # --- accounts ---

    def accounts(self, name: str = "", kind: str = "", asset: str = "") -> list[Account]:
        """Accounts that fit; an empty word fits all."""
        return [
            account
            for account in self.books.book.accounts()
            if (not name or account.name == name)
            and (not kind or account.kind.word == kind)
            and (not asset or asset in (str(account.asset), account.asset.code))
        ]

    def account(self, name: str, kind: str = "", asset: str = "") -> Account:
        """The account that is meant. Raises Refused when it is none, or one of several."""
        found = self.accounts(name, kind, asset)
        if not found:
            words = " ".join(word for word in (kind, name, asset) if word)
            raise Refused(404, f"no account is called {words!r} here")
        if len(found) > 1:
            raise Refused(400, f"several accounts are called {name!r}: name one of {_choices(found)}")
        return found[0]

    async def page(self, account: Account, *, from_ms: int, to_ms: int, limit: int, cursor: int) -> Row:
        """A page of an account's history. Raises Unavailable."""
        ident = account_id(self.address, account.kind, account.name, account.asset)
        page = await history.read_page(
            self.ledger(), ident, from_ms=from_ms, to_ms=to_ms, limit=limit, cursor=cursor
        )
        await self._name_accounts()
        return {
            "account": describe(account),
            "lines": [self._line(line) for line in page.lines],
            "cursor": None if page.cursor is None else str(page.cursor),
        }

    def ledger(self) -> Ledger:
        """The ledger, if it is there. Raises Refused, Unavailable."""
        poster = self.books.poster
        if poster is None:
            raise Refused(503, "this node keeps no ledger (journal.sync is off)")
        if poster.ledger is None:
            raise Unavailable(f"the ledger is away: {self.books.ledger_status().reason}")
        return poster.ledger

    async def _name_accounts(self) -> None:
        accounts = list(self.books.book.accounts())
        if len(accounts) == self._named_count:
            return
        for index, account in enumerate(accounts):
            ident = account_id(self.address, account.kind, account.name, account.asset)
            self._named[ident] = (account.kind.word, account.name)
            opening = account_id(self.address, Kind.OPENING, "opening", account.asset)
            self._named[opening] = (Kind.OPENING.word, "opening")
            if index % BALANCE_SLICE_ACCOUNTS == 0:
                await trio.lowlevel.checkpoint()
        self._named_count = len(accounts)

    def _line(self, line: history.Line) -> Row:
        transfer, balance = line.transfer, line.balance
        octets = transfer.user_data_128.to_bytes(16, "little").hex() if transfer.user_data_128 else None
        is_packet = transfer.code != Code.SETTLEMENT
        kind, name = self._named.get(line.other, ("unknown", f"{line.other:032x}"))
        return {
            "time_ms": transfer.user_data_64 or None,
            "posted_ms": transfer.timestamp // 1_000_000,
            "transfer": f"{transfer.id:032x}",
            "packet": octets if is_packet else None,
            "settlement": None if is_packet else octets,
            "amount": str(transfer.amount),
            "direction": "debit" if line.is_debit else "credit",
            "code": _code(transfer.code),
            "state": line.state.value,
            "other": {"kind": kind, "name": name},
            "balance": None
            if balance is None
            else {
                "debits_posted": str(balance.debits_posted),
                "credits_posted": str(balance.credits_posted),
                "debits_pending": str(balance.debits_pending),
                "credits_pending": str(balance.credits_pending),
                "net": str(balance.debits_posted - balance.credits_posted),
            },
        }

    # --- settlement ---

    async def settle(self, account: Account, amount: int, reference: str, *, by_us: bool) -> Booked:
        """Book a debt that was paid by other means, once for each reference.

        Raises Refused for accounts that nobody settles, Unavailable when it is not known to be on disk.
        """
        if account.kind not in (Kind.PEER, Kind.LOCAL):
            raise Refused(400, f"{account.name} is no peer's account: nobody settles it", "name")
        self._require_journal()
        key = settlement_key(reference)
        before = self.books.book.settled.get(key)
        if before is not None and before != (account.number, amount, by_us):
            raise Refused(
                409, f"{reference!r} is the reference of another payment, already booked", "reference"
            )
        is_new = self.books.book.settle(account, amount, key, by_us=by_us, now_ms=self._now().wall_ms)
        await self._enter()
        return Booked(not is_new, describe(account))

    # --- what is in doubt ---

    async def decide(self, number: int, side: Literal["incoming", "outgoing"], *, owed: bool) -> Row:
        """Close one side of a packet in doubt; its account after that. Raises Refused, Unavailable."""
        doubt = self.books.book.doubts.get(number)
        if doubt is None:
            raise Refused(404, f"no packet in doubt has number {number}: it may have been decided already")
        which = SIDES[side]
        if doubt.side(which) is not Side.OPEN:
            raise Refused(409, f"the {side} side of packet {number} is not in doubt", "side")
        self._require_journal()
        account = doubt.incoming if which == entries.INCOMING else doubt.outgoing
        assert account is not None, "an open side has an account"
        self.books.book.close(number, which, owed=owed, now_ms=self._now().wall_ms)
        await self._enter()
        return {"number": number, "side": side, "owed": owed, "account": describe(account)}

    # --- on disk ---

    def _require_journal(self) -> None:
        journal = self.books.journal
        if journal is not None and journal.failure:
            raise Unavailable(f"nothing can be booked now, the journal cannot be written: {journal.failure}")

    async def _enter(self) -> None:
        """Hand what was entered to the journal, and wait until it is on disk. Raises Unavailable."""
        self._release()
        journal = self.books.journal
        if journal is None:
            return
        last = journal.appended
        with trio.move_on_after(BOOKING_TIMEOUT_S) as scope:
            await journal.wait_durable(last)
        if scope.cancelled_caught:
            raise Unavailable(
                "it is booked, and not on disk yet: look at the accounts before you ask for it again"
            )


def settlement_key(reference: str) -> bytes:
    """What a settlement is known by."""
    return sha256(reference.encode()).digest()[:16]


def describe(account: Account) -> Row:
    """An account as JSON has it: amounts are decimal strings, since they outgrow JavaScript's numbers."""
    return {
        "name": account.name,
        "kind": account.kind.word,
        "asset": account.asset,
        "debits_posted": str(account.debits_posted),
        "credits_posted": str(account.credits_posted),
        "debits_pending": str(account.debits_pending),
        "credits_pending": str(account.credits_pending),
        "net": str(account.net),
        "credit_limit": str(account.credit_limit),
        "settle_threshold": None if account.threshold == NEVER else str(account.threshold),
        "settlement": "due" if account.is_due else "none",
        "in_doubt": account.doubts,
    }


def describe_doubt(doubt: Doubt) -> Row:
    """A packet in doubt as JSON has it."""
    return {
        "number": doubt.number,
        "packet": doubt.packet_id.hex(),
        "prepared_ms": doubt.time_ms,
        "since_ms": doubt.since_ms,
        "incoming": _side(doubt.incoming, doubt.amount_in, doubt.incoming_side),
        "outgoing": None
        if doubt.outgoing is None
        else _side(doubt.outgoing, doubt.amount_out, doubt.outgoing_side),
        "evidence": evidence(doubt),
    }


def _side(account: Account, amount: int, side: Side) -> Row:
    asset: Asset = account.asset
    return {"peer": account.name, "asset": asset, "amount": str(amount), "state": side.name.lower()}


def _code(code: int) -> str:
    try:
        return Code(code).name.lower()
    except ValueError:
        return str(code)


def _choices(accounts: list[Account]) -> str:
    return ", ".join(f"{account.kind.word} {account.name} {account.asset}" for account in accounts[:8])
