"""STREAM packets are the ones of RFC 29, octet for octet, and nothing else is."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from connector.errors import LocalProtocolError, RemoteProtocolError
from connector.limits import STREAM_FRAMES_MAX, U64_MAX
from connector.protocol import stream
from connector.protocol.stream_crypto import Keys, condition

VECTORS = Path(__file__).parent.parent / "vectors"
# What the vectors call frames and fields, where our names are shorter.
FRAMES = {
    "ConnectionNewAddress": "NewAddress",
    "ConnectionAssetDetails": "AssetDetails",
    "ConnectionMaxData": "MaxData",
    "ConnectionDataBlocked": "DataBlocked",
    "ConnectionMaxStreamId": "MaxStreamId",
    "ConnectionStreamIdBlocked": "StreamIdBlocked",
}


def vectors() -> list[Any]:
    rfc = json.loads((VECTORS / "stream_packets.json").read_text())
    javascript = json.loads((VECTORS / "stream_packets_js.json").read_text())
    cases = [pytest.param(vector, id=f"rfc:{vector['name']}") for vector in rfc]
    return cases + [pytest.param(vector, id=f"js:{name}") for name, vector in javascript.items()]


def frame_of(fields: dict[str, Any]) -> stream.Frame:
    name = fields["name"]
    kind: Any = getattr(stream, FRAMES.get(name, name))
    values = [value for key, value in fields.items() if key not in ("type", "name")]
    frame: stream.Frame = kind(*map(_value, kind.__struct_fields__, values))
    return frame


def _value(field: str, value: str | int) -> str | int | bytes:
    if field in ("data", "receipt"):
        return base64.b64decode(str(value))
    if field in ("error_message", "source_account", "source_asset_code"):
        return value
    return int(value)


@pytest.mark.parametrize("vector", vectors())
def test_a_vector_reads_as_its_fields_and_writes_as_its_octets(vector: dict[str, Any]) -> None:
    octets = base64.b64decode(vector["buffer"])
    fields = vector["packet"]
    packet = stream.Packet(
        int(fields["sequence"]),
        fields["packetType"],
        int(fields["amount"]),
        tuple(frame_of(frame) for frame in fields["frames"]),
    )
    assert stream.decode(octets) == packet
    if not vector.get("decode_only"):
        assert stream.encode(packet) == octets


def test_every_frame_type_has_a_vector() -> None:
    seen = {
        type(frame)
        for vector in json.loads((VECTORS / "stream_packets.json").read_text())
        for frame in stream.decode(base64.b64decode(vector["buffer"])).frames
    }
    assert seen == set(stream.LAYOUTS)


def test_a_frame_of_an_unknown_type_is_skipped() -> None:
    known = b"\x11\x04\x01\x7b\x01\x05"
    octets = b"\x01\x0c\x01\x00\x01\x00\x01\x02" + b"\x63\x03abc" + known
    assert stream.decode(octets).frames == (stream.StreamMoney(123, 5),)


def test_padding_after_the_last_frame_is_ignored() -> None:
    packet = stream.Packet(7, 13, 99, (stream.MaxData(1),))
    assert stream.decode(stream.encode(packet) + bytes(64)) == packet


def test_an_empty_new_address_means_that_its_sender_cannot_be_paid() -> None:
    packet = stream.Packet(1, 12, 0, (stream.NewAddress(""),))
    assert stream.decode(stream.encode(packet)) == packet


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"", "stream packet: 0 bytes"),
        (b"\x02\x0c\x01\x00\x01\x00\x01\x00", "stream version: 2, 1 expected"),
        (b"\x01\x0b\x01\x00\x01\x00\x01\x00", "stream packet type: 11"),
        (b"\x01\x0c\x00\x01\x00\x01\x00", "sequence: an integer has at least one octet"),
        (b"\x01\x0c\x09\x01" + bytes(8), "sequence: more than 64 bits"),
        (b"\x01\x0c\x01\x00\x01\x00", "frame count: the length is missing"),
        (b"\x01\x0c\x01\x00\x01\x00\x02\x01\x01", "frame count: 257, at most 256"),
        (b"\x01\x0c\x01\x00\x01\x00\x01\x01", "frame type: 1 octets needed, 0 there"),
        (b"\x01\x0c\x01\x00\x01\x00\x01\x01\x11\x05\x01\x01", "frame: 5 octets announced, 2 there"),
        (b"\x01\x0c\x01\x00\x01\x00\x01\x01\x11\x05\x01\x01\x01\x01\x00", "StreamMoney: 1 bytes after"),
        (b"\x01\x0c\x01\x00\x01\x00\x01\x01\x01\x03\x01\x01\xff", "error_message: UTF-8 expected"),
        (b"\x01\x0c\x01\x00\x01\x00\x01\x01\x02\x04\x03g.\n", "source_account: not an ILP address"),
        (b"\x01\x0c\x01\x00\x01\x00\x01\x01\x12\x05\x01\x01\x00\x01\x00", "receive_max: an integer has"),
    ],
)
def test_what_is_not_a_packet_is_refused_by_the_field_that_is_wrong(octets: bytes, reason: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        stream.decode(octets)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    "packet",
    [
        stream.Packet(U64_MAX + 1, 12, 0),
        stream.Packet(0, 11, 0),
        stream.Packet(0, 12, -1),
        stream.Packet(0, 12, 0, (stream.MaxData(0),) * (STREAM_FRAMES_MAX + 1)),
        stream.Packet(0, 12, 0, (stream.NewAddress("alice"),)),
        stream.Packet(0, 12, 0, (stream.AssetDetails("USD", 256),)),
        stream.Packet(0, 12, 0, (stream.ConnectionClose(1, "\ud800"),)),
    ],
)
def test_what_stream_cannot_carry_is_not_written(packet: stream.Packet) -> None:
    with pytest.raises(LocalProtocolError):
        stream.encode(packet)


def test_the_stock_implementation_reads_and_makes_the_same_encryption() -> None:
    # Made with ilp-protocol-stream 2.7.2-alpha.3: secret and IV of sevens, "hello".
    keys = Keys(b"\x07" * 32)
    sealed = bytes.fromhex("0707070707070707070707071b2aed38e0c0f12719103e70dc8bfb0c333e026b4f")
    assert keys.encrypt(b"hello", b"\x07" * 12) == sealed
    assert keys.decrypt(sealed) == b"hello"
    assert (
        keys.fulfillment(sealed).hex() == "153f03e3c78baf872fb6eca3441386514940aeec45f7deeb27beec87f9f386ea"
    )
    assert (
        condition(keys.fulfillment(sealed)).hex()
        == "db05ffb34fbdf30963447baede668cebc3a5553e69e3f2b07f16845a10bf7f67"
    )


def test_encryption_adds_exactly_twenty_eight_octets() -> None:
    sealed = Keys(bytes(32)).encrypt(b"x" * 100, bytes(12))
    assert len(sealed) == 128
    assert sealed[:12] == bytes(12)


@pytest.mark.parametrize("place", [0, 11, 12, 27, 28, 32])
def test_one_changed_bit_anywhere_fails_to_decrypt(place: int) -> None:
    keys = Keys(bytes(32))
    sealed = bytearray(keys.encrypt(b"hello", bytes(12)))
    sealed[place] ^= 1
    with pytest.raises(RemoteProtocolError, match="changed on its way, or another secret"):
        keys.decrypt(bytes(sealed))


def test_data_too_short_to_be_encrypted_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="27 bytes, at least 28 expected"):
        Keys(bytes(32)).decrypt(bytes(27))


def test_wrong_sizes_of_secret_iv_and_packet_are_our_own_fault() -> None:
    with pytest.raises(LocalProtocolError, match="shared secret: 31 bytes"):
        Keys(bytes(31))
    with pytest.raises(LocalProtocolError, match="IV: 16 bytes"):
        Keys(bytes(32)).encrypt(b"", bytes(16))
    with pytest.raises(LocalProtocolError, match="do not fit in an ILP packet"):
        Keys(bytes(32)).encrypt(bytes(32_740), bytes(12))
