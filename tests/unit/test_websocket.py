"""Whole binary frames are taken out of a stream; every other octet is left to the WebSocket library.

`tests/property/test_codecs.py` compares the splitter with wsproto on any stream.
"""

import pytest

from connector.protocol.websocket import FrameSplitter, Split, binary_frame

MASK = b"\x01\x02\x03\x04"
PING = b"\x89\x02hi"
CLOSE = b"\x88\x02\x03\xe8"


def splitter(*, masked: bool = False, max_bytes: int = 70_000) -> FrameSplitter:
    return FrameSplitter(masked=masked, max_bytes=max_bytes)


@pytest.mark.parametrize(
    ("length", "header"),
    [
        (0, "8200"),
        (125, "827d"),
        (126, "827e007e"),
        (65_535, "827effff"),
        (65_536, "827f0000000000010000"),
    ],
)
def test_a_frame_has_the_shortest_length(length: int, header: str) -> None:
    payload = b"x" * length
    frame = binary_frame(payload)
    assert frame == bytes.fromhex(header) + payload
    assert splitter().split(frame) == Split([payload], b"", len(frame))


@pytest.mark.parametrize("length", [0, 1, 3, 4, 5, 125, 126, 65_536])
def test_a_masked_frame_is_unmasked(length: int) -> None:
    payload = bytes(index % 251 for index in range(length))
    frame = binary_frame(payload, MASK)
    assert frame[1] & 0x80
    assert frame.endswith(bytes(octet ^ MASK[index % 4] for index, octet in enumerate(payload)))
    assert splitter(masked=True).split(frame) == Split([payload], b"", len(frame))


def test_frames_of_one_read_come_as_one_batch() -> None:
    data = binary_frame(b"a") + PING + binary_frame(b"b") + binary_frame(b"c")[:2]
    assert splitter().split(data) == Split([b"a", b"b"], PING, len(data) - 2)


@pytest.mark.parametrize("cut", range(1, 5 + 126))
def test_an_unfinished_frame_waits(cut: int) -> None:
    frame = binary_frame(b"x" * 126, MASK)
    assert splitter(masked=True).split(frame[:cut]) == Split([], b"", 0)


@pytest.mark.parametrize(
    "frame",
    [
        b"\x81\x02hi",  # text
        PING,
        b"\x8a\x00",
        b"\xc2\x02hi",  # an extension's bit
        b"\xa2\x02hi",
        b"\x92\x02hi",
        b"\x83\x02hi",  # no opcode
        b"\x80\x02hi",  # continues nothing
        b"\x82\x82\x01\x02\x03\x04hi",  # masked where it may not be
    ],
)
def test_other_frames_are_left_to_the_library(frame: bytes) -> None:
    data = frame + binary_frame(b"a")
    assert splitter().split(data) == Split([b"a"], frame, len(data))


def test_a_client_has_to_mask() -> None:
    plain = binary_frame(b"a")
    assert splitter(masked=True).split(plain) == Split([], plain, len(plain))


def test_a_message_in_fragments_is_left_to_the_library_pings_included() -> None:
    split = splitter()
    fragments = b"\x02\x01a" + PING + b"\x00\x01b" + b"\x80\x01c"
    assert split.split(fragments[:5]) == Split([], b"\x02\x01a", 3)
    # A binary frame in the middle of a message breaks the protocol: the library is to see it.
    assert split.split(fragments[3:] + binary_frame(b"d")) == Split([b"d"], fragments[3:], len(fragments))


def test_a_binary_frame_within_a_message_is_for_the_library_to_refuse() -> None:
    data = b"\x02\x01a" + binary_frame(b"b")
    assert splitter().split(data) == Split([], data, len(data))


def test_a_frame_that_is_too_long_is_never_buffered() -> None:
    split = splitter(max_bytes=200)
    data = binary_frame(b"a") + binary_frame(b"x" * 201)[:4]
    assert split.split(data) == Split([b"a"], data[3:], len(data))
    assert split.split(b"x" * 10 + binary_frame(b"b")) == Split([], b"x" * 10 + binary_frame(b"b"), 13)


def test_a_frame_of_the_largest_size_is_taken() -> None:
    frame = binary_frame(b"x" * 200)
    assert splitter(max_bytes=200).split(frame) == Split([b"x" * 200], b"", len(frame))


@pytest.mark.parametrize(
    "header", ["827e007d", "827f000000000000007d", "827f000000000000ffff", "827fffffffffffffffff"]
)
def test_a_length_that_breaks_the_protocol_hands_the_connection_over(header: str) -> None:
    split = splitter()
    data = bytes.fromhex(header)
    assert split.split(data) == Split([], data, len(data))
    assert split.split(binary_frame(b"a")) == Split([], binary_frame(b"a"), 3)


def test_nothing_counts_after_a_close_frame() -> None:
    split = splitter()
    data = binary_frame(b"a") + CLOSE + binary_frame(b"b")
    assert split.split(data) == Split([b"a"], data[3:], len(data))
    assert split.split(binary_frame(b"c")) == Split([], binary_frame(b"c"), 3)
