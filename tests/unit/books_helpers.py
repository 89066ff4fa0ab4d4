"""A book and somebody who enters things into it; what two books have in common; blocking calls in place."""

from collections.abc import Callable
from typing import Any, TypeVar

import trio

from connector.core import entries
from connector.core.book import Account, Book, Reservation
from connector.core.chart import Kind
from connector.core.entries import Side
from connector.core.rates import Asset

T = TypeVar("T")
USD, EUR = Asset("USD", 6), Asset("EUR", 2)
NODE = "test.node"
NOW_MS = 1_767_268_800_000
SIDES = [(incoming, outgoing) for incoming in Side for outgoing in Side]
OPERATIONS = (
    "reserve",
    "reserve",
    "reserve",
    "commit",
    "void",
    "doubt",
    "unrelayed",
    "close",
    "settle",
    "open",
)


async def in_place(call: Callable[[], T], /) -> T:
    """Make a blocking call here and now: nothing else happens meanwhile."""
    await trio.lowlevel.checkpoint()
    return call()


class Cashier:
    """Enters into `book` whatever it is told, as far as that can be."""

    def __init__(self) -> None:
        self.book = Book()
        self.holders = [
            self.book.open(Kind.PEER, "alice", USD, 1_000),
            self.book.open(Kind.PEER, "bob", USD, 10**19),
            self.book.open(Kind.LOCAL, "shop", USD, 10**19),
            self.book.open(Kind.PEER, "erin", EUR, 10**19),
            self.book.open(Kind.PEER, "frank", EUR, 50),
        ]
        self.now_ms = NOW_MS
        #: Packets whose Fulfill may not have left.
        self.fulfilled: list[Reservation] = []
        self.keys: list[bytes] = []
        self.packets = 0

    def step(self, what: str, which: int, other: int, amount: int) -> None:
        """Do `what`; the numbers say with which of the things that there are."""
        self.now_ms += which % 3
        getattr(self, what)(which, other, amount)

    def holder(self, number: int) -> Account:
        return self.holders[number % len(self.holders)]

    def pending(self, number: int) -> Reservation | None:
        held = list(self.book.pending.values())
        return held[number % len(held)] if held else None

    def reserve(self, which: int, other: int, amount: int) -> None:
        incoming, outgoing = self.holder(which), self.holder(other)
        fee = min(which % 4, amount - 1)
        out = amount - fee if incoming.asset == outgoing.asset else amount * 2 % (2**64 - 1) + 1
        self.packets += 1
        packet_id = self.packets.to_bytes(16, "little")
        before = incoming.net + incoming.debits_pending
        held = self.book.reserve(incoming, outgoing, amount, fee, out, packet_id, self.now_ms)
        assert (held is not None) is (before + amount <= incoming.credit_limit)

    def commit(self, which: int, other: int, amount: int) -> None:
        held = self.pending(which)
        if held is not None:
            self.book.commit(held, self.now_ms)
            self.fulfilled.append(held)

    def void(self, which: int, other: int, amount: int) -> None:
        held = self.pending(which)
        if held is not None:
            self.book.void(held, self.now_ms)

    def doubt(self, which: int, other: int, amount: int) -> None:
        held = self.pending(which)
        if held is not None:
            self.book.doubt(held, *SIDES[other % len(SIDES)], self.now_ms)

    def unrelayed(self, which: int, other: int, amount: int) -> None:
        if self.fulfilled:
            self.book.unrelayed(self.fulfilled.pop(which % len(self.fulfilled)), self.now_ms)

    def close(self, which: int, other: int, amount: int) -> None:
        doubts = list(self.book.doubts.values())
        if not doubts:
            return
        doubt = doubts[which % len(doubts)]
        side = entries.INCOMING if doubt.incoming_side is Side.OPEN else entries.OUTGOING
        self.book.close(doubt.number, side, owed=bool(other % 2), now_ms=self.now_ms)

    def settle(self, which: int, other: int, amount: int) -> None:
        key = amount.to_bytes(16, "little")
        done = self.book.settle(self.holder(which), amount, key, by_us=bool(other % 2), now_ms=self.now_ms)
        assert done is (key not in self.keys)
        self.keys.append(key)

    def open(self, which: int, other: int, amount: int) -> None:
        name, asset = f"late{which}", (USD, EUR, Asset("JPY", 0))[other % 3]
        account = self.book.open(Kind.PEER, name, asset, 10**19)
        if account not in self.holders:
            self.holders.append(account)


def picture(book: Book) -> dict[str, Any]:
    """All that a book says, to be compared with what another one does."""
    return {
        "balances": balances(book),
        "doubts at": {(a.kind, a.name, a.asset): a.doubts for a in book.accounts()},
        "pending": {
            held.number: (
                held.time_ms,
                held.packet_id,
                held.incoming.number,
                held.outgoing.number,
                held.amount_in,
                held.fee,
                held.amount_out,
            )
            for held in book.pending.values()
        },
        "doubts": {
            doubt.number: (
                doubt.time_ms,
                doubt.since_ms,
                doubt.packet_id,
                doubt.incoming.number,
                None if doubt.outgoing is None else doubt.outgoing.number,
                doubt.amount_in,
                doubt.amount_out,
                doubt.incoming_side,
                doubt.outgoing_side,
            )
            for doubt in book.doubts.values()
        },
        "next number": book.next_number,
        "settled": list(book.settled),
    }


def balances(book: Book) -> dict[tuple[Kind, str, Asset], tuple[int, int, int, int]]:
    """The balance of each account."""
    return {(a.kind, a.name, a.asset): a.balance() for a in book.accounts()}


def check_balanced(book: Book) -> None:
    """Per asset, debits equal credits, and nothing is below zero."""
    for totals in book.totals().values():
        assert totals.debits_posted == totals.credits_posted
        assert totals.debits_pending == totals.credits_pending
    for account in book.accounts():
        assert min(account.balance()) >= 0
