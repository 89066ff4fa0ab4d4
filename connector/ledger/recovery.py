"""Recovery: the book as a journal tells it, and what a crash left in doubt."""

import msgspec

from connector.core import entries, snapshot
from connector.core.accounts import Reservation
from connector.core.book import Book
from connector.core.entries import CorruptEntry, Side
from connector.errors import Unavailable
from connector.ledger.store import Checkpoint, Store

#: The checkpoint of the book, and of what the ledger holds.
BOOK = "book"
LEDGER = "ledger"
#: Key of the number up to which frames are known to have left.
DEPARTED = "departed"
#: Key of the exceptions to it: JSON, numbers of accounts, and the first entry whose frame had not left.
STUCK = "stuck"


class Recovered(msgspec.Struct, frozen=True):
    """The book after the last entry of the journal, with doubts in its log."""

    book: Book
    #: Number of the last entry in the journal.
    last: int
    #: Entries that had to be read again.
    replayed: int
    #: Packets that this start found in doubt.
    doubts: int


def recover(store: Store, now_ms: int) -> Recovered:
    """Make the book again. Raises Unavailable when the journal is damaged.

    Requests do not survive their connection: what was in flight is in doubt on
    both sides. A Fulfill whose frame may not have left is in doubt upstream,
    and owed downstream.
    """
    checkpoint = store.checkpoint(BOOK) or Checkpoint(0, b"")
    departed = int(store.meta(DEPARTED) or 0)
    stuck = msgspec.json.decode(store.meta(STUCK) or "{}", type=dict[int, int])
    #: Fulfilled packets by their numbers: the entry that says so, and what they are worth.
    unrelayed: dict[int, tuple[int, Reservation]] = {}
    last = checkpoint.last
    prune_at = 10_000
    try:
        book = snapshot.load(checkpoint.state) if checkpoint.state else Book()
        for batch in store.read_all(checkpoint.last):
            departed = max(departed, batch.departed)
            number = batch.first
            for entry in entries.decode(batch.entries):
                # A batch may begin before the checkpoint.
                if number > last:
                    reservation = book.apply(entry)
                    last = number
                    if reservation is not None:
                        unrelayed[reservation.number] = number, reservation
                    elif entry[0] == entries.UNRELAYED:
                        # Known already, before the crash.
                        unrelayed.pop(entry[1], None)
                number += 1
            if number != batch.last + 1:
                raise CorruptEntry(
                    f"{number - batch.first} entries stand where {batch.first} to {batch.last} should"
                )
            if len(unrelayed) > prune_at:
                unrelayed = _undeparted(unrelayed, departed, stuck)
                # Twice what is left, so that a mark that does not move costs little.
                prune_at = max(prune_at, 2 * len(unrelayed))
        unrelayed = _undeparted(unrelayed, departed, stuck)
    except CorruptEntry as error:
        raise Unavailable(f"{store.path}: {error}") from error
    replayed = last - checkpoint.last
    left_open = list(book.pending.values())
    for reservation in left_open:
        book.doubt(reservation, Side.OPEN, Side.OPEN, now_ms)
    for _, reservation in unrelayed.values():
        book.unrelayed(reservation, now_ms)
    return Recovered(book, last, replayed, len(left_open) + len(unrelayed))


def _undeparted(
    fulfilled: dict[int, tuple[int, Reservation]], departed: int, stuck: dict[int, int]
) -> dict[int, tuple[int, Reservation]]:
    """Of these packets, those whose Fulfill may not have left."""
    return {
        key: (entry, held)
        for key, (entry, held) in fulfilled.items()
        if entry > departed or entry >= stuck.get(held.incoming.number, entry + 1)
    }
