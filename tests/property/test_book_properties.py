"""The book balances after every step of any history, and no limit is ever passed."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from connector.core.book import Account, Book, Reservation
from connector.core.chart import Kind
from connector.core.rates import Asset

PACKET, NOW_MS = bytes(range(16)), 1_767_268_800_000
ASSETS = (Asset("USD", 2), Asset("USD", 6), Asset("EUR", 2))
LIMITS = (0, 50, 1_000, 10**19)


class Books(RuleBasedStateMachine):
    reservations: Bundle[Reservation] = Bundle("reservations")

    def __init__(self) -> None:
        super().__init__()
        self.book = Book()
        self.holders = [
            self.book.open(Kind.PEER, f"peer{index}", ASSETS[index % 3], limit)
            for index, limit in enumerate(LIMITS * 2)
        ]
        #: What each account should hold: its posted net, and what is pending, kept in another way.
        self.net: dict[int, int] = {}
        self.pending: list[Reservation] = []

    def _net(self, account: Account, change: int) -> None:
        self.net[id(account)] = self.net.get(id(account), 0) + change

    @rule(
        target=reservations,
        source=st.integers(0, 7),
        sink=st.integers(0, 7),
        amount=st.one_of(st.integers(1, 60), st.integers(1, 2**64 - 1)),
        fee=st.integers(0, 5),
        out=st.integers(1, 2**64 - 1),
    )
    def reserve(self, source: int, sink: int, amount: int, fee: int, out: int) -> Any:
        incoming, outgoing = self.holders[source], self.holders[sink]
        fee = min(fee, amount - 1)
        if incoming.asset == outgoing.asset:
            out = amount - fee
        in_flight = sum(entry.amount_in for entry in self.pending if entry.incoming is incoming)
        allowed = self.net.get(id(incoming), 0) + in_flight + amount <= incoming.credit_limit
        reservation = self.book.reserve(incoming, outgoing, amount, fee, out, PACKET, NOW_MS)
        assert (reservation is not None) is allowed
        if reservation is None:
            return multiple()
        self.pending.append(reservation)
        return reservation

    @rule(reservation=consumes(reservations))
    def commit(self, reservation: Reservation) -> None:
        self.pending.remove(reservation)
        self.book.commit(reservation, NOW_MS)
        incoming, outgoing = reservation.incoming, reservation.outgoing
        self._net(incoming, reservation.amount_in)
        self._net(outgoing, -reservation.amount_out)
        self._net(incoming.fees, -reservation.fee)
        if incoming.asset != outgoing.asset:
            self._net(incoming.exchange, reservation.fee - reservation.amount_in)
            self._net(outgoing.exchange, reservation.amount_out)

    @rule(reservation=consumes(reservations))
    def void(self, reservation: Reservation) -> None:
        self.pending.remove(reservation)
        self.book.void(reservation, NOW_MS)

    @invariant()
    def debits_equal_credits_in_every_asset(self) -> None:
        totals = self.book.totals()
        assert set(totals) == set(ASSETS)
        for sums in totals.values():
            assert sums.debits_posted == sums.credits_posted
            assert sums.debits_pending == sums.credits_pending

    @invariant()
    def every_account_holds_what_was_fulfilled_and_what_is_in_flight(self) -> None:
        for account in self.book.accounts():
            assert account.net == self.net.get(id(account), 0)
            assert min(account.debits_posted, account.credits_posted) >= 0
            assert min(account.debits_pending, account.credits_pending) >= 0
        for holder in self.holders:
            assert holder.debits_pending == sum(
                entry.amount_in for entry in self.pending if entry.incoming is holder
            )
            assert holder.credits_pending == sum(
                entry.amount_out for entry in self.pending if entry.outgoing is holder
            )

    @invariant()
    def no_credit_limit_is_passed_in_flight_value_included(self) -> None:
        for holder in self.holders:
            assert holder.net + holder.debits_pending <= holder.credit_limit
            assert holder.available >= 0

    def teardown(self) -> None:
        for reservation in self.pending:
            self.book.void(reservation, NOW_MS)
        for sums in self.book.totals().values():
            assert (sums.debits_pending, sums.credits_pending) == (0, 0)


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=100, stateful_step_count=50)
