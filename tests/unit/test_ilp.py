"""ILPv4 packets (RFC 27): octet for octet, strict in, shortest out, rewritten in place."""

import base64
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connector.errors import LocalProtocolError, RemoteProtocolError
from connector.limits import ILP_DATA_MAX_BYTES, ILP_MESSAGE_MAX_BYTES, MINUTE_CACHE_MAX, U64_MAX
from connector.protocol import ilp
from connector.protocol.oer import var_octets

VECTORS = Path(__file__).parent.parent / "vectors"
NOON_MS = 1_767_268_800_000
NOON = b"20260101120000000"
CONDITION = bytes(range(32))
PREPARE = ilp.Prepare(107, NOON_MS, CONDITION, "test.alice", b"hello")
REJECT = ilp.Reject("F02", "test.node", "no route", b"why")
FULFILL = ilp.Fulfill(CONDITION, b"thanks")


def vectors(kind: str) -> list[dict[str, Any]]:
    found = json.loads((VECTORS / f"ilp_{kind}.json").read_text())
    return found if isinstance(found, list) else [found]


def milliseconds(text: str) -> int:
    moment = datetime.fromisoformat(text)
    return int(moment.timestamp()) * 1000 + moment.microsecond // 1000


def body(destination: bytes = b"\x0atest.alice", data: bytes = b"\x05hello", expiry: bytes = NOON) -> bytes:
    """A Prepare's body with pieces of one's own choosing."""
    return (107).to_bytes(8, "big") + expiry + CONDITION + destination + data


def prepare_of(body: bytes) -> bytes:
    return b"\x0c" + var_octets(body)


# --- vectors ---


@pytest.mark.parametrize("vector", vectors("prepare"), ids=lambda vector: vector["name"])
def test_a_prepare_of_the_vectors(vector: dict[str, Any]) -> None:
    fields, octets = vector["json"], bytes.fromhex(vector["binary"])
    prepare = ilp.Prepare(
        int(fields["amount"]),
        milliseconds(fields["expiresAt"]),
        base64.b64decode(fields["executionCondition"]),
        fields["destination"],
        base64.b64decode(fields["data"]),
    )
    assert ilp.decode(octets) == prepare
    assert ilp.encode_prepare(prepare) == octets


@pytest.mark.parametrize("vector", vectors("fulfill"), ids=lambda vector: vector["name"])
def test_a_fulfill_of_the_vectors(vector: dict[str, Any]) -> None:
    fields, octets = vector["json"], bytes.fromhex(vector["binary"])
    fulfill = ilp.Fulfill(base64.b64decode(fields["fulfillment"]), base64.b64decode(fields["data"]))
    assert ilp.decode(octets) == fulfill
    assert ilp.encode_fulfill(fulfill) == octets


@pytest.mark.parametrize("vector", vectors("reject"), ids=lambda vector: vector["name"])
def test_a_reject_of_the_vectors(vector: dict[str, Any]) -> None:
    fields, octets = vector["json"], bytes.fromhex(vector["binary"])
    reject = ilp.Reject(
        fields["code"], fields["triggeredBy"], fields["message"], base64.b64decode(fields["data"])
    )
    assert ilp.decode(octets) == reject
    assert ilp.encode_reject(reject) == octets


# --- timestamps ---


@pytest.mark.parametrize(
    ("digits", "at_ms"),
    [
        (b"19700101000000000", 0),
        (b"20171223012140549", 1_513_992_100_549),
        (b"20240229235959999", 1_709_251_199_999),
        (b"99991231235959999", ilp.TIMESTAMP_MAX_MS),
        (b"19691231235959999", -1),
        (b"00010101000000000", ilp.TIMESTAMP_MIN_MS),
    ],
)
def test_a_timestamp_is_milliseconds_since_the_epoch(digits: bytes, at_ms: int) -> None:
    assert ilp.parse_timestamp(digits) == at_ms
    assert ilp.format_timestamp(at_ms) == digits


@pytest.mark.parametrize(
    "digits",
    [
        b"20230229000000000",  # no leap year
        b"20261301000000000",
        b"20260100000000000",
        b"20260132000000000",
        b"20260101240000000",
        b"20260101006000000",
        b"00000101000000000",
        b"20260101000060000",  # a leap second has no place in milliseconds since the epoch
        b"2026010100000000",
        b"202601010000000000",
        b"2026010100000000a",
        b"+0260101000000000",
        b" 0260101000000000",
        b"20260101T00000000",
        "2026010100000000１".encode()[:17],  # noqa: RUF001 - a digit, but not ASCII
        b"",
    ],
)
def test_a_timestamp_that_is_no_moment_is_refused(digits: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="expiry: "):
        ilp.parse_timestamp(digits)


