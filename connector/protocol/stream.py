"""STREAM packets and frames (RFC 29), as they are inside their encryption.

    packet = version u8 (1) | ILP packet type u8 | sequence var-uint |
             prepare amount var-uint | frame count var-uint | frames | junk

    frame  = type u8 | length prefix | fields

On a Prepare the prepare amount is the least that the receiver may accept; on a
Fulfill or Reject it is what arrived. The ILP packet type inside must be the one
outside: whoever opens a packet compares them, this module cannot.

Frames of unknown types are skipped and octets after the last frame ignored: RFC
29 keeps both for later versions. Inside a known frame nothing may be left over.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple, get_args

import msgspec

from connector.errors import LocalProtocolError, RemoteProtocolError
from connector.limits import STREAM_FRAMES_MAX, U64_MAX
from connector.protocol.address import is_address
from connector.protocol.ilp import FULFILL, PREPARE, REJECT
from connector.protocol.oer import (
    read_uint,
    read_var_octets,
    read_var_uint,
    var_octets,
    var_uint,
)

VERSION: Final = 1

# Error codes of ConnectionClose and StreamClose (RFC 29, 5.4).
NO_ERROR: Final = 1
INTERNAL_ERROR: Final = 2
ENDPOINT_BUSY: Final = 3
FLOW_CONTROL_ERROR: Final = 4
STREAM_ID_ERROR: Final = 5
STREAM_STATE_ERROR: Final = 6
FRAME_FORMAT_ERROR: Final = 7
PROTOCOL_VIOLATION: Final = 8
APPLICATION_ERROR: Final = 9


class ConnectionClose(msgspec.Struct, frozen=True):
    """The connection is over; `error_code` NO_ERROR when all went well."""

    error_code: int
    error_message: str


class NewAddress(msgspec.Struct, frozen=True):
    """Where the sender of this frame can be paid; empty when it cannot be.

    Deployed senders that only send leave it empty: the stock receiver then
    answers with its asset and does not try to open a payment back.
    """

    source_account: str


class MaxData(msgspec.Struct, frozen=True):
    """How many octets, over all streams, the sender of this frame will take."""

    max_offset: int


class DataBlocked(msgspec.Struct, frozen=True):
    """How many octets, over all streams, the sender of this frame wants to send."""

    max_offset: int


class MaxStreamId(msgspec.Struct, frozen=True):
    """The highest stream id that the sender of this frame will take."""

    max_stream_id: int


class StreamIdBlocked(msgspec.Struct, frozen=True):
    """The highest stream id that the sender of this frame wants to open."""

    max_stream_id: int


class AssetDetails(msgspec.Struct, frozen=True):
    """The asset of the sender of this frame; `scale` is its decimal places."""

    source_asset_code: str
    source_asset_scale: int


class StreamClose(msgspec.Struct, frozen=True):
    """A stream is over; `error_code` NO_ERROR when all went well."""

    stream_id: int
    error_code: int
    error_message: str


class StreamMoney(msgspec.Struct, frozen=True):
    """What part of the packet's amount is for this stream: shares ÷ sum of all shares."""

    stream_id: int
    shares: int


class StreamMaxMoney(msgspec.Struct, frozen=True):
    """What a stream may and did receive in all, in units of the sender of this frame."""

    stream_id: int
    receive_max: int
    total_received: int


class StreamMoneyBlocked(msgspec.Struct, frozen=True):
    """What a stream would and did send in all, in units of the sender of this frame."""

    stream_id: int
    send_max: int
    total_sent: int


class StreamData(msgspec.Struct, frozen=True):
    """Octets of a stream, and where in it they belong."""

    stream_id: int
    offset: int
    data: bytes


class StreamMaxData(msgspec.Struct, frozen=True):
    """How many octets of a stream the sender of this frame will take."""

    stream_id: int
    max_offset: int


class StreamDataBlocked(msgspec.Struct, frozen=True):
    """How many octets of a stream the sender of this frame wants to send."""

    stream_id: int
    max_offset: int


class StreamReceipt(msgspec.Struct, frozen=True):
    """Proof for a third party of what a stream received (RFC 39); opaque here."""

    stream_id: int
    receipt: bytes


Frame = (
    ConnectionClose
    | NewAddress
    | MaxData
    | DataBlocked
    | MaxStreamId
    | StreamIdBlocked
    | AssetDetails
    | StreamClose
    | StreamMoney
    | StreamMaxMoney
    | StreamMoneyBlocked
    | StreamData
    | StreamMaxData
    | StreamDataBlocked
    | StreamReceipt
)


class Packet(msgspec.Struct, frozen=True):
    """A STREAM packet; see the module for what `prepare_amount` means on each type."""

    sequence: int
    packet_type: int
    prepare_amount: int
    frames: tuple[Frame, ...] = ()


class Kind(NamedTuple):
    """How one kind of field is read, and how it is written."""

    read: Callable[[bytes, int, str], tuple[Any, int]]
    write: Callable[[Any], bytes]


def _read_octet(data: bytes, offset: int, field: str) -> tuple[int, int]:
    return read_uint(data, offset, 1, field)


def _write_octet(value: int) -> bytes:
    if not 0 <= value <= 255:
        raise LocalProtocolError(f"{value} does not fit in one octet")
    return bytes((value,))


def _read_saturating(data: bytes, offset: int, field: str) -> tuple[int, int]:
    # RFC 29, 5.1.4: "if the receiveMax is too large to fit in a UInt64, decode
    # receiveMax as MaxUInt64"; the same for sendMax.
    octets, offset = read_var_octets(data, offset, field)
    if not octets:
        raise RemoteProtocolError(f"{field}: an integer has at least one octet")
    return min(int.from_bytes(octets, "big"), U64_MAX), offset


