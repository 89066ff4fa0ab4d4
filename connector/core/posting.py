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
from connector.core.accounts import Account
from connector.core.book import Book
from connector.core.entries import Side
from connector.core.legs import Legs, Pair
from connector.limits import PAIRS_REMEMBERED_MAX

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
        #: By the numbers of the incoming and the outgoing account.
        self._pairs: dict[tuple[int, int], Pair] = {}

    def take(self, run: Run, log: Sequence[tuple], transfers_max: int, slice_max: int) -> Iterator[None]:  # type: ignore[type-arg]  # see entries.decode
        """Make `run` of as many entries of `log` as fit into `transfers_max` transfers.

        They are entered into `book`. Yields after each `slice_max` entries, for
        others to do something in between. At least one entry fits if
        `transfers_max` is at least ENTRY_TRANSFERS_MAX.
        """
        # Packets that began in this run, as their entries; their legs come at its end.
        fresh: dict[int, tuple] = {}  # type: ignore[type-arg]
        room = transfers_max - ENTRY_TRANSFERS_MAX
        count = 0
        for entry in log:
            if count > room:
                break
            count += self._enter(run, fresh, entry)
            run.taken += 1
            if run.taken % slice_max == 0:
                yield
        for index, entry in enumerate(fresh.values()):
            self.book.apply(entry)
            self.legs.pending(run.transfers, self.book.pending[entry[1]])
            if index % slice_max == 0:
                yield

    def _enter(self, run: Run, fresh: dict[int, tuple], entry: tuple) -> int:  # type: ignore[type-arg]
        """Enter `entry` into the book; an upper bound of the transfers that it needs."""
        kind, number = entry[0], entry[1]
        book = self.book
        if kind == entries.PREPARED:
            fresh[number] = entry
            return self._pair(entry).count(entry[7])
        if kind not in (entries.FULFILLED, entries.REJECTED):
            return self._enter_other(run, fresh, entry)
        began = fresh.pop(number, None)
        if began is not None:
            # Most packets end here: nothing was pending for anybody to see.
            book.next_number = max(book.next_number, number + 1)
            if kind == entries.FULFILLED:
                pair = self._pair(began)
                pair.direct(run.transfers, began, entry[2])
                book.post(pair.incoming, pair.outgoing, began[6], began[7], began[8])
            return 0
        held = book.pending.get(number)
        # An unknown number is the book's to complain about.
        book.apply(entry)
        assert held is not None
        before = len(run.transfers)
        self.legs.end(run.transfers, held, entry[2], post=kind == entries.FULFILLED)
        return len(run.transfers) - before

    def _pair(self, entry: tuple) -> Pair:  # type: ignore[type-arg]
        """The accounts of a PREPARED entry. Raises CorruptEntry."""
        key = (entry[4], entry[5])
        pair = self._pairs.get(key)
        if pair is None:
            try:
                accounts = self.book.numbered(key[0]), self.book.numbered(key[1])
            except IndexError:
                raise entries.CorruptEntry(f"entry {entry!r} names no account") from None
            if len(self._pairs) >= PAIRS_REMEMBERED_MAX:
                self._pairs.clear()
            pair = self._pairs[key] = self.legs.pair(*accounts)
        return pair

    def _enter_other(self, run: Run, fresh: dict[int, tuple], entry: tuple) -> int:  # type: ignore[type-arg]
        """Entries that are rare."""
        if entry[0] == entries.DOUBTED and entry[1] in fresh:
            self.book.apply(fresh[entry[1]])
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
