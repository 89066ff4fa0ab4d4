"""What the doctor makes of numbers: pure, each finding with its numbers and its advice."""

from typing import TYPE_CHECKING

import msgspec
import pytest
from loguru import logger

from connector.core.accounts import Doubt
from connector.core.book import Book
from connector.core.chart import Kind
from connector.core.entries import Side
from connector.core.events import AccountBalance, AnyEvent, AssetName, LedgerStatus
from connector.core.evidence import evidence
from connector.core.rates import Asset
from connector.ledger.api import LedgerAccount
from connector.limits import (
    DISK_FREE_ERROR_BYTES,
    DISK_FREE_WARN_BYTES,
    DOUBTS_LOGGED_MAX,
    EVENT_SUBSCRIBERS_MAX,
)
from connector.node import diagnosis
from connector.node.announcer import Announcer, account_balance, in_doubt
from connector.node.diagnosis import PeerAnswer, Standing
from connector.telemetry.events import Events

if TYPE_CHECKING:
    from loguru import Message

USD = Asset("USD", 6)
NOW = 1_767_225_600_000


def books() -> Book:
    """Alice owes 1 000, 900 of which bob is owed, at a fee of 100; 50 more are on their way."""
    book = Book()
    alice, bob = (book.open(Kind.PEER, name, USD, 10**9) for name in ("alice", "bob"))
    held = book.reserve(alice, bob, 1_000, 100, 900, b"p" * 16, NOW)
    assert held is not None
    book.commit(held, NOW)
    assert book.reserve(alice, bob, 50, 0, 50, b"q" * 16, NOW) is not None
    return book


def row(account: int, debits: int, credits: int, pending: tuple[int, int] = (0, 0)) -> LedgerAccount:
    return LedgerAccount(
        id=account,
        ledger=7,
        code=1,
        debits_posted=debits,
        credits_posted=credits,
        debits_pending=pending[0],
        credits_pending=pending[1],
    )


def test_a_book_balances_or_says_where_it_does_not() -> None:
    book = books()
    assert diagnosis.totals(book).result == "ok"
    book.numbered(0).debits_posted += 1
    check = diagnosis.totals(book)
    assert check.result == "error"
    assert "USD/6: posted 1001 debits, 1000 credits" in check.explanation


def test_the_ledger_is_compared_posted_and_pending() -> None:
    alice = books().numbered(0)
    assert diagnosis.ledger_equals([(alice, row(1, 1_000, 0, (50, 0)))]).result == "ok"
    for found in (row(1, 1_000, 0), row(1, 999, 0, (50, 0)), None):
        check = diagnosis.ledger_equals([(alice, found)])
        assert check.result == "error"
        assert "peer alice USD/6" in check.explanation
        assert "posted 1000 debits and 0 credits (pending 50 and 0)" in check.explanation


def test_many_differences_are_counted_and_a_few_named() -> None:
    alice = books().numbered(0)
    explanation = diagnosis.ledger_equals([(alice, None)] * 9).explanation
    assert explanation.startswith("9 accounts differ: ")
    assert explanation.endswith("; and 4 more")


def test_ledgers_balance_and_nobody_unknown_has_a_balance() -> None:
    assert diagnosis.ledger_balances([row(1, 5, 0), row(2, 0, 5)], [row(3, 0, 0)]).result == "ok"
    assert diagnosis.ledger_balances([row(1, 5, 0)], []).result == "error"
    stranger = diagnosis.ledger_balances([row(1, 5, 0)], [row(3, 0, 5)])
    assert stranger.result == "error"
    assert "have balances and no name" in stranger.explanation


def test_the_book_is_what_is_replayed() -> None:
    book = books()
    live = [(each, each.balance()) for each in book.accounts()]
    held = set(book.pending), set(book.doubts)
    assert diagnosis.journal_equals(live, books(), held, 3).result == "ok"
    assert (
        "0 in the book, 1 replayed" in diagnosis.journal_equals(live, books(), (set(), set()), 3).explanation
    )
    live[1] = (book.numbered(1), (0, 0, 0, 0))
    check = diagnosis.journal_equals(live, books(), held, 3)
    assert check.result == "error"
    assert (
        "peer bob USD/6: book 0 debits and 0 credits, replayed 0 debits and 900 credits" in check.explanation
    )


@pytest.mark.parametrize(
    ("free", "result"),
    [
        (DISK_FREE_WARN_BYTES, "ok"),
        (DISK_FREE_WARN_BYTES - 1, "warning"),
        (DISK_FREE_ERROR_BYTES - 1, "error"),
    ],
)
def test_a_disk_fills_up_before_it_is_full(free: int, result: str) -> None:
    journal, disk = diagnosis.journal_health("always", "", 2_048, free)
    assert (journal.result, disk.result) == ("ok", result)
    assert "2.0 KiB" in journal.explanation


def test_a_journal_that_fails_or_may_lose_a_second_says_so() -> None:
    failing, _ = diagnosis.journal_health("always", "disk full", 0, 1 << 40)
    assert (failing.result, failing.explanation) == ("error", "cannot be written: disk full")
    interval, _ = diagnosis.journal_health("interval", "", 0, 1 << 40)
    assert interval.result == "warning"
    assert "power loss" in interval.explanation


@pytest.mark.parametrize(
    ("theirs", "pending", "result"),
    [
        (PeerAnswer("bob", USD, credits=1_000), 0, "ok"),
        # What was taken back on one side only.
        (PeerAnswer("bob", USD, debits=300, credits=1_300), 0, "ok"),
        (PeerAnswer("bob", USD, credits=900), 0, "error"),
        (PeerAnswer("bob", USD, credits=900), 100, "ok"),
        (PeerAnswer("bob", USD, credits=900), 99, "error"),
        (PeerAnswer("bob", USD, credits=900, pending_credits=60), 40, "ok"),
        (PeerAnswer("bob", USD, error="it is silent"), 0, "warning"),
    ],
)
def test_a_peer_agrees_but_for_what_is_in_flight(theirs: PeerAnswer, pending: int, result: str) -> None:
    standing = Standing((1_000, 0, pending, 0))
    check = diagnosis.peer_agrees(theirs, standing, standing)
    assert (check.name, check.result) == ("peer bob", result)


