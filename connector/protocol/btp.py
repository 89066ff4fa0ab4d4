"""BTP/2.0 frames (RFC 23).

    frame = type u8 | request id u32 | body var-octets

    message, response   sub-protocols
    error               code 3 | name | triggered at | data | sub-protocols
    transfer            amount u64 | sub-protocols

    sub-protocols = count var-uint, then name | content type u8 | data for each

The packet path uses `read_packet`, `ilp_message` and `ilp_response`, which
touch only what carries an ILP packet; all else goes through `decode`.
"""

from urllib.parse import urlsplit

import msgspec

from connector.errors import LocalProtocolError, RemoteProtocolError
from connector.limits import (
    BTP_NAME_MAX_BYTES,
    BTP_SUB_PROTOCOLS_MAX,
    OER_LENGTH_OCTETS_MAX,
    U32_MAX,
    U64_MAX,
)
from connector.protocol.oer import (
    length_prefix,
    read_length,
    read_uint,
    read_var_octets,
    read_var_uint,
    var_octets,
    var_uint,
)

RESPONSE = 1
ERROR = 2
MESSAGE = 6
TRANSFER = 7

OCTET_STREAM = 0
TEXT = 1
JSON = 2

ILP = "ilp"
AUTH = "auth"
AUTH_TOKEN = "auth_token"
AUTH_USERNAME = "auth_username"

#: One sub-protocol named `ilp` of octets: what stands between a frame's length and the packet's.
_ONE_ILP = b"\x01\x01\x03ilp\x00"
_CARRIERS = (MESSAGE, RESPONSE)
#: A message or response without sub-protocols.
_NO_SUB_PROTOCOLS = b"\x01\x00"
_URL_EXPECTED = "a URL ws://HOST:PORT or wss://HOST:PORT is expected"


class SubProtocol(msgspec.Struct, frozen=True):
    """One named piece of a frame."""

    name: str
    content_type: int
    data: bytes


class Message(msgspec.Struct, frozen=True):
    """A request; answered by a Response or an Error with the same id."""

    request_id: int
    sub_protocols: tuple[SubProtocol, ...]


class Response(msgspec.Struct, frozen=True):
    """The answer to a Message or a Transfer; carries ILP Fulfills *and* Rejects."""

    request_id: int
    sub_protocols: tuple[SubProtocol, ...]


class Error(msgspec.Struct, frozen=True):
    """BTP's own failure; never an ILP Reject. `triggered_at` is generalized time."""

    request_id: int
    code: str
    name: str
    triggered_at: str
    data: bytes
    sub_protocols: tuple[SubProtocol, ...] = ()


class Transfer(msgspec.Struct, frozen=True):
    """A payment on the underlying ledger, which we answer with an Error: peers settle by claims."""

    request_id: int
    amount: int
    sub_protocols: tuple[SubProtocol, ...]


Frame = Message | Response | Error | Transfer


def split_url(url: str) -> tuple[str, int, str, bool]:
    """(host, port, resource, whether TLS) of a `ws://` or `wss://` URL, `btp+` before it allowed.

    The host is as DNS and TLS have it: ASCII, other letters encoded by IDNA.
    Raises ValueError for anything else, without showing it: some programs put
    a token into the URL.
    """
    # urlsplit would leave out line breaks, and all that stands before the scheme.
    if not _is_visible(url):
        raise ValueError(_URL_EXPECTED)
    try:
        parts = urlsplit(url.removeprefix("btp+"))
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(_URL_EXPECTED) from None
    if parts.scheme not in ("ws", "wss") or not host or port == 0:
        raise ValueError(_URL_EXPECTED)
    if "@" in parts.netloc:
        raise ValueError("a user name or token in the URL is not used: they are given by themselves")
    secure = parts.scheme == "wss"
    port = port or (443 if secure else 80)
    resource = parts.path or "/"
    if parts.query:
        resource += "?" + parts.query
    try:
        host = host.encode("idna").decode("ascii")
        # What the WebSocket handshake encodes: its Host header.
        f"{host}:{port}".encode("idna")
    except UnicodeError:
        raise ValueError(_URL_EXPECTED) from None
    if not _is_visible(host) or not resource.isascii():
        raise ValueError(_URL_EXPECTED)
    return host, port, resource, secure


