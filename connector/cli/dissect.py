"""Takes ILP, BTP and STREAM bytes apart: each field beside the bytes that it has.

Pure. The codecs in `connector.protocol` judge the bytes first, so what is shown
here is known to be well-formed; this module only walks it again for the places.
"""

from typing import Final

import msgspec

from connector.errors import RemoteProtocolError
from connector.protocol import btp, ildcp, ilp, stream
from connector.protocol.oer import (
    read_length,
    read_uint,
    read_var_octets,
    read_var_uint,
)
from connector.protocol.stream_crypto import IV_BYTES, OVERHEAD_BYTES, Keys

_ILP_NAMES: Final = {ilp.PREPARE: "prepare", ilp.FULFILL: "fulfill", ilp.REJECT: "reject"}
_BTP_NAMES: Final = {
    btp.RESPONSE: "response",
    btp.ERROR: "error",
    btp.MESSAGE: "message",
    btp.TRANSFER: "transfer",
}
_CONTENT_TYPES: Final = ("octet-stream", "text", "json")


class Field(msgspec.Struct, frozen=True):
    """Bytes `start` to `end` (not included) of a section, and what they say."""

    start: int
    end: int
    name: str
    value: str


class Section(msgspec.Struct, frozen=True):
    """One packet or frame, with places counted from its own first byte."""

    title: str
    size: int
    fields: list[Field]


class _Walker:
    """Reads field after field of well-formed bytes and notes where each was."""

    def __init__(self, title: str, data: bytes) -> None:
        self.data = data
        self.offset = 0
        self.section = Section(title, len(data), [])

    def note(self, end: int, name: str, value: str) -> None:
        self.section.fields.append(Field(self.offset, end, name, value))
        self.offset = end

    def uint(self, octets: int, name: str, meanings: dict[int, str] | None = None) -> int:
        value, end = read_uint(self.data, self.offset, octets, name)
        meaning = (meanings or {}).get(value)
        self.note(end, name, f"{value} ({meaning})" if meaning else str(value))
        return value

    def var_uint(self, name: str) -> int:
        value, end = read_var_uint(self.data, self.offset, name)
        self.note(end, name, str(value))
        return value

    def octets(self, size: int, name: str, *, text: bool = False) -> bytes:
        value = self.data[self.offset : self.offset + size]
        self.note(self.offset + size, name, value.decode("ascii") if text else shown(value))
        return value

    def length(self, name: str) -> int:
        value, end = read_length(self.data, self.offset, name)
        self.note(end, name, str(value))
        return value

    def var_octets(self, name: str, *, text: bool = False) -> bytes:
        value, end = read_var_octets(self.data, self.offset, name)
        self.note(end, name, repr(value.decode("utf-8", "replace")) if text else shown(value))
        return value


def shown(octets: bytes) -> str:
    """Octets as hexadecimal, or `(empty)`."""
    return octets.hex() or "(empty)"


def dissect(data: bytes, keys: Keys | None = None) -> list[Section]:
    """The sections of whatever `data` is; those inside another follow it.

    `keys` open STREAM packets. Raises RemoteProtocolError, saying for each
    format why it is not that.
    """
    problems = []
    for name, read in (("ILP", ilp_sections), ("BTP", btp_sections), ("STREAM", stream_sections)):
        try:
            return read(data, keys)
        except RemoteProtocolError as error:
            problems.append(f"not {name}: {error}")
    if keys is not None:
        try:
            return encrypted_sections(data, keys)
        except RemoteProtocolError as error:
            problems.append(f"not encrypted STREAM: {error}")
    raise RemoteProtocolError("\n".join(problems))


def ilp_sections(data: bytes, keys: Keys | None) -> list[Section]:
    """An ILPv4 packet, and what its data holds. Raises RemoteProtocolError."""
    packet = ilp.decode(data)
    walker = _Walker(f"ILP {_ILP_NAMES[data[0]]}", data)
    walker.uint(1, "type", _ILP_NAMES)
    walker.length("length")
    if isinstance(packet, ilp.Prepare):
        walker.uint(8, "amount")
        expires = walker.data[walker.offset : walker.offset + 17].decode("ascii")
        walker.note(walker.offset + 17, "expires at", _readable(expires))
        walker.octets(32, "condition")
        walker.var_octets("destination", text=True)
    elif isinstance(packet, ilp.Fulfill):
        walker.octets(32, "fulfillment")
    else:
        walker.octets(3, "code", text=True)
        walker.var_octets("triggered by", text=True)
        walker.var_octets("message", text=True)
    walker.var_octets("data")
    return [walker.section, *_inside(packet, keys)]


