"""Whatever is entered into a book: it balances, its log makes it again, and so does its checkpoint."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from connector.core import snapshot
from connector.core.book import Book
from connector.core.entries import Side
from tests.unit.books_helpers import Cashier, check_balanced, picture

NUMBERS = st.integers(0, 30)
AMOUNTS = st.one_of(st.integers(1, 60), st.integers(1, 2**64 - 1))


class Books(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.cashier = Cashier()
        self.book = self.cashier.book
        self.log: list[bytes] = []
        self.follower = Book()

    @rule(which=NUMBERS, other=NUMBERS, amount=AMOUNTS)
    def reserve(self, which: int, other: int, amount: int) -> None:
        self.cashier.step("reserve", which, other, amount)

    @rule(which=NUMBERS)
    def commit(self, which: int) -> None:
        self.cashier.step("commit", which, 0, 0)

    @rule(which=NUMBERS)
    def void(self, which: int) -> None:
        self.cashier.step("void", which, 0, 0)

    @rule(which=NUMBERS, sides=st.integers(0, 8))
    def doubt(self, which: int, sides: int) -> None:
        before = len(self.book.doubted)
        held = self.cashier.pending(which)
        self.cashier.step("doubt", which, sides, 0)
        assert len(self.book.doubted) == before + (held is not None)

    @rule(which=NUMBERS)
    def unrelayed(self, which: int) -> None:
        self.cashier.step("unrelayed", which, 0, 0)

    @rule(which=NUMBERS, owed=st.integers(0, 1))
    def close(self, which: int, owed: int) -> None:
        self.cashier.step("close", which, owed, 0)

    @rule(which=NUMBERS, by_us=st.integers(0, 1), amount=st.integers(1, 9))
    def settle(self, which: int, by_us: int, amount: int) -> None:
        # Few amounts, of which the keys are made: many come twice.
        self.cashier.step("settle", which, by_us, amount)

    @rule(which=st.integers(0, 3), other=st.integers(0, 2))
    def open(self, which: int, other: int) -> None:
        self.cashier.step("open", which, other, 0)

    @invariant()
    def debits_equal_credits_in_every_asset(self) -> None:
        check_balanced(self.book)

    @invariant()
    def what_is_pending_is_what_is_in_flight_or_in_doubt(self) -> None:
        held, doubts = self.book.pending.values(), self.book.doubts.values()
        for account in self.cashier.holders:
            owed_by = [d for d in doubts if d.incoming is account and d.incoming_side is Side.OPEN]
            owed_to = [d for d in doubts if d.outgoing is account and d.outgoing_side is Side.OPEN]
            assert account.doubts == len(owed_by) + len(owed_to)
            assert account.debits_pending == (
                sum(h.amount_in for h in held if h.incoming is account) + sum(d.amount_in for d in owed_by)
            )
            assert account.credits_pending == (
                sum(h.amount_out for h in held if h.outgoing is account) + sum(d.amount_out for d in owed_to)
            )

    @invariant()
    def a_book_that_follows_the_log_is_equal(self) -> None:
        log = self.book.take_log()
        self.log += log
        self.follower.replay(b"".join(log))
        assert not self.follower.log
        assert picture(self.follower) == picture(self.book)

    @invariant()
    def a_checkpoint_is_equal(self) -> None:
        loaded = snapshot.load(snapshot.dump(self.book))
        assert loaded.log == []
        assert picture(loaded) == picture(self.book)

    def teardown(self) -> None:
        fresh = Book()
        fresh.replay(b"".join(self.log))
        assert picture(fresh) == picture(self.follower)


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=100, stateful_step_count=40)
