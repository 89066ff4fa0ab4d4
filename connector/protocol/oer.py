"""Octet Encoding Rules as Interledger uses them (RFC 30).

A length prefix is one octet below 128, else an octet 0x80 + n followed by n
octets, big-endian. Written: always the shortest form. Read: any length form of
at most eight octets, since the RFC lets others pad it.

Readers take (data, offset) and return (value, next offset); they never read
past the end and raise `RemoteProtocolError` naming the field.
"""

from connector.errors import LocalProtocolError, RemoteProtocolError
from connector.limits import OER_LENGTH_OCTETS_MAX, U64_MAX

#: The prefixes of one octet.
_SHORT = tuple(bytes((length,)) for length in range(128))


def length_prefix(length: int) -> bytes:
    """The shortest length prefix for `length` octets."""
    if length < 128:
        return _SHORT[length]
    octets = (length.bit_length() + 7) // 8
    return bytes((0x80 | octets,)) + length.to_bytes(octets, "big")


def prefix_size(length: int) -> int:
    """How many octets `length_prefix(length)` has."""
    return 1 if length < 128 else 1 + (length.bit_length() + 7) // 8


def var_octets(value: bytes) -> bytes:
    """Length-prefixed octets."""
    return length_prefix(len(value)) + value


def var_uint(value: int) -> bytes:
    """A variable-length unsigned integer: its shortest big-endian octets, length-prefixed."""
    if not 0 <= value <= U64_MAX:
        raise LocalProtocolError(f"var-uint must fit in 64 bits, got {value}")
    octets = max(1, (value.bit_length() + 7) // 8)
    return bytes((octets,)) + value.to_bytes(octets, "big")


def read_length(data: bytes, offset: int, field: str) -> tuple[int, int]:
    """Read a length prefix whose octets all follow in `data`.

    Raises RemoteProtocolError when the prefix or what it announces is cut off.
    """
    size = len(data)
    if offset >= size:
        raise RemoteProtocolError(f"{field}: the length is missing")
    length = data[offset]
    offset += 1
    if length >= 128:
        octets = length & 0x7F
        if not 1 <= octets <= OER_LENGTH_OCTETS_MAX:
            raise RemoteProtocolError(f"{field}: a length of {octets} octets is not accepted")
        if offset + octets > size:
            raise RemoteProtocolError(f"{field}: the length is cut off")
        length = int.from_bytes(data[offset : offset + octets], "big")
        offset += octets
    if offset + length > size:
        raise RemoteProtocolError(
            f"{field}: {length} octets announced, {size - offset} there",
        )
    return length, offset


def read_var_octets(data: bytes, offset: int, field: str) -> tuple[bytes, int]:
    """Read length-prefixed octets."""
    # The common case, a length of one octet, without another call.
    if offset < len(data) and (length := data[offset]) < 128:
        offset += 1
        end = offset + length
        if end <= len(data):
            return data[offset:end], end
        offset -= 1
    length, offset = read_length(data, offset, field)
    end = offset + length
    return data[offset:end], end


def read_var_uint(data: bytes, offset: int, field: str) -> tuple[int, int]:
    """Read a variable-length unsigned integer of at most 64 bits.

    Leading zero octets are accepted (RFC 30 asks only writers for the shortest
    form); an empty one is not.
    """
    octets, offset = read_var_octets(data, offset, field)
    if not octets:
        raise RemoteProtocolError(f"{field}: an integer has at least one octet")
    value = int.from_bytes(octets, "big")
    if value > U64_MAX:
        raise RemoteProtocolError(f"{field}: more than 64 bits")
    return value, offset


def read_uint(data: bytes, offset: int, octets: int, field: str) -> tuple[int, int]:
    """Read a fixed-length big-endian unsigned integer of `octets` octets."""
    end = offset + octets
    if end > len(data):
        raise RemoteProtocolError(f"{field}: {octets} octets needed, {len(data) - offset} there")
    return int.from_bytes(data[offset:end], "big"), end