def _read_text(data: bytes, offset: int, field: str) -> tuple[str, int]:
    octets, offset = read_var_octets(data, offset, field)
    try:
        return octets.decode("utf-8"), offset
    except UnicodeDecodeError:
        raise RemoteProtocolError(f"{field}: UTF-8 expected") from None


def _write_text(text: str) -> bytes:
    try:
        return var_octets(text.encode("utf-8"))
    except UnicodeEncodeError:
        raise LocalProtocolError(f"not writable as UTF-8: {text[:80]!r}") from None


def _read_address(data: bytes, offset: int, field: str) -> tuple[str, int]:
    text, offset = _read_text(data, offset, field)
    if text and not is_address(text):
        raise RemoteProtocolError(f"{field}: not an ILP address")
    return text, offset


def _write_address(address: str) -> bytes:
    if address and not is_address(address):
        raise LocalProtocolError(f"not an ILP address: {address[:80]!r}")
    return _write_text(address)


_UINT = Kind(read_var_uint, var_uint)
_SATURATING = Kind(_read_saturating, var_uint)
_OCTET = Kind(_read_octet, _write_octet)
_TEXT = Kind(_read_text, _write_text)
_ADDRESS = Kind(_read_address, _write_address)
_OCTETS = Kind(read_var_octets, var_octets)

#: Type number and, in the order of the Struct's fields, their kinds (RFC 29, 5.3).
LAYOUTS: Final[dict[type[Frame], tuple[int, tuple[Kind, ...]]]] = {
    ConnectionClose: (0x01, (_OCTET, _TEXT)),
    NewAddress: (0x02, (_ADDRESS,)),
    MaxData: (0x03, (_UINT,)),
    DataBlocked: (0x04, (_UINT,)),
    MaxStreamId: (0x05, (_UINT,)),
    StreamIdBlocked: (0x06, (_UINT,)),
    AssetDetails: (0x07, (_TEXT, _OCTET)),
    StreamClose: (0x10, (_UINT, _OCTET, _TEXT)),
    StreamMoney: (0x11, (_UINT, _UINT)),
    StreamMaxMoney: (0x12, (_UINT, _SATURATING, _UINT)),
    StreamMoneyBlocked: (0x13, (_UINT, _SATURATING, _UINT)),
    StreamData: (0x14, (_UINT, _UINT, _OCTETS)),
    StreamMaxData: (0x15, (_UINT, _UINT)),
    StreamDataBlocked: (0x16, (_UINT, _UINT)),
    StreamReceipt: (0x17, (_UINT, _OCTETS)),
}
#: The same by type number, with the names of the fields.
BY_TYPE: Final[dict[int, tuple[type[Frame], tuple[tuple[str, Kind], ...]]]] = {
    number: (frame, tuple(zip(frame.__struct_fields__, kinds, strict=True)))
    for frame, (number, kinds) in LAYOUTS.items()
}

assert set(LAYOUTS) == set(get_args(Frame))
assert len(BY_TYPE) == len(LAYOUTS)


def _read_frame(number: int, contents: bytes) -> Frame | None:
    found = BY_TYPE.get(number)
    if found is None:
        return None
    frame, fields = found
    values = []
    offset = 0
    for name, kind in fields:
        value, offset = kind.read(contents, offset, name)
        values.append(value)
    if offset != len(contents):
        raise RemoteProtocolError(f"{frame.__name__}: {len(contents) - offset} bytes after its end")
    return frame(*values)


def decode(data: bytes) -> Packet:
    """Decode a decrypted STREAM packet. Raises RemoteProtocolError, naming the field that is wrong."""
    if len(data) < 2:
        raise RemoteProtocolError(f"stream packet: {len(data)} bytes, at least 8 expected")
    if data[0] != VERSION:
        raise RemoteProtocolError(f"stream version: {data[0]}, {VERSION} expected")
    if data[1] not in (PREPARE, FULFILL, REJECT):
        raise RemoteProtocolError(f"stream packet type: {data[1]} is none of 12, 13, 14")
    sequence, offset = read_var_uint(data, 2, "sequence")
    prepare_amount, offset = read_var_uint(data, offset, "prepare amount")
    count, offset = read_var_uint(data, offset, "frame count")
    if count > STREAM_FRAMES_MAX:
        raise RemoteProtocolError(f"frame count: {count}, at most {STREAM_FRAMES_MAX}")
    frames = []
    for _ in range(count):
        number, offset = read_uint(data, offset, 1, "frame type")
        contents, offset = read_var_octets(data, offset, "frame")
        frame = _read_frame(number, contents)
        if frame is not None:
            frames.append(frame)
    return Packet(sequence, data[1], prepare_amount, tuple(frames))


def _frame(frame: Frame) -> bytes:
    number, kinds = LAYOUTS[type(frame)]
    contents = b"".join(
        [kind.write(getattr(frame, name)) for name, kind in zip(frame.__struct_fields__, kinds, strict=True)],
    )
    return bytes((number,)) + var_octets(contents)


def encode(packet: Packet) -> bytes:
    """Encode a packet, ready to be encrypted. Raises LocalProtocolError for what STREAM cannot carry."""
    if packet.packet_type not in (PREPARE, FULFILL, REJECT):
        raise LocalProtocolError(f"stream packet type: {packet.packet_type} is none of 12, 13, 14")
    if len(packet.frames) > STREAM_FRAMES_MAX:
        raise LocalProtocolError(f"frames: {len(packet.frames)}, at most {STREAM_FRAMES_MAX}")
    return b"".join(
        [
            bytes((VERSION, packet.packet_type)),
            var_uint(packet.sequence),
            var_uint(packet.prepare_amount),
            var_uint(len(packet.frames)),
            *map(_frame, packet.frames),
        ],
    )
