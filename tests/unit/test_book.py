"""The book: double entry, pending and posted, and a credit limit that in-flight value counts against.

`tests/property/test_book_properties.py` holds the invariants over any order of events.
"""

import pytest

from connector.core.book import Account, Book, Totals
from connector.core.chart import Kind
from connector.core.entries import OUTGOING, Side
from connector.core.rates import Asset

PACKET, NOW_MS = bytes(range(16)), 1_767_268_800_000
USD, EUR = Asset("USD", 2), Asset("EUR", 2)


def state(account: Account) -> tuple[int, int, int, int]:
    """(debits posted, credits posted, debits pending, credits pending)."""
    return (account.debits_posted, account.credits_posted, account.debits_pending, account.credits_pending)


def pair(limit: int = 1_000, target: Asset = USD) -> tuple[Book, Account, Account]:
    book = Book()
    return book, book.open(Kind.PEER, "alice", USD, limit), book.open(Kind.PEER, "bob", target, limit)


def test_a_packet_is_pending_then_posted() -> None:
    book, alice, bob = pair()
    reservation = book.reserve(alice, bob, 100, 3, 97, PACKET, NOW_MS)
    assert reservation is not None
    assert [state(alice), state(bob), state(alice.fees)] == [(0, 0, 100, 0), (0, 0, 0, 97), (0, 0, 0, 3)]
    assert book.totals() == {USD: Totals(0, 0, 100, 100)}
    book.commit(reservation, NOW_MS)
    assert [state(alice), state(bob), state(alice.fees)] == [(100, 0, 0, 0), (0, 97, 0, 0), (0, 3, 0, 0)]
    assert book.totals() == {USD: Totals(100, 100, 0, 0)}


def test_who_owes_is_told_by_the_sign() -> None:
    book, alice, bob = pair()
    reservation = book.reserve(alice, bob, 100, 0, 100, PACKET, NOW_MS)
    assert reservation is not None
    book.commit(reservation, NOW_MS)
    assert (alice.net, bob.net) == (100, -100)
    assert repr(alice) == "<peer alice USD/2 net 100>"
    assert repr(bob) == "<peer bob USD/2 net -100>"


def test_a_reject_leaves_nothing_moved() -> None:
    book, alice, bob = pair(target=EUR)
    before = [state(account) for account in book.accounts()]
    reservation = book.reserve(alice, bob, 100, 3, 90, PACKET, NOW_MS)
    assert reservation is not None
    book.void(reservation, NOW_MS)
    assert [state(account) for account in book.accounts()] == before
    assert alice.available == 1_000


def test_an_exchange_books_both_its_sides() -> None:
    book, alice, bob = pair(target=EUR)
    reservation = book.reserve(alice, bob, 100, 2, 90, PACKET, NOW_MS)
    assert reservation is not None
    assert book.totals() == {USD: Totals(0, 0, 100, 100), EUR: Totals(0, 0, 90, 90)}
    assert state(alice.exchange) == (0, 0, 0, 98)
    assert state(bob.exchange) == (0, 0, 90, 0)
    book.commit(reservation, NOW_MS)
    assert book.totals() == {USD: Totals(100, 100, 0, 0), EUR: Totals(90, 90, 0, 0)}
    assert [alice.net, alice.fees.net, alice.exchange.net] == [100, -2, -98]
    assert [bob.net, bob.fees.net, bob.exchange.net] == [-90, 0, 90]


def test_the_credit_limit_is_reached_and_not_passed() -> None:
    book, alice, bob = pair(100)
    assert book.reserve(alice, bob, 101, 0, 101, PACKET, NOW_MS) is None
    assert book.totals() == {USD: Totals(0, 0, 0, 0)}
    assert book.reserve(alice, bob, 100, 0, 100, PACKET, NOW_MS) is not None
    assert alice.available == 0
    assert book.reserve(alice, bob, 1, 0, 1, PACKET, NOW_MS) is None


