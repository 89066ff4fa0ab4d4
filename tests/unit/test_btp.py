"""BTP/2.0 frames (RFC 23): octet for octet, strict in, shortest out, and a short cut for packets."""

from typing import Any

import pytest

from connector.errors import LocalProtocolError, RemoteProtocolError
from connector.limits import BTP_SUB_PROTOCOLS_MAX, U32_MAX, U64_MAX
from connector.protocol import btp
from connector.protocol.btp import JSON, OCTET_STREAM, TEXT, Error, Message, Response, SubProtocol, Transfer
from connector.protocol.oer import var_octets

PACKET = b"\x0c\x03abc"
ILP = SubProtocol("ilp", OCTET_STREAM, PACKET)
ILP_BODY = b"\x01\x01\x03ilp\x00\x05" + PACKET


def frame_of(kind: int, body: bytes, request_id: int = 7) -> bytes:
    return bytes((kind,)) + request_id.to_bytes(4, "big") + var_octets(body)


@pytest.mark.parametrize(
    ("frame", "octets"),
    [
        (Message(7, (ILP,)), "06 00000007 0d 0101 03696c70 00 05 0c03616263"),
        (Response(7, (ILP,)), "01 00000007 0d 0101 03696c70 00 05 0c03616263"),
        (Response(0, ()), "01 00000000 02 0100"),
        (
            Message(
                U32_MAX,
                (SubProtocol("auth", OCTET_STREAM, b""), SubProtocol("auth_token", TEXT, b"secret")),
            ),
            "06 ffffffff 1c 0102 0461757468 00 00 0a617574685f746f6b656e 01 06736563726574",
        ),
        (
            Error(
                1, "F00", "NotAcceptedError", "20260101120000.000Z", b"why", (SubProtocol("x", JSON, b"{}"),)
            ),
            (
                "02 00000001 34 463030 104e6f7441636365707465644572726f72"
                " 1332303236303130313132303030302e3030305a 03776879 0101 0178 02 027b7d"
            ),
        ),
        (Transfer(2, U64_MAX, ()), "07 00000002 0a ffffffffffffffff 0100"),
    ],
)
def test_a_frame_is_written_and_read_as_the_rfc_says(frame: btp.Frame, octets: str) -> None:
    assert btp.encode(frame).hex() == octets.replace(" ", "")
    assert btp.decode(bytes.fromhex(octets)) == frame


