"""ILP addresses and route prefixes (RFC 15).

An address is an allocation scheme and at least one further segment, joined by
dots, ASCII, at most 1023 octets. A route prefix may be a bare scheme (`g`) or
empty (the default route). Prefixes match on segment boundaries: `g.alice`
covers `g.alice` and `g.alice.x`, not `g.alicex`.
"""

import re

from connector.errors import LocalProtocolError
from connector.limits import ILP_ADDRESS_MAX_BYTES

_SCHEME = r"(?:g|private|example|peer|self|test[1-3]?|local)"
_SEGMENT = r"[A-Za-z0-9_~-]+"
# `fullmatch`, never `$`: the latter admits a trailing newline.
_ADDRESS = re.compile(rf"{_SCHEME}(?:\.{_SEGMENT})+").fullmatch
_PREFIX = re.compile(rf"(?:{_SCHEME}(?:\.{_SEGMENT})*)?").fullmatch
_SEGMENT_ONLY = re.compile(_SEGMENT).fullmatch


def is_address(text: str) -> bool:
    """Whether `text` is a full ILP address."""
    return len(text) <= ILP_ADDRESS_MAX_BYTES and _ADDRESS(text) is not None


def is_prefix(text: str) -> bool:
    """Whether `text` can be a route's prefix: an address, a bare scheme, or empty."""
    return len(text) <= ILP_ADDRESS_MAX_BYTES and _PREFIX(text) is not None


def is_segment(text: str) -> bool:
    """Whether `text` can be one segment of an address."""
    return len(text) <= ILP_ADDRESS_MAX_BYTES and _SEGMENT_ONLY(text) is not None


def covers(prefix: str, address: str) -> bool:
    """Whether `prefix` covers `address`, on a segment boundary."""
    return not prefix or address == prefix or address.startswith(prefix + ".")


def scheme(address: str) -> str:
    """The allocation scheme: what stands before the first dot."""
    return address.partition(".")[0]


def child(parent: str, *segments: str) -> str:
    """The address of `segments` below `parent`.

    Raises LocalProtocolError when the result is not an address.
    """
    address = ".".join((parent, *segments))
    if not is_address(address):
        raise LocalProtocolError(f"not an ILP address: {address[:80]!r}")
    return address