def _is_visible(text: str) -> bool:
    """Whether `text` has neither spaces nor control characters of ASCII."""
    return all(character > " " and character != "\x7f" for character in text)


def find(sub_protocols: tuple[SubProtocol, ...], name: str) -> SubProtocol | None:
    """The sub-protocol called `name`, if it is there."""
    for sub_protocol in sub_protocols:
        if sub_protocol.name == name:
            return sub_protocol
    return None


def read_packet(frame: bytes) -> bytes | None:
    """The ILP packet, if `frame` is a message or response with nothing else in it.

    None means "not that shape", not "wrong": `decode` says what it is.
    """
    if len(frame) < 6 or frame[0] not in _CARRIERS:
        return None
    first = frame[5]
    offset = 6 if first < 128 else 6 + (first & 0x7F)
    if frame[offset : offset + 7] != _ONE_ILP:
        return None
    offset += 7
    if offset >= len(frame):
        return None
    length = frame[offset]
    offset += 1
    if length >= 128:
        octets = length & 0x7F
        if not 1 <= octets <= OER_LENGTH_OCTETS_MAX:
            return None
        length = int.from_bytes(frame[offset : offset + octets], "big")
        offset += octets
    end = offset + length
    # The frame's own length is checked by what it must be when nothing follows.
    if end != len(frame) or (first < 128 and end != 6 + first):
        return None
    if first >= 128:
        octets = first & 0x7F
        if octets > OER_LENGTH_OCTETS_MAX or int.from_bytes(frame[6 : 6 + octets], "big") != end - 6 - octets:
            return None
    return frame[offset:]


def _ilp_frame(kind: int, request_id: int, packet: bytes) -> bytes:
    size = len(packet)
    inner = length_prefix(size)
    return b"%c%b%b\x01\x01\x03ilp\x00%b%b" % (
        kind,
        request_id.to_bytes(4, "big"),
        length_prefix(7 + len(inner) + size),
        inner,
        packet,
    )


def ilp_message(request_id: int, packet: bytes) -> bytes:
    """A Message that carries one ILP packet."""
    return _ilp_frame(MESSAGE, request_id, packet)


def ilp_response(request_id: int, packet: bytes) -> bytes:
    """A Response that carries one ILP packet."""
    return _ilp_frame(RESPONSE, request_id, packet)


def empty_response(request_id: int) -> bytes:
    """A Response without sub-protocols: "heard"."""
    return b"\x01" + request_id.to_bytes(4, "big") + b"\x02" + _NO_SUB_PROTOCOLS


def decode(frame: bytes) -> Frame:
    """Decode a frame of any type. Raises RemoteProtocolError, naming the field that is wrong."""
    if len(frame) < 5:
        raise RemoteProtocolError(f"btp frame: {len(frame)} bytes, at least 6 expected")
    kind = frame[0]
    request_id = int.from_bytes(frame[1:5], "big")
    length, start = read_length(frame, 5, "btp frame")
    if start + length != len(frame):
        raise RemoteProtocolError(f"btp frame: {len(frame) - start - length} bytes after its end")
    if kind == MESSAGE:
        return Message(request_id, _read_sub_protocols(frame, start))
    if kind == RESPONSE:
        return Response(request_id, _read_sub_protocols(frame, start))
    if kind == ERROR:
        return _read_error(frame, start, request_id)
    if kind == TRANSFER:
        amount, offset = read_uint(frame, start, 8, "transfer amount")
        return Transfer(request_id, amount, _read_sub_protocols(frame, offset))
    raise RemoteProtocolError(f"btp frame: type {kind} is none of 1, 2, 6, 7")


def _ia5(octets: bytes, field: str) -> str:
    if not octets.isascii():
        raise RemoteProtocolError(f"{field}: ASCII expected")
    return octets.decode("ascii")


def _read_error(frame: bytes, offset: int, request_id: int) -> Error:
    code = _ia5(frame[offset : offset + 3], "error code")
    if len(code) != 3:
        raise RemoteProtocolError("error code: 3 characters expected")
    name, offset = read_var_octets(frame, offset + 3, "error name")
    triggered_at, offset = read_var_octets(frame, offset, "error time")
    data, offset = read_var_octets(frame, offset, "error data")
    return Error(
        request_id,
        code,
        _ia5(name, "error name"),
        _ia5(triggered_at, "error time"),
        data,
        _read_sub_protocols(frame, offset),
    )


