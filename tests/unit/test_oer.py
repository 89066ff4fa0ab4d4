"""OER (RFC 30): shortest prefixes are written, longer ones are read, nothing is read past the end."""

import pytest

from connector.errors import LocalProtocolError, RemoteProtocolError
from connector.limits import U64_MAX
from connector.protocol import oer


@pytest.mark.parametrize(
    ("length", "prefix"),
    [
        (0, "00"),
        (1, "01"),
        (127, "7f"),
        (128, "8180"),
        (255, "81ff"),
        (256, "820100"),
        (65_535, "82ffff"),
        (65_536, "83010000"),
    ],
)
def test_a_length_is_written_in_its_shortest_form(length: int, prefix: str) -> None:
    assert oer.length_prefix(length).hex() == prefix
    assert oer.prefix_size(length) == len(prefix) // 2
    assert oer.var_octets(bytes(length)) == bytes.fromhex(prefix) + bytes(length)


@pytest.mark.parametrize("prefix", ["03", "8103", "820003", "880000000000000003"])
def test_a_padded_length_is_read(prefix: str) -> None:
    data = bytes.fromhex(prefix) + b"abcd"
    assert oer.read_var_octets(data, 0, "field") == (b"abc", len(data) - 1)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("", "field: the length is missing"),
        ("80", "field: a length of 0 octets is not accepted"),
        ("89000000000000000001aa", "field: a length of 9 octets is not accepted"),
        ("ff", "field: a length of 127 octets is not accepted"),
        ("8201", "field: the length is cut off"),
        ("03aabb", "field: 3 octets announced, 2 there"),
        ("88ffffffffffffffffaa", "field: 18446744073709551615 octets announced, 1 there"),
    ],
)
def test_a_length_that_cannot_be_is_refused(data: str, reason: str) -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        oer.read_var_octets(bytes.fromhex(data), 0, "field")
    assert str(refused.value) == reason


@pytest.mark.parametrize(
    ("value", "octets"),
    [(0, "0100"), (2, "0102"), (255, "01ff"), (256, "020100"), (U64_MAX, "08ffffffffffffffff")],
)
def test_an_integer_is_written_in_its_fewest_octets(value: int, octets: str) -> None:
    assert oer.var_uint(value).hex() == octets
    assert oer.read_var_uint(bytes.fromhex(octets), 0, "field") == (value, len(octets) // 2)


def test_an_integer_may_have_leading_zeros_when_read() -> None:
    assert oer.read_var_uint(bytes.fromhex("0300000a"), 0, "field") == (10, 4)
    assert oer.read_var_uint(b"\x0b" + bytes(10) + b"\x05", 0, "field") == (5, 12)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("00", "field: an integer has at least one octet"),
        ("09010000000000000000", "field: more than 64 bits"),
        ("02ff", "field: 2 octets announced, 1 there"),
    ],
)
def test_an_integer_that_cannot_be_is_refused(data: str, reason: str) -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        oer.read_var_uint(bytes.fromhex(data), 0, "field")
    assert str(refused.value) == reason


@pytest.mark.parametrize("value", [-1, U64_MAX + 1])
def test_an_integer_beyond_64_bits_is_not_written(value: int) -> None:
    with pytest.raises(LocalProtocolError, match="must fit in 64 bits"):
        oer.var_uint(value)


def test_a_fixed_integer_is_read_whole_or_not_at_all() -> None:
    assert oer.read_uint(b"\xaa\x01\x02\xbb", 1, 2, "field") == (258, 3)
    with pytest.raises(RemoteProtocolError, match=r"^field: 8 octets needed, 3 there$"):
        oer.read_uint(b"\xaa\x01\x02\xbb", 1, 8, "field")
