"""Posting: entries of the journal become transfers of the ledger.

`Posting` follows the journal with a book of its own: what the ledger holds
once every request so far is answered. A request is made of a run of entries,
and the same run after the same book always gives the same transfers, octet for
octet: it is enough to record where a run begins and ends to send it again.

A packet that begins and ends within one run is posted directly, or, rejected,
never sent. Otherwise its legs are pending first (without a timeout: the
journal owns their end) and posted or voided later.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from connector.core import entries
from connector.core.accounts import Account, Reservation
from connector.core.book import Book
from connector.core.entries import Side
from connector.core.legs import Legs, legs_of

#: What an entry needs at most: three voided legs and a side each in doubt.
ENTRY_TRANSFERS_MAX: Final = 5


class Run:
    """A request in the making."""

    def __init__(self) -> None:
        #: How many entries it is made of.
        self.taken = 0
        self.transfers: list[bytes] = []
        #: Accounts that came to be in it, which the ledger does not know yet.
        self.opened: list[Account] = []


class Posting:
    """Makes transfers of entries. `book` is what the ledger holds after all of them."""

    def __init__(self, node: str, journal_id: int, book: Book) -> None:
        self.book = book
        self.legs = Legs(node, journal_id)

    def take(self, run: Run, log: Sequence[tuple], transfers_max: int, slice_max: int) -> Iterator[None]:  # type: ignore[type-arg]  # see entries.decode
        """Make `run` of as many entries of `log` as fit into `transfers_max` transfers.

        They are entered into `book`. Yields after each `slice_max` entries, for
        others to do something in between. At least one entry fits if
        `transfers_max` is at least ENTRY_TRANSFERS_MAX.
        """
        fresh: dict[int, Reservation] = {}
        room = transfers_max - ENTRY_TRANSFERS_MAX
        count = 0
        for entry in log:
            if count > room:
                break
            count += self._enter(run, fresh, entry)
            run.taken += 1
            if run.taken % slice_max == 0:
                yield
        for index, reservation in enumerate(fresh.values()):
            self.legs.pending(run.transfers, reservation)
            if index % slice_max == 0:
                yield

    def _enter(self, run: Run, fresh: dict[int, Reservation], entry: tuple) -> int:  # type: ignore[type-arg]
        """Enter `entry` into the book; an upper bound of the transfers that it needs.

        `fresh` are packets that began in this run; their legs come at its end.
        """
        kind, number = entry[0], entry[1]
        book = self.book
        if kind == entries.PREPARED:
            book.apply(entry)
            reservation = fresh[number] = book.pending[number]
            return legs_of(reservation)
        if kind not in (entries.FULFILLED, entries.REJECTED):
            return self._enter_other(run, fresh, entry)
        known = fresh.pop(number, None)
        # An unknown number is the book's to complain about.
        reservation = known or book.pending.get(number)  # type: ignore[assignment]
        book.apply(entry)
        if known is None:
            self.legs.end(run.transfers, reservation, entry[2], post=kind == entries.FULFILLED)
            return legs_of(reservation)
        if kind == entries.FULFILLED:
            self.legs.direct(run.transfers, reservation, entry[2])
        return 0

    def _enter_other(self, run: Run, fresh: dict[int, Reservation], entry: tuple) -> int:  # type: ignore[type-arg]
        """Entries that are rare."""
        kind, number, book, legs, out = entry[0], entry[1], self.book, self.legs, run.transfers
        before = len(out)
        if kind == entries.OPENED:
            book.apply(entry)
            run.opened.append(book.numbered(number))
        elif kind == entries.DOUBTED:
            reservation = book.pending.get(number)
            book.apply(entry)
            assert reservation is not None
            if fresh.pop(number, None) is None:
                legs.end(out, reservation, entry[2], post=False)
            legs.doubted(out, reservation, Side(entry[3]), Side(entry[4]), entry[2])
        elif kind == entries.UNRELAYED:
            book.apply(entry)
            legs.unrelayed(out, book.doubts[number])
        elif kind == entries.CLOSED:
            doubt = book.doubts.get(number)
            book.apply(entry)
            assert doubt is not None
            legs.closed(out, doubt, entry[2], entry[3], owed=bool(entry[4]))
        else:
            _, _, time_ms, key, index, amount, by_us = entry
            book.apply(entry)
            legs.settled(out, book.numbered(index), number, time_ms, key, amount, by_us=bool(by_us))
        return len(out) - before

    def held(self) -> list[bytes]:
        """Transfers for all that `book` has pending, as a new ledger needs them; each packet's are linked."""
        out: list[bytes] = []
        for reservation in self.book.pending.values():
            self.legs.pending(out, reservation)
        for doubt in self.book.doubts.values():
            for side in (entries.INCOMING, entries.OUTGOING):
                if doubt.side(side) is Side.OPEN:
                    self.legs.stand(out, doubt, side, doubt.since_ms, is_open=True)
        return out