def test_the_short_cuts_write_what_the_encoder_writes() -> None:
    for size in (0, 1, 112, 120, 127, 128, 248, 255, 256, 40_000):
        packet = bytes(size)
        carried = (SubProtocol("ilp", OCTET_STREAM, packet),)
        assert btp.ilp_message(9, packet) == btp.encode(Message(9, carried))
        assert btp.ilp_response(U32_MAX, packet) == btp.encode(Response(U32_MAX, carried))
        assert btp.read_packet(btp.ilp_message(9, packet)) == packet
    assert btp.empty_response(9) == btp.encode(Response(9, ()))


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", "btp frame: 0 bytes, at least 6 expected"),
        (b"\x06\x00\x00\x00", "btp frame: 4 bytes, at least 6 expected"),
        (b"\x06\x00\x00\x00\x07", "btp frame: the length is missing"),
        (frame_of(6, ILP_BODY)[:-1], "btp frame: 13 octets announced, 12 there"),
        (frame_of(6, ILP_BODY) + b"\x00", "btp frame: 1 bytes after its end"),
        (frame_of(3, b"\x01\x00"), "btp frame: type 3 is none of 1, 2, 6, 7"),
        (frame_of(6, b""), "sub-protocol count: the length is missing"),
        (frame_of(6, b"\x00"), "sub-protocol count: an integer has at least one octet"),
        (frame_of(6, b"\x01\x00\x00"), "sub-protocols: 1 bytes after the last"),
        (frame_of(6, b"\x01\x01"), "sub-protocol name: the length is missing"),
        (frame_of(6, b"\x01\x11"), "sub-protocol count: 17, at most 16"),
        (frame_of(6, b"\x08" + b"\xff" * 8), "sub-protocol count: 18446744073709551615, at most 16"),
        (frame_of(6, b"\x01\x01\x01a"), "content type: 1 octets needed, 0 there"),
        (frame_of(6, b"\x01\x01\x01a\x03\x00"), "content type: 3 is none of 0, 1, 2"),
        (frame_of(6, b"\x01\x01\x01a\x00"), "sub-protocol 'a': the length is missing"),
        (frame_of(6, b"\x01\x01\x01\xe4\x00\x00"), "sub-protocol name: ASCII expected"),
        (
            frame_of(6, b"\x01\x01\x82\x01\x00" + b"a" * 256 + b"\x00\x00"),
            "sub-protocol name: 256 bytes, at most 255",
        ),
        (frame_of(6, b"\x01\x02\x01a\x00\x00\x01a\x00\x00"), "sub-protocol 'a': there twice"),
        (frame_of(7, bytes(7)), "transfer amount: 8 octets needed, 7 there"),
        (frame_of(2, b"F0"), "error code: 3 characters expected"),
        (frame_of(2, b"F\xff0\x00\x00\x00\x01\x00"), "error code: ASCII expected"),
        (frame_of(2, b"F00\x01\xff\x00\x00\x01\x00"), "error name: ASCII expected"),
        (frame_of(2, b"F00\x00\x01\xff\x00\x01\x00"), "error time: ASCII expected"),
        (frame_of(2, b"F00\x00\x00"), "error data: the length is missing"),
    ],
)
def test_what_breaks_the_format_is_refused_by_name(frame: bytes, reason: str) -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        btp.decode(frame)
    assert str(refused.value) == reason
    assert btp.read_packet(frame) is None


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (Message(-1, ()), "request id: -1 does not fit in 32 bits"),
        (Message(U32_MAX + 1, ()), "request id: 4294967296 does not fit in 32 bits"),
        (Transfer(1, U64_MAX + 1, ()), "transfer amount: 18446744073709551616 does not fit in 64 bits"),
        (Message(1, (ILP, ILP)), "sub-protocols: a name stands twice"),
        (Message(1, (ILP,) * (BTP_SUB_PROTOCOLS_MAX + 1)), "sub-protocols: 17, at most 16"),
        (Message(1, (SubProtocol("a", 3, b""),)), "content type: 3 is none of 0, 1, 2"),
        (Message(1, (SubProtocol("ä", 0, b""),)), "sub-protocol name: ASCII of at most 255 bytes expected"),
        (
            Message(1, (SubProtocol("a" * 256, 0, b""),)),
            "sub-protocol name: ASCII of at most 255 bytes expected",
        ),
        (Error(1, "F0", "", "", b""), "error code: 3 ASCII characters expected, got 'F0'"),
        (Error(1, "F00", "ä", "", b""), "error name and time: ASCII expected"),
    ],
)
def test_what_btp_cannot_carry_is_not_written(frame: btp.Frame, reason: str) -> None:
    with pytest.raises(LocalProtocolError) as refused:
        btp.encode(frame)
    assert str(refused.value) == reason


@pytest.mark.parametrize("kind", [btp.MESSAGE, btp.RESPONSE])
@pytest.mark.parametrize(
    "rest",
    [
        b"\x0d" + ILP_BODY,
        b"\x81\x0d" + ILP_BODY,
        b"\x88" + bytes(7) + b"\x0d" + ILP_BODY,
        b"\x0e" + ILP_BODY[:7] + b"\x81\x05" + PACKET,
        b"\x15" + ILP_BODY[:7] + b"\x88" + bytes(7) + b"\x05" + PACKET,
        b"\x08" + ILP_BODY[:7] + b"\x00",
    ],
)
def test_the_short_cut_reads_padded_lengths_too(kind: int, rest: bytes) -> None:
    frame = bytes((kind, 0, 0, 0, 7)) + rest
    decoded = btp.decode(frame)
    assert isinstance(decoded, Message | Response)
    assert btp.read_packet(frame) == decoded.sub_protocols[0].data


