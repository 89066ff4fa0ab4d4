"""ILPv4 packets (RFC 27): Prepare, Fulfill, Reject.

A packet is one type octet and a length-prefixed body. A Prepare's body:

    amount u64 | expiry 17 ASCII digits YYYYMMDDHHMMSSmmm (UTC) |
    condition 32 | destination var-octets | data var-octets

Amount and expiry have fixed places, so a connector rewrites them in place
(`rewrite_prepare`) and leaves every other octet as it came.

Times are integer milliseconds since the Unix epoch. Decoders accept padded
length prefixes and nothing after the body; encoders write the shortest form.
"""

from datetime import UTC, datetime, timedelta
from struct import Struct

import msgspec

from connector.errors import LocalProtocolError, RemoteProtocolError
from connector.limits import (
    ADDRESS_CACHE_MAX,
    ILP_DATA_MAX_BYTES,
    ILP_MESSAGE_MAX_BYTES,
    ILP_PACKET_MAX_BYTES,
    MINUTE_CACHE_MAX,
    U64_MAX,
)
from connector.protocol.address import is_address
from connector.protocol.oer import prefix_size, read_length, read_var_octets, var_octets

PREPARE = 12
FULFILL = 13
REJECT = 14

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTE_MS = 60_000
#: Amount, expiry and condition, up to the destination's length.
_PREPARE_FIXED = 8 + 17 + 32
_FULFILL_FIXED = 32
#: The first and last moments that seventeen digits can name: the years 1 to 9999.
TIMESTAMP_MIN_MS = -62_135_596_800_000
TIMESTAMP_MAX_MS = 253_402_300_799_999

_unpack_prepare = Struct(">Q17s32s").unpack_from

# What was parsed lately is likely to come again; each memory is cleared when it is full.
_known_addresses: dict[bytes, str] = {}
_ms_of_minute: dict[bytes, int] = {}
_minute_of_ms: dict[int, bytes] = {}


class Prepare(msgspec.Struct, frozen=True, gc=False):
    """An offer of `amount` against the preimage of `condition` until `expires_at_ms`."""

    amount: int
    expires_at_ms: int
    condition: bytes
    destination: str
    data: bytes


class Fulfill(msgspec.Struct, frozen=True, gc=False):
    """The preimage of a condition: the payment is made."""

    fulfillment: bytes
    data: bytes


class Reject(msgspec.Struct, frozen=True, gc=False):
    """A refusal. `code` is `F`, `T` or `R` and two digits; `triggered_by` who refused."""

    code: str
    triggered_by: str
    message: str
    data: bytes


Packet = Prepare | Fulfill | Reject


def parse_timestamp(digits: bytes) -> int:
    """Milliseconds since the epoch from `YYYYMMDDHHMMSSmmm`; RemoteProtocolError if it is no date."""
    if len(digits) != 17 or not digits.isdigit():
        raise RemoteProtocolError("expiry: 17 digits YYYYMMDDHHMMSSmmm expected")
    minute = digits[:12]
    start = _ms_of_minute.get(minute)
    if start is None:
        start = _parse_minute(minute)
    rest = int(digits[12:])
    if rest >= _MINUTE_MS:
        raise RemoteProtocolError("expiry: more than 59 seconds")
    return start + rest


def _parse_minute(minute: bytes) -> int:
    try:
        moment = datetime(
            int(minute[:4]),
            int(minute[4:6]),
            int(minute[6:8]),
            int(minute[8:10]),
            int(minute[10:12]),
            tzinfo=UTC,
        )
    except ValueError:
        raise RemoteProtocolError("expiry: not a date and time") from None
    start = (moment - _EPOCH) // timedelta(milliseconds=1)
    if len(_ms_of_minute) >= MINUTE_CACHE_MAX:
        _ms_of_minute.clear()
    _ms_of_minute[minute] = start
    return start


def format_timestamp(at_ms: int) -> bytes:
    """`YYYYMMDDHHMMSSmmm` in UTC; LocalProtocolError outside the years 1 to 9999."""
    minute_ms = at_ms - at_ms % _MINUTE_MS
    minute = _minute_of_ms.get(minute_ms)
    if minute is None:
        if not TIMESTAMP_MIN_MS <= at_ms <= TIMESTAMP_MAX_MS:
            raise LocalProtocolError(f"expiry {at_ms} ms has no four-digit year")
        moment = _EPOCH + timedelta(milliseconds=minute_ms)
        # The C library writes years before 1000 with fewer digits.
        minute = b"%04d%b" % (moment.year, moment.strftime("%m%d%H%M").encode("ascii"))
        if len(_minute_of_ms) >= MINUTE_CACHE_MAX:
            _minute_of_ms.clear()
        _minute_of_ms[minute_ms] = minute
    return b"%b%05d" % (minute, at_ms - minute_ms)


