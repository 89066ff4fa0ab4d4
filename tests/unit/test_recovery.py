"""What a start makes of a journal: the same book, and in doubt what a crash left open."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.core import entries, snapshot
from connector.core.accounts import Reservation
from connector.core.book import Book
from connector.core.entries import Side
from connector.errors import Unavailable
from connector.ledger import recovery
from connector.ledger.recovery import Recovered, recover
from connector.ledger.store import Batch, Checkpoint, Store, set_checkpoint, set_meta
from tests.unit.books_helpers import NODE, NOW_MS, OPERATIONS, Cashier, check_balanced, picture

NUMBERS = st.integers(0, 30)
STEPS = st.lists(
    st.tuples(st.sampled_from(OPERATIONS), NUMBERS, NUMBERS, st.integers(1, 500)), min_size=1, max_size=40
)


class Desk:
    """A cashier whose entries go to a real journal file."""

    def __init__(self, directory: Path) -> None:
        self.store = Store(directory, NODE, "always")
        self.cashier = Cashier()
        self.book = self.cashier.book
        self.last = 0
        self.write()

    def write(self, departed: int = 0) -> None:
        """One batch of all that is new."""
        log = self.book.take_log()
        if log:
            self.store.commit(Batch(self.last + 1, self.last + len(log), departed, b"".join(log)))
            self.last += len(log)

    def checkpoint(self) -> None:
        self.write()
        here = Checkpoint(self.last, snapshot.dump(self.book))
        departed = set_meta(recovery.DEPARTED, str(self.last))
        self.store.commit(None, [set_checkpoint(recovery.BOOK, here), departed])

    def packet(self, amount: int = 100) -> Reservation:
        alice, bob = self.cashier.holders[:2]
        held = self.book.reserve(alice, bob, amount, 1, amount - 1, amount.to_bytes(16, "big"), NOW_MS)
        assert held is not None
        return held

    def recover(self) -> Recovered:
        self.write()
        return recover(self.store, NOW_MS + 5_000)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_new_journal_is_an_empty_book(tmp_path: Path) -> None:
    recovered = recover(Store(tmp_path, NODE, "always"), NOW_MS)
    assert picture(recovered.book) == picture(Book())
    assert (recovered.last, recovered.replayed, recovered.doubts) == (0, 0, 0)


def test_what_was_in_flight_is_in_doubt_on_both_sides(desk: Desk) -> None:
    held = desk.packet()
    ended = desk.packet(200)
    desk.book.void(ended, NOW_MS)
    recovered = desk.recover()
    assert (recovered.last, recovered.replayed, recovered.doubts) == (8, 8, 1)
    [doubt] = recovered.book.doubts.values()
    assert (doubt.number, doubt.packet_id, doubt.since_ms) == (held.number, held.packet_id, NOW_MS + 5_000)
    assert (doubt.incoming_side, doubt.outgoing_side) == (Side.OPEN, Side.OPEN)
    alice, bob = recovered.book.numbered(0), recovered.book.numbered(1)
    assert alice.balance() == (0, 0, 100, 0)
    assert bob.balance() == (0, 0, 0, 99)
    assert (alice.doubts, bob.doubts) == (1, 1)
    assert alice.fees.balance() == (0, 0, 0, 0), "nothing was earned"
    assert recovered.book.pending == {}
    check_balanced(recovered.book)
    # The doubts are to be written, too: the next start finds no others.
    desk.book = recovered.book
    again = desk.recover()
    assert again.doubts == 0
    assert picture(again.book) == picture(recovered.book)


def test_a_fulfill_that_may_not_have_left_is_in_doubt_upstream_only(desk: Desk) -> None:
    for amount in (100, 200):
        desk.book.commit(desk.packet(amount), NOW_MS)
        desk.write()
    # The frames of the first are known to have left; this is told along with a later batch.
    desk.book.void(desk.packet(), NOW_MS)
    desk.write(departed=desk.last - 2)
    recovered = desk.recover()
    [doubt] = recovered.book.doubts.values()
    assert (doubt.amount_in, doubt.outgoing) == (200, None)
    assert (doubt.incoming_side, doubt.outgoing_side) == (Side.OPEN, Side.CLEAR)
    alice, bob = recovered.book.numbered(0), recovered.book.numbered(1)
    assert (alice.net, alice.debits_pending) == (100, 200)
    assert (bob.net, bob.credits_pending) == (-298, 0), "what it fulfilled is owed"
    check_balanced(recovered.book)


def test_what_has_left_by_a_mark_of_its_own_is_not_in_doubt(desk: Desk) -> None:
    desk.book.commit(desk.packet(), NOW_MS)
    desk.write()
    desk.store.commit(None, [set_meta(recovery.DEPARTED, str(desk.last))])
    recovered = desk.recover()
    assert recovered.doubts == 0
    assert recovered.book.numbered(0).net == 100


@pytest.mark.parametrize("is_one_batch", [True, False])
def test_a_fulfill_known_to_be_unrelayed_is_not_taken_back_again(desk: Desk, is_one_batch: bool) -> None:
    held = desk.packet()
    desk.book.commit(held, NOW_MS)
    if not is_one_batch:
        desk.write()
    desk.book.unrelayed(held, NOW_MS + 1)
    recovered = desk.recover()
    assert recovered.doubts == 0
    assert picture(recovered.book) == picture(desk.book)
    assert recovered.book.numbered(0).balance() == (100, 100, 100, 0)


def test_a_decided_one_is_not_taken_back_again(desk: Desk) -> None:
    held = desk.packet()
    desk.book.commit(held, NOW_MS)
    desk.book.unrelayed(held, NOW_MS + 1)
    desk.book.close(held.number, entries.INCOMING, owed=True, now_ms=NOW_MS + 2)
    recovered = desk.recover()
    assert recovered.book.doubts == {}
    assert recovered.book.numbered(0).net == 100


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("journals")


@settings(max_examples=60)
@given(before=STEPS, after=STEPS)
def test_checkpoint_and_tail_are_the_whole(
    directories: Path,
    before: list[tuple[str, int, int, int]],
    after: list[tuple[str, int, int, int]],
) -> None:
    desk = Desk(directories / str(len(list(directories.iterdir()))))
    for step in before:
        desk.cashier.step(*step)
        desk.write()
    plain = desk.recover()
    desk.checkpoint()
    for index, step in enumerate(after):
        desk.cashier.step(*step)
        if index % 3 == 0:
            desk.write()
    by_checkpoint = desk.recover()
    assert by_checkpoint.replayed == desk.last - plain.last
    # Without the checkpoint, what was fulfilled before has not left as far as anybody knows.
    whole = Book()
    for batch in desk.store.read_all(0):
        whole.replay(batch.entries)
    assert picture(whole) == picture(desk.book)
    for held in list(desk.book.pending.values()):
        desk.book.doubt(held, Side.OPEN, Side.OPEN, NOW_MS + 5_000)
    known = desk.book.doubts.keys()
    found = by_checkpoint.book.doubts
    assert known <= found.keys()
    assert all(found[number].outgoing is None for number in found.keys() - known)
    check_balanced(by_checkpoint.book)
    desk.store.close()


def test_a_batch_may_begin_before_the_checkpoint(desk: Desk) -> None:
    for amount in (100, 200, 300):
        desk.book.void(desk.packet(amount), NOW_MS)
    log = desk.book.log[:4]
    there = Book()
    opened = b"".join(batch.entries for batch in desk.store.read_all(0))
    there.replay(opened + b"".join(log))
    here = Checkpoint(desk.last + 4, snapshot.dump(there))
    desk.store.commit(None, [set_checkpoint(recovery.BOOK, here)])
    recovered = desk.recover()
    assert picture(recovered.book) == picture(desk.book)
    assert recovered.replayed == 2


@pytest.mark.parametrize(
    ("batch", "reason"),
    [
        (Batch(6, 6, 0, entries.pack_end(entries.FULFILLED, 77, 1)), "does not follow from those before it"),
        (Batch(6, 7, 0, entries.pack_opened(5, 1, "x", Cashier().holders[0].asset)), "1 entries stand where"),  # type: ignore[arg-type]
        (Batch(6, 6, 0, b"\x99"), "no entry begins with octet 153"),
    ],
)
def test_a_journal_that_makes_no_sense_is_refused_by_name(desk: Desk, batch: Batch, reason: str) -> None:
    desk.store.commit(batch)
    with pytest.raises(Unavailable, match=reason) as caught:
        desk.recover()
    assert str(desk.store.path) in str(caught.value)


def test_a_checkpoint_of_another_version_is_refused(desk: Desk) -> None:
    desk.store.commit(None, [set_checkpoint(recovery.BOOK, Checkpoint(5, b"\x96\x02\x01\x90\x90\x90\x90"))])
    with pytest.raises(Unavailable, match="a checkpoint of version 2, this program reads 1"):
        desk.recover()
