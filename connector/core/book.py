"""The book: every balance of this node, in double entry, true while it runs.

An account is seen from our side: debits are what its holder owes us for,
credits what we owe the holder for; `net = debits - credits` is positive when
the holder owes us.

A packet of `amount_in` that leaves as `amount_out` after our `fee`:

    same asset       debit incoming amount_in
                     credit outgoing amount_out, fees fee
    another asset    debit incoming amount_in        debit exchange' amount_out
                     credit exchange amount_in - fee,   credit outgoing' amount_out
                     fees fee

It is pending from `reserve` until `commit` posts it or `void` takes it back.

Invariants: per asset, debits equal credits, posted and pending alike; a
reservation is refused if it would bring `net + pending debits` of the incoming
account over its credit limit; pending sums never go below zero.
"""

from collections.abc import Iterator

import msgspec

from connector.core.rates import Asset


class Account:
    """One balance. Amounts are in the asset's smallest unit."""

    __slots__ = (
        "asset",
        "credit_limit",
        "credits_pending",
        "credits_posted",
        "debits_pending",
        "debits_posted",
        "exchange",
        "fees",
        "kind",
        "name",
    )

    def __init__(self, kind: str, name: str, asset: Asset, credit_limit: int = 0) -> None:
        self.kind = kind
        self.name = name
        self.asset = asset
        self.credit_limit = credit_limit
        self.debits_posted = 0
        self.credits_posted = 0
        self.debits_pending = 0
        self.credits_pending = 0
        #: The accounts of the same asset that take the fee and the other side of an exchange.
        self.fees = self
        self.exchange = self

    @property
    def net(self) -> int:
        """What the holder owes us (positive) or we owe the holder (negative), posted only."""
        return self.debits_posted - self.credits_posted

    @property
    def available(self) -> int:
        """How much more the holder may send before the credit limit, in-flight value counted."""
        return self.credit_limit - self.net - self.debits_pending

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name} {self.asset} net {self.net}>"


class Reservation(msgspec.Struct, frozen=True, gc=False):
    """One packet's entries while it is in flight."""

    incoming: Account
    outgoing: Account
    amount_in: int
    fee: int
    amount_out: int


class Totals(msgspec.Struct, frozen=True):
    """Sums over all accounts of one asset; in each pair both are equal, always."""

    debits_posted: int
    credits_posted: int
    debits_pending: int
    credits_pending: int


class Book:
    """All accounts of a node."""

    def __init__(self) -> None:
        self._accounts: dict[tuple[str, str, Asset], Account] = {}
        self._fees: dict[Asset, Account] = {}
        self._exchange: dict[Asset, Account] = {}

    def open(self, kind: str, name: str, asset: Asset, credit_limit: int = 0) -> Account:
        """The account of that kind, name and asset, made when it is not there."""
        key = (kind, name, asset)
        account = self._accounts.get(key)
        if account is not None:
            return account
        if asset not in self._fees:
            self._fees[asset] = Account("fees", "fees", asset)
            self._exchange[asset] = Account("exchange", "exchange", asset)
        account = self._accounts[key] = Account(kind, name, asset, credit_limit)
        account.fees = self._fees[asset]
        account.exchange = self._exchange[asset]
        return account

    def reserve(
        self,
        incoming: Account,
        outgoing: Account,
        amount_in: int,
        fee: int,
        amount_out: int,
    ) -> Reservation | None:
        """Make a packet's entries pending; None when the credit limit forbids it."""
        held = incoming.debits_pending + amount_in
        if incoming.debits_posted - incoming.credits_posted + held > incoming.credit_limit:
            return None
        incoming.debits_pending = held
        outgoing.credits_pending += amount_out
        incoming.fees.credits_pending += fee
        if incoming.exchange is not outgoing.exchange:
            incoming.exchange.credits_pending += amount_in - fee
            outgoing.exchange.debits_pending += amount_out
        else:
            assert amount_in == fee + amount_out
        return Reservation(incoming, outgoing, amount_in, fee, amount_out)

    def commit(self, reservation: Reservation) -> None:
        """Post what was pending: the packet is fulfilled."""
        incoming, outgoing = reservation.incoming, reservation.outgoing
        amount_in, fee, amount_out = reservation.amount_in, reservation.fee, reservation.amount_out
        assert incoming.debits_pending >= amount_in
        assert outgoing.credits_pending >= amount_out
        incoming.debits_pending -= amount_in
        incoming.debits_posted += amount_in
        outgoing.credits_pending -= amount_out
        outgoing.credits_posted += amount_out
        incoming.fees.credits_pending -= fee
        incoming.fees.credits_posted += fee
        if incoming.exchange is not outgoing.exchange:
            incoming.exchange.credits_pending -= amount_in - fee
            incoming.exchange.credits_posted += amount_in - fee
            outgoing.exchange.debits_pending -= amount_out
            outgoing.exchange.debits_posted += amount_out

    def void(self, reservation: Reservation) -> None:
        """Take back what was pending: the packet is rejected or has expired."""
        incoming, outgoing = reservation.incoming, reservation.outgoing
        amount_in, fee, amount_out = reservation.amount_in, reservation.fee, reservation.amount_out
        assert incoming.debits_pending >= amount_in
        assert outgoing.credits_pending >= amount_out
        incoming.debits_pending -= amount_in
        outgoing.credits_pending -= amount_out
        incoming.fees.credits_pending -= fee
        if incoming.exchange is not outgoing.exchange:
            incoming.exchange.credits_pending -= amount_in - fee
            outgoing.exchange.debits_pending -= amount_out

    def accounts(self) -> Iterator[Account]:
        """Every account: holders' first, then fees and exchange of each asset."""
        yield from self._accounts.values()
        yield from self._fees.values()
        yield from self._exchange.values()

    def totals(self) -> dict[Asset, Totals]:
        """The sums per asset, for the invariant and for people."""
        sums: dict[Asset, list[int]] = {}
        for account in self.accounts():
            row = sums.setdefault(account.asset, [0, 0, 0, 0])
            row[0] += account.debits_posted
            row[1] += account.credits_posted
            row[2] += account.debits_pending
            row[3] += account.credits_pending
        return {asset: Totals(*row) for asset, row in sums.items()}
