"""Any history of a book, cut into requests anywhere, and posted to a real ledger: it holds the book."""

from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.core import entries, snapshot
from connector.core.book import Book
from connector.core.chart import Kind
from connector.core.entries import Side
from connector.core.posting import ENTRY_TRANSFERS_MAX, Posting, Run
from connector.core.transfers import LINKED, POST_PENDING, VOID_PENDING, Transfer, unpack
from connector.ledger.api import Ledger
from connector.ledger.attach import make_accounts
from connector.ledger.embedded import open_embedded
from connector.ledger.outcome import check
from tests.unit.books_helpers import (
    NODE,
    NOW_MS,
    OPERATIONS,
    USD,
    Cashier,
    balances,
    check_balanced,
    in_place,
)

JOURNAL = 0x0123_4567_89AB_CDEF_0123_4567_89AB_CDEF
NUMBERS = st.integers(0, 30)
STEPS = st.lists(
    st.tuples(st.sampled_from(OPERATIONS), NUMBERS, NUMBERS, st.integers(1, 500)), min_size=1, max_size=60
)
#: How many entries are there to be taken when a request is made, and how many transfers it may have.
CUTS = st.lists(st.tuples(st.integers(1, 25), st.integers(ENTRY_TRANSFERS_MAX, 40)), min_size=1, max_size=12)


class Clerk:
    """Posts the log of a book, run by run, and looks at all there is to see after each."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.posting = Posting(NODE, JOURNAL, Book())
        self.requests: list[bytes] = []

    async def post(self, log: list[tuple], transfers_max: int) -> int:  # type: ignore[type-arg]
        """Make one request of `log`, and send it; how many entries it has."""
        again = Posting(NODE, JOURNAL, snapshot.load(snapshot.dump(self.posting.book)))
        run, twin = Run(), Run()
        for _ in self.posting.take(run, log, transfers_max, 3):
            pass
        # Another process makes the same of what was taken, in one go.
        for _ in again.take(twin, log[: run.taken], 1 << 60, 1 << 60):
            pass
        assert (twin.taken, twin.transfers) == (run.taken, run.transfers)
        assert balances(again.book) == balances(self.posting.book)
        assert 0 < run.taken <= len(log)
        assert len(run.transfers) <= transfers_max
        check_chains(run.transfers)
        await make_accounts(self.ledger, self.posting.legs, run.opened)
        request = b"".join(run.transfers)
        if request:
            await check(self.ledger, request, await self.ledger.create_transfers(request))
            self.requests.append(request)
        await self.compare()
        return run.taken

    async def post_all(self, octets: list[bytes], cuts: list[tuple[int, int]]) -> None:
        log = list(entries.decode(b"".join(octets)))
        for number in count():
            if not log:
                return
            size, transfers_max = cuts[number % len(cuts)]
            taken = await self.post(log[:size], transfers_max)
            log = log[taken:]

    async def compare(self) -> None:
        """The ledger holds what the book does."""
        accounts = list(self.posting.book.accounts())
        ids = [self.posting.legs.side(account).id for account in accounts]
        found = {each.id: each for each in await self.ledger.lookup_accounts(ids)}
        for account, ident in zip(accounts, ids, strict=True):
            held = found[ident]
            there = (held.debits_posted, held.credits_posted, held.debits_pending, held.credits_pending)
            assert there == account.balance(), account

    async def resend(self) -> None:
        """Every request, as it was: accepted, and without effect."""
        for request in self.requests:
            await check(self.ledger, request, await self.ledger.create_transfers(request))
        await self.compare()


def check_chains(transfers: list[bytes]) -> None:
    """The legs of one packet are linked to each other, to nothing else, and end in the request."""
    chain: list[Transfer] = []
    for transfer in unpack(b"".join(transfers)):
        chain.append(transfer)
        if transfer.flags & LINKED:
            continue
        assert len({each.user_data_128 for each in chain}) == 1
        assert len({each.id >> 8 for each in chain}) == 1
        chain = []
    assert not chain


def legs_of(requests: list[bytes], packet_id: bytes) -> list[Transfer]:
    found = unpack(b"".join(requests))
    return [each for each in found if each.user_data_128 == int.from_bytes(packet_id, "little")]


Journey = Callable[[Clerk], Awaitable[None]]


@pytest.fixture
def on_ledger(tmp_path: Path) -> Callable[[Journey], None]:
    """Runs a journey on a ledger of its own."""
    numbers = count()

    async def main(journey: Journey) -> None:
        ledger = await open_embedded(tmp_path / f"{next(numbers)}.sqlite3", run_blocking=in_place)
        try:
            await journey(Clerk(ledger))
        finally:
            await ledger.aclose()

    return lambda journey: trio.run(main, journey)


@pytest.fixture(scope="module")
def ledgers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Paths of ledgers that there are not yet."""
    folder, numbers = tmp_path_factory.mktemp("ledgers"), count()
    return lambda: folder / f"{next(numbers)}.sqlite3"


