"""ILDCP (RFC 31): what a child asks, and what it is told."""

import base64

import pytest

from connector.errors import LocalProtocolError, RemoteProtocolError
from connector.protocol import ildcp
from connector.protocol.ilp import Fulfill, Prepare

CONFIG = ildcp.ChildConfig("test.node.child", 9, "XRP")
DATA = b"\x0ftest.node.child\x09\x03XRP"


def test_the_condition_is_the_hash_of_zeros() -> None:
    expected = base64.b64decode("Zmh6rfhivXdsj8GLjp+OIAiXFIVu4jOzkCpZHQ1fKSU=")
    assert expected == ildcp.CONDITION
    assert expected.hex().startswith("66687aad")
    assert bytes(32) == ildcp.FULFILLMENT


def test_a_request_has_no_value() -> None:
    assert ildcp.request(1_000) == Prepare(0, 1_000, ildcp.CONDITION, "peer.config", b"")


def test_a_reply_is_read_as_it_was_written() -> None:
    reply = ildcp.reply(CONFIG)
    assert reply == Fulfill(bytes(32), DATA)
    assert ildcp.read_reply(reply) == CONFIG


@pytest.mark.parametrize("scale", [-1, 256])
def test_a_scale_is_one_octet(scale: int) -> None:
    with pytest.raises(LocalProtocolError, match="a scale of one octet"):
        ildcp.reply(ildcp.ChildConfig("test.node.child", scale, "XRP"))


def test_a_reply_carries_an_address_and_an_ascii_code() -> None:
    with pytest.raises(LocalProtocolError, match="child address: not an ILP address"):
        ildcp.reply(ildcp.ChildConfig("test", 9, "XRP"))
    with pytest.raises(LocalProtocolError, match="an ASCII code expected"):
        ildcp.reply(ildcp.ChildConfig("test.node.child", 9, "€"))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "child address: the length is missing"),
        (DATA[:10], "child address: 15 octets announced, 9 there"),
        (DATA[:16], "asset scale: 1 octets needed, 0 there"),
        (DATA[:17], "asset code: the length is missing"),
        (DATA[:-1], "asset code: 3 octets announced, 2 there"),
        (DATA + b"\x00", "ildcp: 1 bytes after its end"),
        (b"\x04test\x09\x03XRP", "ildcp: an ILP address and an ASCII asset code expected"),
        (b"\x07test.a\n\x09\x03XRP", "ildcp: an ILP address and an ASCII asset code expected"),
        (b"\x06test.a\x09\x03\xff\xff\xff", "ildcp: an ILP address and an ASCII asset code expected"),
        (b"\x07test.\xff\xff\x09\x03XRP", "ildcp: an ILP address and an ASCII asset code expected"),
    ],
)
def test_a_reply_that_breaks_the_format_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        ildcp.read_reply(Fulfill(bytes(32), data))
    assert str(refused.value) == reason