def test_what_moved_while_a_peer_was_asked_is_no_difference() -> None:
    before, after = Standing((1_000, 0, 0, 0)), Standing((1_500, 0, 0, 0))
    assert diagnosis.peer_agrees(PeerAnswer("bob", USD, credits=1_200), before, after).result == "ok"
    check = diagnosis.peer_agrees(PeerAnswer("bob", USD, credits=1_600), before, after)
    assert check.result == "error"
    assert "our net is 1500 (1500 debits and 0 credits), by its books 1600" in check.explanation
    assert "100 apart" in check.explanation


def doubt(incoming: Side, outgoing: Side, *, is_unrelayed: bool = False) -> Doubt:
    book = books()
    alice, bob = book.numbered(0), None if is_unrelayed else book.numbered(1)
    return Doubt(9, NOW, NOW + 5, b"p" * 16, alice, bob, 1_000, 900, incoming, outgoing)


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (doubt(Side.OPEN, Side.OPEN), "stopped while it was in flight: no Fulfill was received from bob"),
        (doubt(Side.OPEN, Side.OWED), "a valid Fulfill was received from bob"),
        (doubt(Side.CLEAR, Side.OPEN), "no Fulfill was received; alice owes nothing for it"),
        (doubt(Side.OWED, Side.OPEN), "no Fulfill was received; alice was decided to owe it"),
        (doubt(Side.OPEN, Side.CLEAR), "bob is owed nothing for it, as was decided; alice may owe it"),
        (doubt(Side.OPEN, Side.CLEAR, is_unrelayed=True), "the Fulfill may not have left for alice"),
    ],
)
def test_evidence_says_what_is_known(found: Doubt, says: str) -> None:
    said = evidence(found)
    assert says in said
    assert "in doubt since 2026-01-01T00:00:00.005Z" in said


def test_the_value_in_doubt_is_summed_by_side() -> None:
    check = diagnosis.doubts([doubt(Side.OPEN, Side.OPEN), doubt(Side.OPEN, Side.OWED)])
    assert check.result == "warning"
    assert check.explanation == "2 packets (units of USD/6: up to 2000 owed to us, up to 900 owed by us)"
    assert diagnosis.doubts([]).result == "ok"


# --- events ---


def test_events_say_their_type_and_amounts_in_decimal() -> None:
    book = books()
    encoded = msgspec.json.decode(msgspec.json.encode(account_balance(book.numbered(0))))
    assert encoded == {
        "type": "ACCOUNT_BALANCE",
        "peer": "alice",
        "kind": "peer",
        "asset": {"code": "USD", "scale": 6},
        "debits": "1000",
        "credits": "0",
        "debits_pending": "50",
        "credits_pending": "0",
        "net": "1000",
        "credit_limit": "1000000000",
        "settle_threshold": None,
        "settlement": "none",
    }
    assert msgspec.convert(encoded, AnyEvent) == account_balance(book.numbered(0))
    assert isinstance(msgspec.convert(encoded, AnyEvent), AccountBalance)


def test_each_open_side_is_in_doubt_by_itself() -> None:
    both = in_doubt(doubt(Side.OPEN, Side.OPEN))
    assert [(event.side, event.peer, event.amount) for event in both] == [
        ("incoming", "alice", "1000"),
        ("outgoing", "bob", "900"),
    ]
    assert in_doubt(doubt(Side.OWED, Side.CLEAR)) == []
    assert both[0].asset == AssetName("USD", 6)


def test_listeners_are_told_until_they_cancel() -> None:
    events, heard = Events(), list[AnyEvent]()
    assert not events
    (event, *_) = in_doubt(doubt(Side.OPEN, Side.OPEN))
    events.emit(event)
    cancel = events.subscribe(heard.append)
    assert events
    events.emit(event)
    cancel()
    cancel()
    events.emit(event)
    assert heard == [event]
    assert not events
    for _ in range(EVENT_SUBSCRIBERS_MAX):
        events.subscribe(lambda event: None)
    with pytest.raises(AssertionError):
        events.subscribe(lambda event: None)


def healthy() -> LedgerStatus:
    return LedgerStatus(state="healthy", entries=0, octets=0, age_ms=0, reason="")


def test_what_is_due_or_in_doubt_is_a_line_with_its_fields_and_a_flood_is_counted() -> None:
    book, records = books(), list["Message"]()
    announcer = Announcer("node", book, healthy, Events())
    sink = logger.add(records.append, level="INFO")
    bob = book.open(Kind.PEER, "bob", USD, 0, threshold=800)
    announcer.reached(bob, None)
    announcer.doubted([doubt(Side.OPEN, Side.OWED)] * (DOUBTS_LOGGED_MAX + 3))
    logger.remove(sink)
    due, first, *_, last = (message.record for message in records)
    assert due["level"].name == "INFO"
    assert due["message"] == "settlement is due: we owe 900 units of USD/6"
    assert (due["extra"]["peer"], due["extra"]["net"], due["extra"]["threshold"]) == ("bob", "-900", "800")
    assert first["level"].name == "WARNING"
    assert (first["extra"]["side"], first["extra"]["amount"]) == ("incoming", "1000")
    assert len(records) == 1 + DOUBTS_LOGGED_MAX + 1
    assert last["message"].startswith("3 packets more in doubt")