@pytest.mark.parametrize("at_ms", [ilp.TIMESTAMP_MIN_MS - 1, ilp.TIMESTAMP_MAX_MS + 1])
def test_a_moment_without_a_four_digit_year_is_not_written(at_ms: int) -> None:
    with pytest.raises(LocalProtocolError, match="has no four-digit year"):
        ilp.format_timestamp(at_ms)


def test_remembered_minutes_are_bounded_and_stay_right() -> None:
    for minute in range(3_000):
        at_ms = NOON_MS + minute * 60_000 + minute
        assert ilp.parse_timestamp(ilp.format_timestamp(at_ms)) == at_ms
    assert len(ilp._ms_of_minute) <= MINUTE_CACHE_MAX
    assert len(ilp._minute_of_ms) <= MINUTE_CACHE_MAX


# --- what is refused ---


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"", "packet type: 12, 13 or 14 expected, nothing found"),
        (b"\x00", "packet type: 12, 13 or 14 expected, 0 found"),
        (b"\x0f\x00", "packet type: 12, 13 or 14 expected, 15 found"),
        (b"\x0c", "prepare: the length is missing"),
        (b"\x0c\x00", "prepare: cut off before the destination"),
        (b"\x0c\x05\x00", "prepare: 5 octets announced, 1 there"),
        (prepare_of(body()) + b"\x00", "prepare: 1 bytes after its end"),
        (prepare_of(body()[:56]), "prepare: cut off before the destination"),
        (prepare_of(body(data=b"\x05hello!")), "data: 1 bytes after its end"),
        (prepare_of(body(data=b"\x05hell")), "data: 5 octets announced, 4 there"),
        (prepare_of(body(data=b"")), "data: the length is missing"),
        (prepare_of(body(destination=b"\x00")), "destination: not an ILP address"),
        (prepare_of(body(destination=b"\x04test")), "destination: not an ILP address"),
        (prepare_of(body(destination=b"\x0btest.alice\n")), "destination: not an ILP address"),
        (prepare_of(body(destination=b"\x08test.\xef\xbc\x91")), "destination: ASCII expected"),
        (prepare_of(body(expiry=b"2026010112000000Z")), "expiry: 17 digits YYYYMMDDHHMMSSmmm expected"),
        (prepare_of(body(expiry=b"20260132120000000")), "expiry: not a date and time"),
        (prepare_of(body(expiry=b"20260101120060000")), "expiry: more than 59 seconds"),
        (prepare_of(body(data=var_octets(bytes(32_768)))), "data: 32768 bytes, at most 32767"),
        (b"\x0c" + var_octets(bytes(60_000)), "prepare: 60004 bytes, at most 42109"),
        (b"\x0d\x1f" + bytes(31), "fulfillment: 32 bytes expected"),
        (b"\x0d\x20" + bytes(32), "data: the length is missing"),
        (b"\x0d\x22" + bytes(34), "data: 1 bytes after its end"),
        (b"\x0d\x21" + bytes(34), "fulfill: 1 bytes after its end"),
        (b"\x0e\x02F0", "code: F, T or R and two digits expected"),
        (b"\x0e\x06X00\x00\x00\x00", "code: F, T or R and two digits expected"),
        (b"\x0e\x06F0a\x00\x00\x00", "code: F, T or R and two digits expected"),
        (b"\x0e\x06F\xc2\xb2\x00\x00\x00", "code: ASCII expected"),
        (b"\x0e\x07F00\x01g\x00\x00", "triggered by: not an ILP address"),
        (b"\x0e\x07F00\x01\xff\x00\x00", "triggered by: ASCII expected"),
        (b"\x0e\x07F00\x00\x01\xff\x00", "message: UTF-8 expected"),
        (b"\x0e\x05F00\x00\x00", "data: the length is missing"),
        (
            b"\x0e" + var_octets(b"F00\x00" + var_octets(b"m" * 8_192) + b"\x00"),
            "message: 8192 bytes, at most 8191",
        ),
    ],
)
def test_what_breaks_the_format_is_refused_by_name(packet: bytes, reason: str) -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        ilp.decode(packet)
    assert str(refused.value) == reason