def test_value_in_flight_counts_before_it_is_fulfilled_and_after() -> None:
    book, alice, bob = pair(100)
    first = book.reserve(alice, bob, 60, 0, 60, PACKET, NOW_MS)
    assert first is not None
    assert book.reserve(alice, bob, 41, 0, 41, PACKET, NOW_MS) is None
    book.commit(first, NOW_MS)
    assert alice.available == 40
    assert book.reserve(alice, bob, 41, 0, 41, PACKET, NOW_MS) is None
    second = book.reserve(alice, bob, 40, 0, 40, PACKET, NOW_MS)
    assert second is not None
    book.void(second, NOW_MS)
    assert alice.available == 40


def test_what_we_owe_makes_room_only_once_it_is_posted() -> None:
    book, alice, bob = pair(100)
    back = book.reserve(bob, alice, 100, 0, 100, PACKET, NOW_MS)
    assert back is not None
    # What alice may earn is not hers yet.
    assert alice.available == 100
    assert book.reserve(alice, bob, 101, 0, 101, PACKET, NOW_MS) is None
    book.commit(back, NOW_MS)
    assert alice.available == 200
    assert book.reserve(alice, bob, 200, 0, 200, PACKET, NOW_MS) is not None


def test_without_credit_only_what_was_earned_is_spent() -> None:
    book, alice, bob = pair(0)
    assert book.reserve(alice, bob, 1, 0, 1, PACKET, NOW_MS) is None
    assert alice.available == 0


def test_a_child_may_pay_itself() -> None:
    book, alice, _ = pair(100)
    reservation = book.reserve(alice, alice, 50, 1, 49, PACKET, NOW_MS)
    assert reservation is not None
    assert state(alice) == (0, 0, 50, 49)
    book.commit(reservation, NOW_MS)
    assert state(alice) == (50, 49, 0, 0)
    assert alice.net == 1


def test_a_reservation_resolved_twice_is_a_bug() -> None:
    book, alice, bob = pair()
    reservation = book.reserve(alice, bob, 100, 3, 97, PACKET, NOW_MS)
    assert reservation is not None
    book.commit(reservation, NOW_MS)
    with pytest.raises(AssertionError):
        book.void(reservation, NOW_MS)


def test_entries_that_do_not_balance_are_a_bug() -> None:
    book, alice, bob = pair()
    with pytest.raises(AssertionError):
        book.reserve(alice, bob, 100, 3, 98, PACKET, NOW_MS)


def test_an_account_is_one_per_kind_name_and_asset() -> None:
    book = Book()
    alice = book.open(Kind.PEER, "alice", USD, 5)
    assert book.open(Kind.PEER, "alice", USD) is alice
    assert book.open(Kind.LOCAL, "alice", USD) is not alice
    euros = book.open(Kind.PEER, "alice", EUR)
    assert euros is not alice
    assert euros.fees is not alice.fees
    kinds = [(account.kind, account.name, account.asset) for account in book.accounts()]
    assert kinds == [
        (Kind.PEER, "alice", USD),
        (Kind.LOCAL, "alice", USD),
        (Kind.PEER, "alice", EUR),
        (Kind.FEES, "fees", USD),
        (Kind.EXCHANGE, "exchange", USD),
        (Kind.SETTLEMENT, "settlement", USD),
        (Kind.LOSSES, "losses", USD),
        (Kind.FEES, "fees", EUR),
        (Kind.EXCHANGE, "exchange", EUR),
        (Kind.SETTLEMENT, "settlement", EUR),
        (Kind.LOSSES, "losses", EUR),
    ]


def test_what_is_owed_in_doubt_counts_toward_the_threshold() -> None:
    book = Book()
    alice = book.open(Kind.PEER, "alice", USD, 10_000)
    bob = book.open(Kind.PEER, "bob", USD, 0, threshold=150)
    for side, reached in ((Side.OWED, []), (Side.OPEN, []), (Side.OWED, [bob])):
        held = book.reserve(alice, bob, 90, 0, 90, bytes(16), 0)
        assert held is not None
        book.doubt(held, Side.OPEN, side, 1)
        assert [account for account, _ in book.reached] == reached
    book.reached.clear()
    book.settle(bob, 170, bytes(16), by_us=True, now_ms=2)
    [open_number] = [number for number, doubt in book.doubts.items() if doubt.outgoing_side is Side.OPEN]
    bob.threshold = 100
    bob.arm()
    book.close(open_number, OUTGOING, owed=True, now_ms=3)
    assert [account for account, _ in book.reached] == [bob]
    assert bob.was_reached