def _body(packet: bytes, kind: int, name: str) -> int:
    """Where the body begins, when `packet` is of `kind` and its length is exact."""
    # The common case, a length of one octet, without another call.
    if 2 <= len(packet) < 130 and packet[0] == kind and packet[1] == len(packet) - 2:
        return 2
    if len(packet) > ILP_PACKET_MAX_BYTES:
        raise RemoteProtocolError(f"{name}: {len(packet)} bytes, at most {ILP_PACKET_MAX_BYTES}")
    if not packet or packet[0] != kind:
        found = packet[0] if packet else "nothing"
        raise RemoteProtocolError(f"{name}: type {kind} expected, {found} found")
    length, offset = read_length(packet, 1, name)
    if offset + length != len(packet):
        raise RemoteProtocolError(f"{name}: {len(packet) - offset - length} bytes after its end")
    return offset


def _read_data(packet: bytes, offset: int) -> bytes:
    data, end = read_var_octets(packet, offset, "data")
    if end != len(packet):
        raise RemoteProtocolError(f"data: {len(packet) - end} bytes after its end")
    if len(data) > ILP_DATA_MAX_BYTES:
        raise RemoteProtocolError(f"data: {len(data)} bytes, at most {ILP_DATA_MAX_BYTES}")
    return data


def _ascii(octets: bytes, field: str) -> str:
    if not octets.isascii():
        raise RemoteProtocolError(f"{field}: ASCII expected")
    return octets.decode("ascii")


def decode_prepare(packet: bytes) -> Prepare:
    """Decode a Prepare. Raises RemoteProtocolError, naming the field that is wrong."""
    start = _body(packet, PREPARE, "prepare")
    if len(packet) < start + _PREPARE_FIXED:
        raise RemoteProtocolError("prepare: cut off before the destination")
    amount, expiry, condition = _unpack_prepare(packet, start)
    octets, offset = read_var_octets(packet, start + _PREPARE_FIXED, "destination")
    destination = _known_addresses.get(octets)
    if destination is None:
        destination = _parse_destination(octets)
    return Prepare(amount, parse_timestamp(expiry), condition, destination, _read_data(packet, offset))


def _parse_destination(octets: bytes) -> str:
    destination = _ascii(octets, "destination")
    if not is_address(destination):
        raise RemoteProtocolError("destination: not an ILP address")
    if len(_known_addresses) >= ADDRESS_CACHE_MAX:
        _known_addresses.clear()
    _known_addresses[octets] = destination
    return destination


def decode_fulfill(packet: bytes) -> Fulfill:
    """Decode a Fulfill. Raises RemoteProtocolError, naming the field that is wrong."""
    start = _body(packet, FULFILL, "fulfill")
    end = start + _FULFILL_FIXED
    if len(packet) < end:
        raise RemoteProtocolError("fulfillment: 32 bytes expected")
    return Fulfill(packet[start:end], _read_data(packet, end))


def decode_reject(packet: bytes) -> Reject:
    """Decode a Reject. Raises RemoteProtocolError, naming the field that is wrong.

    An empty `triggered_by` is accepted: deployed nodes send it.
    """
    start = _body(packet, REJECT, "reject")
    code = _ascii(packet[start : start + 3], "code")
    if not _is_code(code):
        raise RemoteProtocolError("code: F, T or R and two digits expected")
    octets, offset = read_var_octets(packet, start + 3, "triggered by")
    triggered_by = _ascii(octets, "triggered by")
    if triggered_by and not is_address(triggered_by):
        raise RemoteProtocolError("triggered by: not an ILP address")
    octets, offset = read_var_octets(packet, offset, "message")
    if len(octets) > ILP_MESSAGE_MAX_BYTES:
        raise RemoteProtocolError(f"message: {len(octets)} bytes, at most {ILP_MESSAGE_MAX_BYTES}")
    try:
        message = octets.decode("utf-8")
    except UnicodeDecodeError:
        raise RemoteProtocolError("message: UTF-8 expected") from None
    return Reject(code, triggered_by, message, _read_data(packet, offset))


