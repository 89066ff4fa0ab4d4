"""Entries: what is packed comes back, and what was damaged is never read as something else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.core import entries
from connector.core.book import Book
from connector.core.chart import Kind
from connector.core.entries import CorruptEntry, Side
from connector.core.rates import Asset

U64 = 2**64 - 1
PACKET = bytes(range(16))
OPENED = entries.pack_opened(7, Kind.LOCAL, "till-1", Asset("USD", 9))
PREPARED = entries.pack_prepared(entries.PREPARED, 1, 2, PACKET, 3, 4, U64, 5, U64 - 5)
#: One of each kind: its octets, and what they say.
EACH = [
    (OPENED, (entries.OPENED, 7, Kind.LOCAL, "till-1", Asset("USD", 9))),
    (PREPARED, (entries.PREPARED, 1, 2, PACKET, 3, 4, U64, 5, U64 - 5)),
    (entries.pack_end(entries.FULFILLED, U64, 2), (entries.FULFILLED, U64, 2)),
    (entries.pack_end(entries.REJECTED, 1, U64), (entries.REJECTED, 1, U64)),
    (
        entries.pack(entries.DOUBTED, 1, 2, Side.OPEN, Side.OWED),
        (entries.DOUBTED, 1, 2, Side.OPEN, Side.OWED),
    ),
    (entries.pack(entries.UNRELAYED, 1, 2, PACKET, 3, U64), (entries.UNRELAYED, 1, 2, PACKET, 3, U64)),
    (entries.pack(entries.CLOSED, 1, 2, entries.OUTGOING, True), (entries.CLOSED, 1, 2, 1, 1)),
    (entries.pack(entries.SETTLED, 1, 2, PACKET, 3, U64, False), (entries.SETTLED, 1, 2, PACKET, 3, U64, 0)),
]


@pytest.mark.parametrize(("octets", "entry"), EACH)
def test_each_kind_comes_back_as_it_was_packed(octets: bytes, entry: tuple[object, ...]) -> None:
    assert list(entries.decode(octets)) == [entry]


def test_a_batch_is_its_entries_in_order() -> None:
    assert list(entries.decode(b"".join(octets for octets, _ in EACH))) == [entry for _, entry in EACH]
    assert list(entries.decode(b"")) == []


@pytest.mark.parametrize(("octets", "entry"), EACH)
def test_a_cut_entry_is_corrupt_wherever_it_is_cut(octets: bytes, entry: tuple[object, ...]) -> None:
    for end in range(1, len(octets)):
        with pytest.raises(CorruptEntry):
            list(entries.decode(octets[:end]))
        with pytest.raises(CorruptEntry):
            list(entries.decode(PREPARED + octets[:end]))


def test_sizes_are_those_that_journals_have() -> None:
    assert [len(octets) for octets, _ in EACH] == [11 + 3 + 6, 65, 17, 17, 19, 45, 19, 46]


@pytest.mark.parametrize("octets", [b"\x00", b"\x09" + bytes(40), b"\xff", b"SQLite format 3"])
def test_what_begins_with_no_kind_is_corrupt(octets: bytes) -> None:
    with pytest.raises(CorruptEntry, match="no entry begins with octet"):
        list(entries.decode(octets))


@pytest.mark.parametrize("place", [5, 11, 14])  # the kind of the account, its asset's code, its name
def test_an_account_that_cannot_be_is_corrupt(place: int) -> None:
    damaged = bytearray(OPENED)
    damaged[place] = 0xFF
    with pytest.raises(CorruptEntry, match="unreadable entry"):
        list(entries.decode(bytes(damaged)))


def test_names_may_have_any_letters() -> None:
    octets = entries.pack_opened(1, Kind.PEER, "zoë-株", Asset("GOLD", 0))
    assert list(entries.decode(octets)) == [(entries.OPENED, 1, Kind.PEER, "zoë-株", Asset("GOLD", 0))]


@given(st.binary(max_size=200))
def test_garbage_is_corrupt_or_fills_its_octets_exactly(octets: bytes) -> None:
    sizes = {entries.PREPARED: 65, entries.FULFILLED: 17, entries.REJECTED: 17, entries.DOUBTED: 19}
    sizes |= {entries.UNRELAYED: 45, entries.CLOSED: 19, entries.SETTLED: 46}
    try:
        found = list(entries.decode(octets))
    except CorruptEntry:
        return
    assert len(octets) == sum(
        sizes[entry[0]]
        if entry[0] != entries.OPENED
        else 11 + len(entry[3].encode()) + len(entry[4].code.encode())
        for entry in found
    )


@pytest.mark.parametrize(
    "octets",
    [
        PREPARED,
        entries.pack_end(entries.FULFILLED, 1, 2),
        entries.pack_end(entries.REJECTED, 1, 2),
        entries.pack(entries.DOUBTED, 1, 2, Side.OPEN, Side.OPEN),
        entries.pack(entries.UNRELAYED, 1, 2, PACKET, 3, 4),
        entries.pack(entries.CLOSED, 1, 2, entries.INCOMING, True),
        entries.pack(entries.SETTLED, 1, 2, PACKET, 3, 4, True),
        OPENED,
    ],
)
def test_entries_that_follow_from_nothing_are_corrupt_to_a_book(octets: bytes) -> None:
    book = Book()
    with pytest.raises(CorruptEntry, match=r"does not follow|cannot be opened"):
        book.replay(octets)


def test_a_side_that_is_none_is_corrupt_to_a_book() -> None:
    book = Book()
    alice = book.open(Kind.PEER, "alice", Asset("USD", 2), 100)
    held = book.reserve(alice, alice, 10, 0, 10, PACKET, 1)
    assert held is not None
    with pytest.raises(CorruptEntry, match="does not follow"):
        book.replay(entries.pack(entries.DOUBTED, held.number, 2, 3, 0))