@settings(max_examples=60)
@given(steps=STEPS, cuts=CUTS)
def test_the_ledger_holds_the_book_after_every_request(
    ledgers: Callable[[], Path], steps: list[tuple[str, int, int, int]], cuts: list[tuple[int, int]]
) -> None:
    async def main() -> None:
        ledger = await open_embedded(ledgers(), run_blocking=in_place)
        clerk, cashier = Clerk(ledger), Cashier()
        for index, step in enumerate(steps):
            cashier.step(*step)
            if index % 20 == 19:
                await clerk.post_all(cashier.book.take_log(), cuts)
        await clerk.post_all(cashier.book.take_log(), cuts)
        assert balances(clerk.posting.book) == balances(cashier.book)
        assert clerk.posting.book.next_number == cashier.book.next_number
        check_balanced(clerk.posting.book)
        await clerk.resend()
        await ledger.aclose()

    trio.run(main)


# --- what must not be possible ---


def test_both_legs_never_lie_inside_one_peers_accounts_and_the_balance_says_who_owes(
    on_ledger: Callable[[Journey], None],
) -> None:
    async def journey(clerk: Clerk) -> None:
        cashier = Cashier()
        alice, bob = cashier.holders[:2]
        held = cashier.book.reserve(alice, bob, 100, 0, 100, bytes(16), NOW_MS)
        assert held is not None
        cashier.book.commit(held, NOW_MS)
        await clerk.post_all(cashier.book.take_log(), [(99, 99)])
        side = clerk.posting.legs.side
        owes, is_owed = await clerk.ledger.lookup_accounts([side(alice).id, side(bob).id])
        assert (owes.debits_posted, owes.credits_posted) == (100, 0)
        assert (is_owed.debits_posted, is_owed.credits_posted) == (0, 100)
        back = cashier.book.reserve(bob, alice, 250, 0, 250, bytes(16), NOW_MS)
        assert back is not None
        cashier.book.commit(back, NOW_MS)
        await clerk.post_all(cashier.book.take_log(), [(99, 99)])
        owes, is_owed = await clerk.ledger.lookup_accounts([side(bob).id, side(alice).id])
        assert owes.debits_posted - owes.credits_posted == 150
        assert is_owed.debits_posted - is_owed.credits_posted == -150
        for leg in unpack(b"".join(clerk.requests)):
            assert {leg.debit_account_id, leg.credit_account_id} == {side(alice).id, side(bob).id}

    on_ledger(journey)


@pytest.mark.parametrize("is_sent_before", [True, False])
def test_what_is_forwarded_and_rejected_is_never_posted(
    on_ledger: Callable[[Journey], None], is_sent_before: bool
) -> None:
    async def journey(clerk: Clerk) -> None:
        cashier = Cashier()
        alice, bob = cashier.holders[:2]
        held = cashier.book.reserve(alice, bob, 100, 3, 97, b"p" * 16, NOW_MS)
        assert held is not None
        if is_sent_before:
            await clerk.post_all(cashier.book.take_log(), [(99, 99)])
            assert alice.balance() == (0, 0, 100, 0)
        cashier.book.void(held, NOW_MS)
        await clerk.post_all(cashier.book.take_log(), [(99, 99)])
        assert all(not any(account.balance()) for account in clerk.posting.book.accounts())
        ends = [leg.flags & VOID_PENDING for leg in legs_of(clerk.requests, b"p" * 16)]
        assert list(map(bool, ends)) == ([False, False, True, True] if is_sent_before else [])

    on_ledger(journey)