def _is_code(code: str) -> bool:
    return len(code) == 3 and code[0] in "FTR" and code[1:].isdigit()


def decode(packet: bytes) -> Packet:
    """Decode a packet of any of the three types. Raises RemoteProtocolError."""
    kind = packet[0] if packet else None
    if kind == PREPARE:
        return decode_prepare(packet)
    if kind == FULFILL:
        return decode_fulfill(packet)
    if kind == REJECT:
        return decode_reject(packet)
    found = "nothing" if kind is None else kind
    raise RemoteProtocolError(f"packet type: 12, 13 or 14 expected, {found} found")


def _check(condition: bool, reason: str) -> None:
    if not condition:
        raise LocalProtocolError(reason)


def encode_prepare(prepare: Prepare) -> bytes:
    """Encode a Prepare. Raises LocalProtocolError for values that ILPv4 cannot carry."""
    _check(0 <= prepare.amount <= U64_MAX, f"amount: {prepare.amount} does not fit in 64 bits")
    _check(len(prepare.condition) == 32, "condition: 32 bytes expected")
    _check(is_address(prepare.destination), "destination: not an ILP address")
    _check(len(prepare.data) <= ILP_DATA_MAX_BYTES, f"data: more than {ILP_DATA_MAX_BYTES} bytes")
    body = b"".join(
        (
            prepare.amount.to_bytes(8, "big"),
            format_timestamp(prepare.expires_at_ms),
            prepare.condition,
            var_octets(prepare.destination.encode("ascii")),
            var_octets(prepare.data),
        ),
    )
    return b"\x0c" + var_octets(body)


def encode_fulfill(fulfill: Fulfill) -> bytes:
    """Encode a Fulfill. Raises LocalProtocolError for values that ILPv4 cannot carry."""
    _check(len(fulfill.fulfillment) == 32, "fulfillment: 32 bytes expected")
    _check(len(fulfill.data) <= ILP_DATA_MAX_BYTES, f"data: more than {ILP_DATA_MAX_BYTES} bytes")
    return b"\x0d" + var_octets(fulfill.fulfillment + var_octets(fulfill.data))


def encode_reject(reject: Reject) -> bytes:
    """Encode a Reject. Raises LocalProtocolError for values that ILPv4 cannot carry."""
    _check(reject.code.isascii() and _is_code(reject.code), f"code: {reject.code!r} is none")
    try:
        message = reject.message.encode("utf-8")
    except UnicodeEncodeError:
        raise LocalProtocolError("message: not Unicode") from None
    _check(len(message) <= ILP_MESSAGE_MAX_BYTES, f"message: more than {ILP_MESSAGE_MAX_BYTES} bytes")
    _check(
        not reject.triggered_by or is_address(reject.triggered_by),
        "triggered by: not an ILP address",
    )
    _check(len(reject.data) <= ILP_DATA_MAX_BYTES, f"data: more than {ILP_DATA_MAX_BYTES} bytes")
    body = b"".join(
        (
            reject.code.encode("ascii"),
            var_octets(reject.triggered_by.encode("ascii")),
            var_octets(message),
            var_octets(reject.data),
        ),
    )
    return b"\x0e" + var_octets(body)


def rewrite_prepare(packet: bytes, prepare: Prepare, amount: int, expires_at_ms: int) -> bytes:
    """`packet`, which decoded to `prepare`, with another amount and expiry.

    Every other octet stays as it was, unless a length prefix was padded: then
    the packet is written anew in its shortest form.
    """
    destination, data = len(prepare.destination), len(prepare.data)
    body = _PREPARE_FIXED + destination + data
    body += 1 if destination < 128 else prefix_size(destination)
    body += 1 if data < 128 else prefix_size(data)
    start = 2 if body < 128 else 1 + prefix_size(body)
    if len(packet) != start + body:
        return encode_prepare(msgspec.structs.replace(prepare, amount=amount, expires_at_ms=expires_at_ms))
    return b"%b%b%b%b" % (
        packet[:start],
        amount.to_bytes(8, "big"),
        format_timestamp(expires_at_ms),
        packet[start + 25 :],
    )


def shortest_fulfill(packet: bytes, fulfill: Fulfill) -> bytes:
    """`packet`, which decoded to `fulfill`, itself or written anew if a length prefix was padded."""
    size = len(fulfill.data)
    body = _FULFILL_FIXED + prefix_size(size) + size
    return packet if len(packet) == 1 + prefix_size(body) + body else encode_fulfill(fulfill)