def _readable(digits: str) -> str:
    year, month, day = digits[:4], digits[4:6], digits[6:8]
    return f"{year}-{month}-{day}T{digits[8:10]}:{digits[10:12]}:{digits[12:14]}.{digits[14:]}Z"


def _inside(packet: ilp.Packet, keys: Keys | None) -> list[Section]:
    data = packet.data
    if isinstance(packet, ilp.Reject) and packet.code == "F08" and len(data) == 16:
        walker = _Walker("F08 data", data)
        walker.uint(8, "received amount")
        walker.uint(8, "maximum amount")
        return [walker.section]
    if isinstance(packet, ilp.Fulfill) and packet.fulfillment == ildcp.FULFILLMENT:
        try:
            return [_ildcp_section(packet)]
        except RemoteProtocolError:
            return []
    if keys is None or not data:
        return []
    try:
        return encrypted_sections(data, keys)
    except RemoteProtocolError as error:
        return [Section(f"data: {error}", len(data), [])]


def _ildcp_section(packet: ilp.Fulfill) -> Section:
    ildcp.read_reply(packet)
    walker = _Walker("ILDCP reply", packet.data)
    walker.var_octets("address", text=True)
    walker.uint(1, "asset scale")
    walker.var_octets("asset code", text=True)
    return walker.section


def encrypted_sections(data: bytes, keys: Keys) -> list[Section]:
    """An encrypted STREAM packet, and what is in it. Raises RemoteProtocolError."""
    plain = keys.decrypt(data)
    walker = _Walker("STREAM encryption", data)
    walker.octets(IV_BYTES, "IV")
    walker.octets(OVERHEAD_BYTES - IV_BYTES, "authentication tag")
    walker.octets(len(data) - OVERHEAD_BYTES, "ciphertext")
    return [walker.section, *stream_sections(plain, keys)]


def stream_sections(data: bytes, keys: Keys | None) -> list[Section]:
    """A STREAM packet in the clear. Raises RemoteProtocolError."""
    stream.decode(data)
    walker = _Walker("STREAM packet", data)
    walker.uint(1, "version")
    walker.uint(1, "ILP packet type", _ILP_NAMES)
    walker.var_uint("sequence")
    walker.var_uint("prepare amount")
    for _ in range(walker.var_uint("frame count")):
        _walk_frame(walker)
    if walker.offset < len(data):
        walker.octets(len(data) - walker.offset, "padding")
    return [walker.section]


def _walk_frame(walker: _Walker) -> None:
    number = walker.data[walker.offset]
    frame, fields = stream.BY_TYPE.get(number, (None, ()))
    name = frame.__name__ if frame else "unknown frame"
    walker.uint(1, "frame type", {number: name})
    size = walker.length(f"{name} length")
    if frame is None:
        walker.octets(size, name)
    for field, kind in fields:
        value, end = kind.read(walker.data, walker.offset, field)
        text = shown(value) if isinstance(value, bytes) else repr(value)
        walker.note(end, f"{name} {field.replace('_', ' ')}", text)


def btp_sections(data: bytes, keys: Keys | None) -> list[Section]:
    """A BTP frame, and the ILP packet in it. Raises RemoteProtocolError."""
    frame = btp.decode(data)
    walker = _Walker(f"BTP {_BTP_NAMES[data[0]]}", data)
    walker.uint(1, "type", _BTP_NAMES)
    walker.uint(4, "request id")
    walker.length("length")
    if isinstance(frame, btp.Error):
        walker.octets(3, "code", text=True)
        walker.var_octets("name", text=True)
        walker.var_octets("triggered at", text=True)
        walker.var_octets("data")
    elif isinstance(frame, btp.Transfer):
        walker.uint(8, "amount")
    walker.var_uint("sub-protocol count")
    inside: list[Section] = []
    for sub_protocol in frame.sub_protocols:
        walker.var_octets("sub-protocol name", text=True)
        walker.uint(1, "content type", dict(enumerate(_CONTENT_TYPES)))
        walker.var_octets(f"{sub_protocol.name} data", text=sub_protocol.content_type != btp.OCTET_STREAM)
        if sub_protocol.name == btp.ILP:
            inside += _carried(sub_protocol.data, keys)
    return [walker.section, *inside]


def _carried(data: bytes, keys: Keys | None) -> list[Section]:
    try:
        return ilp_sections(data, keys)
    except RemoteProtocolError as error:
        return [Section(f"ilp data: {error}", len(data), [])]
