"""Accounts, and what holds value in them between two moments: reservations and doubts."""

from collections.abc import Iterator
from typing import Final

import msgspec

from connector.core import entries
from connector.core.chart import Kind
from connector.core.entries import Side
from connector.core.rates import Asset

#: A debt that no sum of 64-bit amounts reaches.
NEVER: Final = 1 << 200


class Account:
    """One balance. Amounts are in the asset's smallest unit."""

    __slots__ = (
        "asset",
        "credit_limit",
        "credits_pending",
        "credits_posted",
        "debits_pending",
        "debits_posted",
        "doubts",
        "exchange",
        "fees",
        "kind",
        "losses",
        "name",
        "number",
        "settlement",
        "threshold",
        "trigger",
        "was_reached",
    )

    def __init__(self, number: int, kind: Kind, name: str, asset: Asset) -> None:
        #: What entries call it; -1 for the accounts of an asset, which follow from the asset.
        self.number = number
        self.kind = kind
        self.name = name
        self.asset = asset
        self.credit_limit = 0
        #: When we owe the holder this much it is time to settle.
        self.threshold = NEVER
        #: The same until it was reached, then NEVER until the debt is below it again.
        self.trigger = NEVER
        self.was_reached = False
        self.debits_posted = 0
        self.credits_posted = 0
        self.debits_pending = 0
        self.credits_pending = 0
        #: Sides of packets in doubt that stand here.
        self.doubts = 0
        #: The accounts of the same asset that are the other side of what is booked here.
        self.fees = self
        self.exchange = self
        self.settlement = self
        self.losses = self

    @property
    def net(self) -> int:
        """What the holder owes us (positive) or we owe the holder (negative), posted only."""
        return self.debits_posted - self.credits_posted

    @property
    def available(self) -> int:
        """How much more the holder may send before the credit limit, in-flight value counted."""
        return self.credit_limit - self.net - self.debits_pending

    @property
    def is_due(self) -> bool:
        """Whether we owe the holder so much that it is time to settle."""
        return -self.net >= self.threshold

    def arm(self) -> None:
        """Watch for the threshold, unless it has been reached already."""
        self.was_reached = self.is_due
        self.trigger = NEVER if self.was_reached else self.threshold

    def balance(self) -> tuple[int, int, int, int]:
        """Debits posted, credits posted, debits pending, credits pending."""
        return self.debits_posted, self.credits_posted, self.debits_pending, self.credits_pending

    def __repr__(self) -> str:
        return f"<{self.kind.word} {self.name} {self.asset} net {self.net}>"


class AssetAccounts:
    """The accounts that each asset has once."""

    __slots__ = ("exchange", "fees", "losses", "settlement")

    def __init__(self, asset: Asset) -> None:
        self.fees = Account(-1, Kind.FEES, "fees", asset)
        self.exchange = Account(-1, Kind.EXCHANGE, "exchange", asset)
        self.settlement = Account(-1, Kind.SETTLEMENT, "settlement", asset)
        self.losses = Account(-1, Kind.LOSSES, "losses", asset)

    def __iter__(self) -> Iterator[Account]:
        return iter((self.fees, self.exchange, self.settlement, self.losses))


class Totals(msgspec.Struct, frozen=True):
    """Sums over all accounts of one asset; in each pair both are equal, always."""

    debits_posted: int
    credits_posted: int
    debits_pending: int
    credits_pending: int


class Reservation(msgspec.Struct, frozen=True, gc=False):
    """One packet's entries while it is in flight."""

    number: int
    time_ms: int
    #: The first 16 octets of the packet's condition.
    packet_id: bytes
    incoming: Account
    outgoing: Account
    amount_in: int
    fee: int
    amount_out: int


class Doubt(msgspec.Struct):
    """A packet that is over, with a side that nobody knows the end of.

    The incoming side is what upstream may owe us (a debit), the outgoing side
    what we may owe downstream (a credit); each stands against `losses`, pending
    while it is open and posted once it is found owed.
    """

    number: int
    #: When the packet was prepared, and when it came to be in doubt.
    time_ms: int
    since_ms: int
    packet_id: bytes
    incoming: Account
    #: None when only the incoming side is in question.
    outgoing: Account | None
    amount_in: int
    amount_out: int
    incoming_side: Side
    outgoing_side: Side

    @classmethod
    def of(cls, held: Reservation, incoming: Side, outgoing: Side, now_ms: int) -> "Doubt":
        """What becomes of a packet in flight."""
        return cls(
            held.number,
            held.time_ms,
            now_ms,
            held.packet_id,
            held.incoming,
            held.outgoing,
            held.amount_in,
            held.amount_out,
            incoming,
            outgoing,
        )

    def side(self, side: int) -> Side:
        """What is known of that side (entries.INCOMING or OUTGOING)."""
        return self.incoming_side if side == entries.INCOMING else self.outgoing_side

    @property
    def is_open(self) -> bool:
        """Whether a side awaits a decision."""
        return Side.OPEN in (self.incoming_side, self.outgoing_side)

    def count(self, change: int) -> None:
        """Add `change` to the count of open sides of each account."""
        if self.incoming_side is Side.OPEN:
            self.incoming.doubts += change
        if self.outgoing_side is Side.OPEN and self.outgoing is not None:
            self.outgoing.doubts += change

    def hold(self) -> None:
        """Enter both sides as they are."""
        if self.incoming_side is Side.OPEN:
            self.incoming.debits_pending += self.amount_in
            self.incoming.losses.credits_pending += self.amount_in
        elif self.incoming_side is Side.OWED:
            self.incoming.debits_posted += self.amount_in
            self.incoming.losses.credits_posted += self.amount_in
        if self.outgoing is None:
            return
        if self.outgoing_side is Side.OPEN:
            self.outgoing.credits_pending += self.amount_out
            self.outgoing.losses.debits_pending += self.amount_out
        elif self.outgoing_side is Side.OWED:
            self.outgoing.credits_posted += self.amount_out
            self.outgoing.losses.debits_posted += self.amount_out

    def decide(self, side: int, *, owed: bool) -> None:
        """Post an open side, or take it back."""
        assert self.side(side) is Side.OPEN
        decided = Side.OWED if owed else Side.CLEAR
        if side == entries.INCOMING:
            account, losses, amount = self.incoming, self.incoming.losses, self.amount_in
            account.debits_pending -= amount
            losses.credits_pending -= amount
            account.debits_posted += amount if owed else 0
            losses.credits_posted += amount if owed else 0
            self.incoming_side = decided
            return
        assert self.outgoing is not None
        account, losses, amount = self.outgoing, self.outgoing.losses, self.amount_out
        account.credits_pending -= amount
        losses.debits_pending -= amount
        account.credits_posted += amount if owed else 0
        losses.debits_posted += amount if owed else 0
        self.outgoing_side = decided
