"""Entries: what happened to money, in the octets that the journal keeps.

An entry is a kind and its fields, of fixed size except for OPENED; a batch is
entries one after the other. Integers are little-endian, times are wall time in
milliseconds, amounts in the account's smallest unit.

    OPENED     account, kind, scale, code, name    an account came to be
    PREPARED   number, time, packet id, incoming account, outgoing account,
               amount in, fee, amount out          a packet is on its way
    FULFILLED  number, time                        ... and was paid for
    REJECTED   number, time                        ... or came back
    DOUBTED    number, time, incoming, outgoing    ... or nobody knows: a `Side` each
    UNRELAYED  number, time, packet id, incoming account, amount in
                                                   fulfilled, but the Fulfill never left
    CLOSED     number, time, side, owed            a side in doubt was decided
    SETTLED    number, time, key, account, amount, by us
                                                   a debt was paid by other means

`number` names a packet or a settlement within one journal, and is never used
again.
"""

from collections.abc import Iterator
from enum import IntEnum
from struct import Struct, error
from typing import Final

from connector.core.chart import Kind
from connector.core.rates import Asset
from connector.errors import ConnectorError

OPENED: Final = 1
PREPARED: Final = 2
FULFILLED: Final = 3
REJECTED: Final = 4
DOUBTED: Final = 5
UNRELAYED: Final = 6
CLOSED: Final = 7
SETTLED: Final = 8

#: An entry as it is decoded: its kind, then its fields as the module's table has them.
Entry = tuple[int, ...] | tuple[int, int, int, bytes, int, int, int, int, int]

pack_prepared = Struct("<BQQ16sIIQQQ").pack
pack_end = Struct("<BQQ").pack

_OPENED: Final = Struct("<BIBBHH")
_LAYOUTS: Final = {
    PREPARED: Struct("<BQQ16sIIQQQ"),
    FULFILLED: Struct("<BQQ"),
    REJECTED: Struct("<BQQ"),
    DOUBTED: Struct("<BQQBB"),
    UNRELAYED: Struct("<BQQ16sIQ"),
    CLOSED: Struct("<BQQBB"),
    SETTLED: Struct("<BQQ16sIQB"),
}
_SIZED: Final = {kind: (layout.unpack_from, layout.size) for kind, layout in _LAYOUTS.items()}


class Side(IntEnum):
    """What is known of one side of a packet in doubt."""

    #: Nothing is owed.
    CLEAR = 0
    #: Nobody knows yet.
    OPEN = 1
    #: It is owed.
    OWED = 2


INCOMING: Final = 0
OUTGOING: Final = 1


class CorruptEntry(ConnectorError):
    """Octets that are no entries: not ours, or damaged."""


def pack_opened(account: int, kind: Kind, name: str, asset: Asset) -> bytes:
    """An OPENED entry."""
    code, holder = asset.code.encode(), name.encode()
    return _OPENED.pack(OPENED, account, kind, asset.scale, len(code), len(holder)) + code + holder


def pack(kind: int, *fields: int | bytes) -> bytes:
    """An entry of any kind but OPENED."""
    return _LAYOUTS[kind].pack(kind, *fields)


def decode(octets: bytes) -> Iterator[tuple]:  # type: ignore[type-arg]  # the fields differ by kind
    """The entries of a batch. Raises CorruptEntry."""
    at = 0
    end = len(octets)
    sized = _SIZED
    try:
        while at < end:
            kind = octets[at]
            known = sized.get(kind)
            if known is not None:
                yield known[0](octets, at)
                at += known[1]
                continue
            if kind != OPENED:
                raise CorruptEntry(f"no entry begins with octet {kind}, at {at} of {end}")
            _, account, what, scale, code_size, name_size = _OPENED.unpack_from(octets, at)
            at += _OPENED.size
            name_at = at + code_size
            asset = Asset(octets[at:name_at].decode(), scale)
            at = name_at + name_size
            if at > end:
                raise CorruptEntry(f"the entry ends after {end} of {at} octets")
            yield OPENED, account, Kind(what), octets[name_at:at].decode(), asset
    except (error, ValueError) as problem:
        raise CorruptEntry(f"unreadable entry at {at} of {end} octets: {problem}") from problem
