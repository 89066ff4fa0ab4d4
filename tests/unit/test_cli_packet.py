"""`connector packet decode` reads whatever bytes a person has, and shows which byte says what."""

import json
from base64 import b64encode, urlsafe_b64encode
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.cli.dissect import Section
from connector.cli.packet import app, read
from connector.errors import ConnectorError, PaymentError, RemoteProtocolError
from connector.protocol import btp, ildcp, ilp, stream
from connector.protocol.stream_crypto import Keys

SECRET = bytes(range(32))
KEYS = Keys(SECRET)
PLAIN = stream.encode(stream.Packet(5, 12, 90, (stream.StreamMoney(1, 100), stream.NewAddress(""))))
SEALED = KEYS.encrypt(PLAIN, bytes(12))
PREPARE = ilp.encode_prepare(ilp.Prepare(100, 1_700_000_000_000, bytes(32), "test.alice", SEALED))


def titles(sections: list[Section]) -> list[str]:
    return [section.title for section in sections]


def value(sections: list[Section], title: str, name: str) -> str:
    section = next(section for section in sections if section.title == title)
    return next(field.value for field in section.fields if field.name == name)


@pytest.mark.parametrize(
    "text",
    [
        PREPARE.hex(),
        PREPARE.hex().upper(),
        "0x" + PREPARE.hex(),
        PREPARE.hex(":"),
        PREPARE.hex(" ") + "\n",
        b64encode(PREPARE).decode(),
        b64encode(PREPARE).decode().rstrip("="),
        urlsafe_b64encode(PREPARE).decode(),
    ],
)
def test_bytes_may_be_written_in_hexadecimal_or_base64(text: str) -> None:
    assert titles(read(text)) == ["ILP prepare"]


def test_each_field_has_its_bytes_and_no_byte_is_left_out() -> None:
    (section,) = read(PREPARE.hex())
    places = [(field.start, field.end) for field in section.fields]
    assert places[0][0] == 0
    assert places[-1][1] == section.size == len(PREPARE)
    assert [end for _, end in places[:-1]] == [start for start, _ in places[1:]]
    assert [field.name for field in section.fields] == [
        "type", "length", "amount", "expires at", "condition", "destination", "data",
    ]  # fmt: skip
    assert value([section], "ILP prepare", "expires at") == "2023-11-14T22:13:20.000Z"
    assert value([section], "ILP prepare", "destination") == "'test.alice'"


def test_a_btp_frame_shows_the_ilp_packet_in_it_and_with_the_secret_the_stream_packet_in_that() -> None:
    sections = read(btp.ilp_message(7, PREPARE).hex(), KEYS)
    assert titles(sections) == ["BTP message", "ILP prepare", "STREAM encryption", "STREAM packet"]
    assert value(sections, "BTP message", "request id") == "7"
    assert value(sections, "ILP prepare", "amount") == "100"
    assert value(sections, "STREAM packet", "prepare amount") == "90"
    assert value(sections, "STREAM packet", "StreamMoney shares") == "100"


def test_stream_bytes_are_read_in_the_clear_and_with_the_secret_encrypted() -> None:
    assert titles(read(PLAIN.hex())) == ["STREAM packet"]
    assert titles(read(SEALED.hex(), KEYS)) == ["STREAM encryption", "STREAM packet"]


def test_data_of_another_secret_is_said_to_be_so_and_the_rest_still_shown() -> None:
    sections = read(PREPARE.hex(), Keys(bytes(32)))
    assert titles(sections) == [
        "ILP prepare",
        "data: encrypted data: changed on its way, or another secret",
    ]


def test_the_data_of_f08_and_ildcp_is_taken_apart() -> None:
    too_large = ilp.Reject("F08", "test.b", "", (9).to_bytes(8, "big") + (4).to_bytes(8, "big"))
    sections = read(ilp.encode_reject(too_large).hex())
    assert value(sections, "F08 data", "received amount") == "9"
    assert value(sections, "F08 data", "maximum amount") == "4"
    config = ildcp.reply(ildcp.ChildConfig("test.a.b", 6, "USD"))
    assert value(read(ilp.encode_fulfill(config).hex()), "ILDCP reply", "asset code") == "'USD'"


def test_every_kind_of_btp_frame_is_read() -> None:
    auth = (btp.SubProtocol("auth", 0, b""), btp.SubProtocol("auth_token", 1, b"token"))
    frames: list[btp.Frame] = [
        btp.Message(1, auth),
        btp.Response(1, ()),
        btp.Error(1, "F00", "NotAcceptedError", "20170101000000.000Z", b"no"),
        btp.Transfer(1, 50, ()),
    ]
    found = [read(btp.encode(frame).hex()) for frame in frames]
    assert [titles(sections)[0] for sections in found] == [
        "BTP message", "BTP response", "BTP error", "BTP transfer",
    ]  # fmt: skip
    assert value(found[0], "BTP message", "auth_token data") == "'token'"
    assert value(found[3], "BTP transfer", "amount") == "50"


def test_a_frame_whose_packet_is_damaged_is_shown_with_what_is_wrong() -> None:
    sections = read(btp.ilp_message(7, b"\x0c\x05").hex())
    assert titles(sections) == ["BTP message", "ilp data: prepare: 5 octets announced, 0 there"]


def test_all_stream_vectors_are_taken_apart_to_the_last_byte() -> None:
    vectors = json.loads((Path(__file__).parent.parent / "vectors/stream_packets.json").read_text())
    for vector in vectors:
        (section,) = read(vector["buffer"])
        assert section.fields[-1].end == section.size


def test_bytes_that_are_no_packet_say_so_for_each_format() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        read("ffffffff")
    assert str(caught.value).splitlines() == [
        "4 bytes that are no packet:",
        "not ILP: packet type: 12, 13 or 14 expected, 255 found",
        "not BTP: btp frame: 4 bytes, at least 6 expected",
        "not STREAM: stream version: 255, 1 expected",
    ]


@pytest.mark.parametrize(("text", "reason"), [("", "no bytes given"), ("§§", "neither in hexadecimal nor")])
def test_text_that_is_no_bytes_says_so(text: str, reason: str) -> None:
    with pytest.raises(PaymentError, match=reason):
        read(text)


@given(st.text(max_size=60) | st.binary(max_size=90).map(bytes.hex))
def test_no_text_makes_it_fail_but_with_a_reason(text: str) -> None:
    try:
        read(text, KEYS)
    except ConnectorError as error:
        assert str(error)


def run(*arguments: str) -> int:
    status = app(arguments, result_action="return_value")
    assert isinstance(status, int)
    return status


def test_the_command_reads_standard_input_and_prints_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", StringIO(SEALED.hex() + "\n"))
    assert run("decode", "-", "--secret", b64encode(SECRET).decode(), "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert [section["title"] for section in printed["sections"]] == ["STREAM encryption", "STREAM packet"]
    assert printed["sections"][1]["fields"][2] == {"start": 2, "end": 4, "name": "sequence", "value": "5"}


def test_the_command_prints_fields_beside_their_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("decode", PLAIN.hex()) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["1", "ILP", "packet", "type", "12", "(prepare)"] in lines
    assert ["2–3", "sequence", "5"] in lines
