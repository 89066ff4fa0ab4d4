"""A book as octets: what a checkpoint of the journal holds.

Balances are decimal strings, since sums outgrow msgpack's 64 bits.
"""

import msgspec

from connector.core import entries
from connector.core.accounts import Account, Doubt, Reservation
from connector.core.book import Book
from connector.core.chart import ONE_PER_ASSET, Kind
from connector.core.entries import CorruptEntry, Side
from connector.core.rates import Asset


class _Row(msgspec.Struct, array_like=True):
    kind: int
    name: str
    code: str
    scale: int
    balance: tuple[str, str, str, str]


class _Packet(msgspec.Struct, array_like=True):
    number: int
    time_ms: int
    packet_id: bytes
    incoming: int
    outgoing: int
    amount_in: int
    fee: int
    amount_out: int


class _Doubt(msgspec.Struct, array_like=True):
    number: int
    time_ms: int
    since_ms: int
    packet_id: bytes
    incoming: int
    outgoing: int | None
    amount_in: int
    amount_out: int
    sides: tuple[int, int]


class _Snapshot(msgspec.Struct, array_like=True):
    version: int
    next_number: int
    #: Holders' accounts in the order of their numbers, then those of each asset.
    rows: list[_Row]
    packets: list[_Packet]
    doubts: list[_Doubt]
    settled: list[tuple[bytes, int, int, bool]]


_VERSION = 1


def dump(book: Book) -> bytes:
    """Everything that `book` holds, but for its log."""
    snapshot = _Snapshot(
        _VERSION,
        book.next_number,
        [_row(account) for account in book.accounts()],
        [
            _Packet(
                held.number,
                held.time_ms,
                held.packet_id,
                held.incoming.number,
                held.outgoing.number,
                held.amount_in,
                held.fee,
                held.amount_out,
            )
            for held in book.pending.values()
        ],
        [_doubt(doubt) for doubt in book.doubts.values()],
        [(key, *settled) for key, settled in book.settled.items()],
    )
    return msgspec.msgpack.encode(snapshot)


def _row(account: Account) -> _Row:
    posted_d, posted_c, pending_d, pending_c = map(str, account.balance())
    asset = account.asset
    balance = (posted_d, posted_c, pending_d, pending_c)
    return _Row(account.kind, account.name, asset.code, asset.scale, balance)


def _doubt(doubt: Doubt) -> _Doubt:
    return _Doubt(
        doubt.number,
        doubt.time_ms,
        doubt.since_ms,
        doubt.packet_id,
        doubt.incoming.number,
        None if doubt.outgoing is None else doubt.outgoing.number,
        doubt.amount_in,
        doubt.amount_out,
        (doubt.incoming_side, doubt.outgoing_side),
    )


def load(octets: bytes) -> Book:
    """The book that `dump` was given, with an empty log. Raises CorruptEntry."""
    try:
        snapshot = msgspec.msgpack.decode(octets, type=_Snapshot)
        if snapshot.version != _VERSION:
            raise CorruptEntry(f"a checkpoint of version {snapshot.version}, this program reads {_VERSION}")
        return _load(snapshot)
    except (msgspec.MsgspecError, ValueError, LookupError) as error:
        raise CorruptEntry(f"unreadable checkpoint: {error}") from error


def _load(snapshot: _Snapshot) -> Book:
    book = Book()
    holders = [row for row in snapshot.rows if row.kind not in ONE_PER_ASSET]
    accounts = [book.open(Kind(row.kind), row.name, Asset(row.code, row.scale)) for row in holders]
    book.take_log()
    for account, row in zip(book.accounts(), snapshot.rows, strict=True):
        if (account.kind, account.name, str(account.asset)) != (
            row.kind,
            row.name,
            f"{row.code}/{row.scale}",
        ):
            raise ValueError(f"{account} stands where {row} was written")
        posted_d, posted_c, pending_d, pending_c = map(int, row.balance)
        account.debits_posted, account.credits_posted = posted_d, posted_c
        account.debits_pending, account.credits_pending = pending_d, pending_c
    for held in snapshot.packets:
        book.pending[held.number] = Reservation(
            held.number,
            held.time_ms,
            held.packet_id,
            accounts[held.incoming],
            accounts[held.outgoing],
            held.amount_in,
            held.fee,
            held.amount_out,
        )
    for kept in snapshot.doubts:
        doubt = book.doubts[kept.number] = Doubt(
            kept.number,
            kept.time_ms,
            kept.since_ms,
            kept.packet_id,
            accounts[kept.incoming],
            None if kept.outgoing is None else accounts[kept.outgoing],
            kept.amount_in,
            kept.amount_out,
            Side(kept.sides[entries.INCOMING]),
            Side(kept.sides[entries.OUTGOING]),
        )
        doubt.count(1)
    book.next_number = snapshot.next_number
    book.settled = {key: (account, amount, by_us) for key, account, amount, by_us in snapshot.settled}
    return book