@pytest.mark.parametrize(
    "rest",
    [
        b"\x89" + bytes(8) + b"\x0d" + ILP_BODY,  # nine octets of length
        b"\x80" + ILP_BODY,
        b"\x16" + ILP_BODY[:7] + b"\x89" + bytes(8) + b"\x05" + PACKET,
        b"\x08" + ILP_BODY[:7] + b"\x80",
    ],
)
def test_the_short_cut_takes_no_length_that_the_decoder_refuses(rest: bytes) -> None:
    frame = b"\x06\x00\x00\x00\x07" + rest
    assert btp.read_packet(frame) is None
    with pytest.raises(RemoteProtocolError, match="is not accepted"):
        btp.decode(frame)


@pytest.mark.parametrize(
    "frame",
    [
        btp.encode(Message(1, (SubProtocol("ilp", TEXT, PACKET),))),
        btp.encode(Message(1, (SubProtocol("ilpx", OCTET_STREAM, PACKET),))),
        btp.encode(Message(1, (ILP, SubProtocol("x", TEXT, b"")))),
        btp.encode(Message(1, ())),
        btp.encode(Transfer(1, 5, (ILP,))),
        btp.encode(Error(1, "F00", "x", "", b"", (ILP,))),
    ],
)
def test_the_short_cut_leaves_every_other_shape_to_the_decoder(frame: bytes) -> None:
    assert btp.read_packet(frame) is None
    assert btp.encode(btp.decode(frame)) == frame


def test_a_sub_protocol_is_found_by_name() -> None:
    other = SubProtocol("other", TEXT, b"x")
    assert btp.find((other, ILP), "ilp") == ILP
    assert btp.find((other, ILP), "auth") is None


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("ws://127.0.0.1:7701", ("127.0.0.1", 7701, "/", False)),
        ("ws://example.com", ("example.com", 80, "/", False)),
        ("wss://example.com/btp?v=2", ("example.com", 443, "/btp?v=2", True)),
        ("btp+wss://example.com:7443/", ("example.com", 7443, "/", True)),
        ("ws://[::1]:7701", ("::1", 7701, "/", False)),
        ("ws://bücher.example", ("xn--bcher-kva.example", 80, "/", False)),
    ],
)
def test_a_url_says_where_to_dial(url: str, parts: tuple[Any, ...]) -> None:
    assert btp.split_url(url) == parts


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://a:1",
        "ws://",
        "ws://:1",
        "a:1",
        "ws://a:x",
        "ws://a:0",
        "ws://a:65536",
        "ws://[::1",
        "ws://a:se/cret@b",
        "ws://a/hunter 2",
        "ws://a/?hunter 2",
        "ws://a/hunt\ner",
        "ws://a/\x00",
        "ws://a/\x7f",
        "ws://a/h\xfcnter",
        "ws://a/?h\xfcnter",
        " ws://a",
        "ws://a\n",
        "ws://a b",
        "ws://a\xa0b",
        "ws://a\x00",
        "ws://a..b",
        "ws://.a",
        "ws://\u2024",
        f"ws://{'a' * 64}",
        # The host and the port stand in one header.
        f"ws://{'a' * 60}:7701",
    ],
)
def test_what_is_no_url_of_a_link_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"^a URL ws://HOST:PORT or wss://HOST:PORT is expected$"):
        btp.split_url(url)


@pytest.mark.parametrize("url", ["btp+ws://:hunter2@host:7768", "ws://bob:hunter2@host", "ws://hunter2@host"])
def test_a_url_with_a_token_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ValueError, match="token") as refused:
        btp.split_url(url)
    assert "hunter2" not in str(refused.value)