def test_each_decoder_takes_its_own_type_alone() -> None:
    with pytest.raises(RemoteProtocolError, match=r"^prepare: type 12 expected, 13 found$"):
        ilp.decode_prepare(ilp.encode_fulfill(FULFILL))
    with pytest.raises(RemoteProtocolError, match=r"^fulfill: type 13 expected, 14 found$"):
        ilp.decode_fulfill(ilp.encode_reject(REJECT))
    with pytest.raises(RemoteProtocolError, match=r"^reject: type 14 expected, nothing found$"):
        ilp.decode_reject(b"")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"amount": -1}, "amount: -1 does not fit in 64 bits"),
        ({"amount": U64_MAX + 1}, "amount: 18446744073709551616 does not fit in 64 bits"),
        ({"condition": bytes(31)}, "condition: 32 bytes expected"),
        ({"destination": "test"}, "destination: not an ILP address"),
        ({"destination": "test.ä"}, "destination: not an ILP address"),
        ({"data": bytes(ILP_DATA_MAX_BYTES + 1)}, "data: more than 32767 bytes"),
    ],
)
def test_a_prepare_that_ilp_cannot_carry_is_not_written(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(LocalProtocolError) as refused:
        ilp.encode_prepare(msgspec.structs.replace(PREPARE, **change))
    assert str(refused.value) == reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"code": "F0"}, "code: 'F0' is none"),
        ({"code": "X00"}, "code: 'X00' is none"),
        ({"code": "F0²"}, "code: 'F0²' is none"),
        ({"triggered_by": "test"}, "triggered by: not an ILP address"),
        ({"message": "m" * (ILP_MESSAGE_MAX_BYTES + 1)}, "message: more than 8191 bytes"),
        ({"message": "€" * 2_731}, "message: more than 8191 bytes"),
        ({"message": "\ud800"}, "message: not Unicode"),
        ({"data": bytes(ILP_DATA_MAX_BYTES + 1)}, "data: more than 32767 bytes"),
    ],
)
def test_a_reject_that_ilp_cannot_carry_is_not_written(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(LocalProtocolError) as refused:
        ilp.encode_reject(msgspec.structs.replace(REJECT, **change))
    assert str(refused.value) == reason


def test_a_fulfill_that_ilp_cannot_carry_is_not_written() -> None:
    with pytest.raises(LocalProtocolError, match="fulfillment: 32 bytes expected"):
        ilp.encode_fulfill(ilp.Fulfill(bytes(33), b""))
    with pytest.raises(LocalProtocolError, match="data: more than 32767 bytes"):
        ilp.encode_fulfill(ilp.Fulfill(bytes(32), bytes(ILP_DATA_MAX_BYTES + 1)))


def test_the_largest_packets_pass() -> None:
    longest = "g." + "a" * 1_021
    data = bytes(ILP_DATA_MAX_BYTES)
    prepare = ilp.Prepare(U64_MAX, ilp.TIMESTAMP_MAX_MS, CONDITION, longest, data)
    reject = ilp.Reject("R99", longest, "m" * ILP_MESSAGE_MAX_BYTES, data)
    assert ilp.decode(ilp.encode_prepare(prepare)) == prepare
    assert ilp.decode(ilp.encode_reject(reject)) == reject


def test_an_empty_triggered_by_is_read_and_written() -> None:
    reject = ilp.Reject("T00", "", "", b"")
    assert ilp.encode_reject(reject) == b"\x0e\x06T00\x00\x00\x00"
    assert ilp.decode_reject(b"\x0e\x06T00\x00\x00\x00") == reject


# --- rewriting ---


def test_a_rewrite_keeps_every_other_octet() -> None:
    packet = ilp.encode_prepare(PREPARE)
    rewritten = ilp.rewrite_prepare(packet, PREPARE, 99, NOON_MS - 1_000)
    assert rewritten == packet[:2] + (99).to_bytes(8, "big") + b"20260101115959000" + packet[27:]


@pytest.mark.parametrize(
    "padded",
    [
        b"\x0c\x81\x4a" + body(),
        b"\x0c\x88\x00\x00\x00\x00\x00\x00\x00\x4a" + body(),
        prepare_of(body(destination=b"\x81\x0atest.alice")),
        prepare_of(body(data=b"\x82\x00\x05hello")),
        b"\x0c\x81\x4d" + body(destination=b"\x82\x00\x0atest.alice", data=b"\x81\x05hello"),
    ],
)
def test_a_padded_prefix_is_read_and_rewritten_short(padded: bytes) -> None:
    prepare = ilp.decode_prepare(padded)
    assert prepare == PREPARE
    rewritten = ilp.rewrite_prepare(padded, prepare, 99, NOON_MS - 1_000)
    shortest = ilp.encode_prepare(msgspec.structs.replace(PREPARE, amount=99, expires_at_ms=NOON_MS - 1_000))
    assert rewritten == shortest


def test_a_fulfill_is_relayed_as_it_came_or_shortened() -> None:
    packet = ilp.encode_fulfill(FULFILL)
    assert ilp.shortest_fulfill(packet, FULFILL) is packet
    for padded in (
        b"\x0d\x81\x27" + packet[2:],
        b"\x0d\x28" + CONDITION + b"\x81\x06thanks",
    ):
        assert ilp.decode_fulfill(padded) == FULFILL
        assert ilp.shortest_fulfill(padded, FULFILL) == packet