@pytest.mark.parametrize("is_sent_before", [True, False])
def test_fees_are_booked_with_the_packet_or_not_at_all(
    on_ledger: Callable[[Journey], None], is_sent_before: bool
) -> None:
    async def journey(clerk: Clerk) -> None:
        cashier = Cashier()
        alice, bob = cashier.holders[:2]
        held = cashier.book.reserve(alice, bob, 100, 3, 97, b"p" * 16, NOW_MS)
        assert held is not None
        if is_sent_before:
            await clerk.post_all(cashier.book.take_log(), [(99, 99)])
        cashier.book.commit(held, NOW_MS)
        await clerk.post_all(cashier.book.take_log(), [(99, 99)])
        [fees] = await clerk.ledger.lookup_accounts([clerk.posting.legs.side(alice.fees).id])
        assert (fees.credits_posted, fees.credits_pending, fees.code) == (3, 0, Kind.FEES)
        main, fee = legs_of(clerk.requests, b"p" * 16)[-2:]
        assert (main.amount, fee.amount) == (97, 3)
        assert main.flags & LINKED
        assert not fee.flags & LINKED
        assert bool(main.flags & fee.flags & POST_PENDING) is is_sent_before

    on_ledger(journey)


def test_another_asset_goes_over_two_exchange_accounts_in_one_chain(
    on_ledger: Callable[[Journey], None],
) -> None:
    async def journey(clerk: Clerk) -> None:
        cashier = Cashier()
        alice, erin = cashier.holders[0], cashier.holders[3]
        held = cashier.book.reserve(alice, erin, 100, 2, 7, b"p" * 16, NOW_MS)
        assert held is not None
        await clerk.post_all(cashier.book.take_log(), [(99, ENTRY_TRANSFERS_MAX)])
        legs = legs_of(clerk.requests, b"p" * 16)
        assert [leg.amount for leg in legs] == [98, 7, 2]
        assert [bool(leg.flags & LINKED) for leg in legs] == [True, True, False]
        assert legs[0].ledger == legs[2].ledger != legs[1].ledger
        cashier.book.doubt(held, Side.OPEN, Side.OWED, NOW_MS + 1)
        await clerk.post_all(cashier.book.take_log(), [(99, ENTRY_TRANSFERS_MAX)])
        assert balances(clerk.posting.book) == balances(cashier.book)
        cashier.book.close(held.number, entries.INCOMING, owed=True, now_ms=NOW_MS + 2)
        await clerk.post_all(cashier.book.take_log(), [(99, ENTRY_TRANSFERS_MAX)])
        assert alice.net == 100
        assert erin.net == -7
        await clerk.resend()

    on_ledger(journey)


def test_times_and_ids_are_those_of_the_packet(on_ledger: Callable[[Journey], None]) -> None:
    async def journey(clerk: Clerk) -> None:
        cashier = Cashier()
        alice, bob = cashier.holders[:2]
        held = cashier.book.reserve(alice, bob, 100, 0, 100, b"p" * 16, NOW_MS)
        assert held is not None
        await clerk.post_all(cashier.book.take_log(), [(99, 99)])
        cashier.book.commit(held, NOW_MS + 40)
        await clerk.post_all(cashier.book.take_log(), [(99, 99)])
        pending, posted = legs_of(clerk.requests, b"p" * 16)
        assert (pending.user_data_64, posted.user_data_64) == (NOW_MS, NOW_MS + 40)
        assert posted.pending_id == pending.id
        assert pending.timeout == 0, "the journal owns its end"
        assert alice.asset == USD
        [row] = await clerk.ledger.lookup_accounts([pending.debit_account_id])
        assert row.ledger == pending.ledger == posted.ledger

    on_ledger(journey)


def test_a_packet_back_to_where_it_came_from_is_one_that_the_ledger_takes(
    on_ledger: Callable[[Journey], None],
) -> None:
    """A child may send to itself: no transfer may have one account on both sides."""

    async def journey(clerk: Clerk) -> None:
        cashier = Cashier()
        alice = cashier.holders[0]
        for is_sent_before in (False, True):
            held = cashier.book.reserve(alice, alice, 100, 1, 99, b"p" * 16, NOW_MS)
            assert held is not None
            if is_sent_before:
                await clerk.post_all(cashier.book.take_log(), [(99, 99)])
            cashier.book.commit(held, NOW_MS)
            await clerk.post_all(cashier.book.take_log(), [(99, 99)])
        assert alice.balance() == (200, 198, 0, 0)
        assert alice.exchange.net == 0
        assert balances(clerk.posting.book) == balances(cashier.book)

    on_ledger(journey)