def _read_sub_protocols(frame: bytes, offset: int) -> tuple[SubProtocol, ...]:
    count, offset = read_var_uint(frame, offset, "sub-protocol count")
    if count > BTP_SUB_PROTOCOLS_MAX:
        raise RemoteProtocolError(f"sub-protocol count: {count}, at most {BTP_SUB_PROTOCOLS_MAX}")
    found: list[SubProtocol] = []
    names: set[str] = set()
    for _ in range(count):
        octets, offset = read_var_octets(frame, offset, "sub-protocol name")
        if len(octets) > BTP_NAME_MAX_BYTES:
            raise RemoteProtocolError(f"sub-protocol name: {len(octets)} bytes, at most {BTP_NAME_MAX_BYTES}")
        name = _ia5(octets, "sub-protocol name")
        if name in names:
            raise RemoteProtocolError(f"sub-protocol {name!r}: there twice")
        names.add(name)
        content_type, offset = read_uint(frame, offset, 1, "content type")
        if content_type > JSON:
            raise RemoteProtocolError(f"content type: {content_type} is none of 0, 1, 2")
        data, offset = read_var_octets(frame, offset, f"sub-protocol {name!r}")
        found.append(SubProtocol(name, content_type, data))
    if offset != len(frame):
        raise RemoteProtocolError(f"sub-protocols: {len(frame) - offset} bytes after the last")
    return tuple(found)


def encode(frame: Frame) -> bytes:
    """Encode a frame. Raises LocalProtocolError for values that BTP cannot carry."""
    if not 0 <= frame.request_id <= U32_MAX:
        raise LocalProtocolError(f"request id: {frame.request_id} does not fit in 32 bits")
    rest = _sub_protocols(frame.sub_protocols)
    if isinstance(frame, Message):
        kind, body = MESSAGE, rest
    elif isinstance(frame, Response):
        kind, body = RESPONSE, rest
    elif isinstance(frame, Error):
        kind, body = ERROR, _error_head(frame) + rest
    else:
        if not 0 <= frame.amount <= U64_MAX:
            raise LocalProtocolError(f"transfer amount: {frame.amount} does not fit in 64 bits")
        kind, body = TRANSFER, frame.amount.to_bytes(8, "big") + rest
    return bytes((kind,)) + frame.request_id.to_bytes(4, "big") + var_octets(body)


def _error_head(error: Error) -> bytes:
    if not (error.code.isascii() and len(error.code) == 3):
        raise LocalProtocolError(f"error code: 3 ASCII characters expected, got {error.code!r}")
    if not (error.name.isascii() and error.triggered_at.isascii()):
        raise LocalProtocolError("error name and time: ASCII expected")
    return b"".join(
        (
            error.code.encode("ascii"),
            var_octets(error.name.encode("ascii")),
            var_octets(error.triggered_at.encode("ascii")),
            var_octets(error.data),
        ),
    )


def _sub_protocols(sub_protocols: tuple[SubProtocol, ...]) -> bytes:
    if len(sub_protocols) > BTP_SUB_PROTOCOLS_MAX:
        raise LocalProtocolError(f"sub-protocols: {len(sub_protocols)}, at most {BTP_SUB_PROTOCOLS_MAX}")
    if len({sub_protocol.name for sub_protocol in sub_protocols}) != len(sub_protocols):
        raise LocalProtocolError("sub-protocols: a name stands twice")
    parts = [var_uint(len(sub_protocols))]
    for sub_protocol in sub_protocols:
        name = sub_protocol.name
        if not (name.isascii() and len(name) <= BTP_NAME_MAX_BYTES):
            raise LocalProtocolError("sub-protocol name: ASCII of at most 255 bytes expected")
        if not OCTET_STREAM <= sub_protocol.content_type <= JSON:
            raise LocalProtocolError(f"content type: {sub_protocol.content_type} is none of 0, 1, 2")
        parts += (
            var_octets(name.encode("ascii")),
            bytes((sub_protocol.content_type,)),
            var_octets(sub_protocol.data),
        )
    return b"".join(parts)
