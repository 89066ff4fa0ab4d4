"""Codecs: what is written is read again, what is read is written shortest, and no octets crash a decoder."""

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wsproto.frame_protocol import Frame, FrameProtocol, Opcode

from connector.errors import RemoteProtocolError
from connector.limits import U32_MAX, U64_MAX
from connector.protocol import address as addresses
from connector.protocol import btp, ildcp, ilp, oer
from connector.protocol.websocket import FrameSplitter, binary_frame

U64 = st.integers(0, U64_MAX)
SEGMENT = st.text("ABCXYZabcxyz0189_~-", min_size=1, max_size=12)
SCHEME = st.sampled_from(
    ("g", "private", "example", "peer", "self", "test", "test1", "test2", "test3", "local")
)
ADDRESS = st.builds(
    lambda scheme, rest: ".".join((scheme, *rest)), SCHEME, st.lists(SEGMENT, min_size=1, max_size=5)
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=150)
ASCII = st.text(st.characters(max_codepoint=127), max_size=140)
DATA = st.one_of(st.binary(max_size=20), st.binary(min_size=120, max_size=300))

PREPARE = st.builds(
    ilp.Prepare,
    U64,
    st.integers(ilp.TIMESTAMP_MIN_MS, ilp.TIMESTAMP_MAX_MS),
    st.binary(min_size=32, max_size=32),
    ADDRESS,
    DATA,
)
FULFILL = st.builds(ilp.Fulfill, st.binary(min_size=32, max_size=32), DATA)
REJECT = st.builds(
    ilp.Reject,
    st.from_regex(r"[FTR][0-9]{2}", fullmatch=True),
    st.one_of(st.just(""), ADDRESS),
    TEXT,
    DATA,
)
PACKET: st.SearchStrategy[ilp.Packet] = st.one_of(PREPARE, FULFILL, REJECT)

SUB_PROTOCOLS = st.lists(
    st.builds(btp.SubProtocol, st.one_of(st.just("ilp"), ASCII), st.integers(0, 2), DATA),
    max_size=4,
    unique_by=lambda sub_protocol: sub_protocol.name,
).map(tuple)
REQUEST_ID = st.integers(0, U32_MAX)
FRAME: st.SearchStrategy[btp.Frame] = st.one_of(
    st.builds(btp.Message, REQUEST_ID, SUB_PROTOCOLS),
    st.builds(btp.Response, REQUEST_ID, SUB_PROTOCOLS),
    st.builds(btp.Transfer, REQUEST_ID, U64, SUB_PROTOCOLS),
    st.builds(
        btp.Error,
        REQUEST_ID,
        st.text(st.characters(max_codepoint=127), min_size=3, max_size=3),
        ASCII,
        ASCII,
        DATA,
        SUB_PROTOCOLS,
    ),
)


def encode_ilp(packet: ilp.Packet) -> bytes:
    if isinstance(packet, ilp.Prepare):
        return ilp.encode_prepare(packet)
    return ilp.encode_fulfill(packet) if isinstance(packet, ilp.Fulfill) else ilp.encode_reject(packet)


def padded(length: int, more: int) -> bytes:
    """A length prefix that is longer than it needs to be, up to eight octets."""
    shortest = (max(length, 1).bit_length() + 7) // 8
    octets = min(8, shortest + more - 1)
    return oer.length_prefix(length) if not more else bytes((0x80 | octets,)) + length.to_bytes(octets, "big")


PAD = st.integers(0, 7)


# --- OER ---


@given(DATA, PAD, st.binary(max_size=5))
def test_octets_are_read_whatever_the_padding_and_what_follows(value: bytes, pad: int, after: bytes) -> None:
    written = padded(len(value), pad) + value
    assert oer.read_var_octets(b"x" + written + after, 1, "field") == (value, 1 + len(written))
    assert len(oer.var_octets(value)) <= len(written)
    assert len(oer.length_prefix(len(value))) == oer.prefix_size(len(value))


@given(U64, st.integers(0, 4))
def test_integers_are_read_whatever_the_leading_zeros(value: int, zeros: int) -> None:
    written = oer.var_uint(value)
    assert oer.read_var_uint(written, 0, "field") == (value, len(written))
    longer = oer.var_octets(bytes(zeros) + written[1:])
    assert oer.read_var_uint(longer, 0, "field") == (value, len(longer))


@given(st.binary(max_size=30), st.integers(0, 30), st.integers(0, 10))
def test_oer_readers_never_read_past_the_end(data: bytes, offset: int, octets: int) -> None:
    readers: tuple[Callable[[], tuple[object, int]], ...] = (
        lambda: oer.read_length(data, offset, "field"),
        lambda: oer.read_var_octets(data, offset, "field"),
        lambda: oer.read_var_uint(data, offset, "field"),
        lambda: oer.read_uint(data, offset, octets, "field"),
    )
    for read in readers:
        try:
            _, end = read()
        except RemoteProtocolError as error:
            assert str(error).startswith("field: ")
        else:
            assert offset <= end <= len(data)


# --- addresses ---


@given(st.one_of(ADDRESS, TEXT, st.from_regex(r"(g|test[0-9]?)(\.[\w~-]*)*\s?")))
def test_an_address_is_a_scheme_and_segments(text: str) -> None:
    scheme, *segments = text.split(".")
    allowed = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_~-")
    schemes = {"g", "private", "example", "peer", "self", "test", "test1", "test2", "test3", "local"}
    below = all(segment and set(segment) <= allowed for segment in segments)
    assert addresses.is_address(text) is (
        scheme in schemes and below and bool(segments) and len(text) <= 1023
    )
    assert addresses.is_prefix(text) is (text == "" or (scheme in schemes and below and len(text) <= 1023))


@given(ADDRESS, ADDRESS)
def test_covering_is_having_the_same_first_segments(prefix: str, address: str) -> None:
    segments = prefix.split(".")
    assert addresses.covers(prefix, address) is (address.split(".")[: len(segments)] == segments)
    assert addresses.covers(prefix, f"{prefix}.{address}")
    assert not addresses.covers(prefix, f"{prefix}x")


# --- ILP ---


@given(PACKET)
def test_a_packet_is_read_as_it_was_written(packet: ilp.Packet) -> None:
    assert ilp.decode(encode_ilp(packet)) == packet


@given(PREPARE, PAD, PAD, PAD, U64, st.integers(ilp.TIMESTAMP_MIN_MS, ilp.TIMESTAMP_MAX_MS))
def test_a_prepare_is_rewritten_in_place_or_shortest(
    prepare: ilp.Prepare,
    outer: int,
    middle: int,
    inner: int,
    amount: int,
    expires_at_ms: int,
) -> None:
    shortest = ilp.encode_prepare(prepare)
    destination = prepare.destination.encode()
    body = b"".join(
        (
            prepare.amount.to_bytes(8, "big")
            + ilp.format_timestamp(prepare.expires_at_ms)
            + prepare.condition,
            padded(len(destination), middle) + destination,
            padded(len(prepare.data), inner) + prepare.data,
        )
    )
    packet = b"\x0c" + padded(len(body), outer) + body
    assert ilp.decode_prepare(packet) == prepare
    rewritten = ilp.rewrite_prepare(packet, prepare, amount, expires_at_ms)
    changed = msgspec.structs.replace(prepare, amount=amount, expires_at_ms=expires_at_ms)
    assert rewritten == ilp.encode_prepare(changed)
    if packet == shortest:
        start = len(packet) - len(body)
        assert rewritten[:start] == packet[:start]
        assert rewritten[start + 25 :] == packet[start + 25 :]


@given(FULFILL, PAD, PAD)
def test_a_fulfill_is_relayed_shortest(fulfill: ilp.Fulfill, outer: int, inner: int) -> None:
    body = fulfill.fulfillment + padded(len(fulfill.data), inner) + fulfill.data
    packet = b"\x0d" + padded(len(body), outer) + body
    assert ilp.decode_fulfill(packet) == fulfill
    assert ilp.shortest_fulfill(packet, fulfill) == ilp.encode_fulfill(fulfill)


@given(REJECT, PAD, PAD, PAD, PAD)
def test_a_reject_is_read_whatever_the_padding(
    reject: ilp.Reject, outer: int, a: int, b: int, c: int
) -> None:
    by, message = reject.triggered_by.encode(), reject.message.encode()
    body = b"".join(
        (
            reject.code.encode(),
            padded(len(by), a) + by,
            padded(len(message), b) + message,
            padded(len(reject.data), c) + reject.data,
        )
    )
    assert ilp.decode_reject(b"\x0e" + padded(len(body), outer) + body) == reject


@given(PACKET, st.binary(min_size=1, max_size=9))
def test_a_packet_with_more_behind_it_or_less_of_it_is_refused(packet: ilp.Packet, after: bytes) -> None:
    octets = encode_ilp(packet)
    for wrong in (octets + after, octets[: -len(after)]):
        with pytest.raises(RemoteProtocolError):
            ilp.decode(wrong)


def damaged(octets: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Well-formed octets with some overwritten, taken out, or put in."""

    def damage(octets: bytes, at: int, replacement: bytes, dropped: int) -> bytes:
        at %= len(octets) + 1
        return octets[:at] + replacement + octets[at + dropped :]

    return st.builds(damage, octets, st.integers(0, 400), st.binary(max_size=3), st.integers(0, 3))


@given(
    st.one_of(
        st.binary(max_size=120), damaged(PACKET.map(encode_ilp)), damaged(damaged(PACKET.map(encode_ilp)))
    )
)
def test_no_octets_crash_the_packet_decoders(octets: bytes) -> None:
    for decode in (ilp.decode, ilp.decode_prepare, ilp.decode_fulfill, ilp.decode_reject):
        try:
            packet = decode(octets)
        except RemoteProtocolError:
            continue
        written = encode_ilp(packet)
        assert len(written) <= len(octets)
        assert ilp.decode(written) == packet
        assert encode_ilp(ilp.decode(written)) == written


@given(st.integers(ilp.TIMESTAMP_MIN_MS, ilp.TIMESTAMP_MAX_MS))
def test_a_moment_is_seventeen_digits(at_ms: int) -> None:
    digits = ilp.format_timestamp(at_ms)
    assert len(digits) == 17
    assert ilp.parse_timestamp(digits) == at_ms


@given(st.one_of(st.binary(max_size=20), st.text("0123456789", min_size=17, max_size=17).map(str.encode)))
def test_no_octets_crash_the_timestamp_parser(digits: bytes) -> None:
    try:
        at_ms = ilp.parse_timestamp(digits)
    except RemoteProtocolError:
        return
    assert ilp.format_timestamp(at_ms) == digits


# --- ILDCP ---


@given(ADDRESS, st.integers(0, 255), ASCII)
def test_a_child_reads_what_its_parent_wrote(address: str, scale: int, code: str) -> None:
    config = ildcp.ChildConfig(address, scale, code)
    assert ildcp.read_reply(ildcp.reply(config)) == config


@given(st.binary(max_size=60))
def test_no_octets_crash_the_child(data: bytes) -> None:
    for octets in (data, b"\x06test.a" + data):
        try:
            config = ildcp.read_reply(ilp.Fulfill(bytes(32), octets))
        except RemoteProtocolError:
            continue
        assert ildcp.read_reply(ildcp.reply(config)) == config


# --- BTP ---


@given(FRAME)
def test_a_frame_is_read_as_it_was_written(frame: btp.Frame) -> None:
    octets = btp.encode(frame)
    assert btp.decode(octets) == frame
    for wrong in (octets + b"\x00", octets[:-1]):
        with pytest.raises(RemoteProtocolError):
            btp.decode(wrong)


def carried(frame: bytes) -> bytes | None:
    """What `read_packet` is to return, by way of the whole decoder."""
    try:
        decoded = btp.decode(frame)
    except RemoteProtocolError:
        return None
    if not isinstance(decoded, btp.Message | btp.Response) or len(decoded.sub_protocols) != 1:
        return None
    only = decoded.sub_protocols[0]
    return only.data if (only.name, only.content_type) == (btp.ILP, btp.OCTET_STREAM) else None


@st.composite
def ilp_frames(draw: st.DrawFn) -> bytes:
    """Frames with one ILP packet, lengths padded by anything from none to more than is allowed."""

    def prefix(length: int) -> bytes:
        octets = draw(st.integers(0, 10))
        if not octets:
            return oer.length_prefix(length)
        low = length & ((1 << 8 * octets) - 1)
        return bytes((0x80 | octets,)) + low.to_bytes(octets, "big")

    packet = draw(DATA)
    body = b"\x01\x01\x03ilp\x00" + prefix(len(packet)) + packet
    kind = draw(st.sampled_from((btp.MESSAGE, btp.RESPONSE)))
    return bytes((kind, 0, 0, 0, 7)) + prefix(len(body)) + body


def read_as_decoded(frame: bytes) -> None:
    expected = carried(frame)
    found = btp.read_packet(frame)
    # A count with leading zeros, or a padded name, is read by the decoder alone.
    assert found == expected or (found is None and frame.count(b"\x01\x01\x03ilp\x00") == 0)


@given(st.one_of(ilp_frames(), damaged(ilp_frames()), FRAME.map(btp.encode), damaged(FRAME.map(btp.encode))))
@example(b"")
@example(b"\x06\x00\x00\x00\x07\x80")
@example(b"\x06\x00\x00\x00\x07\xff")
def test_the_short_cut_agrees_with_the_decoder(frame: bytes) -> None:
    read_as_decoded(frame)


@given(st.binary(max_size=80), damaged(FRAME.map(btp.encode)))
def test_no_octets_crash_the_frame_decoder(octets: bytes, broken: bytes) -> None:
    for candidate in (octets, b"\x06\x00\x00\x00\x01" + oer.var_octets(octets), broken):
        read_as_decoded(candidate)
        try:
            frame = btp.decode(candidate)
        except RemoteProtocolError:
            continue
        written = btp.encode(frame)
        assert len(written) <= len(candidate)
        assert btp.decode(written) == frame
        assert btp.encode(btp.decode(written)) == written


# --- WebSocket frames ---

MASK = st.binary(min_size=4, max_size=4)
SIZE = st.one_of(st.integers(0, 20), st.sampled_from((124, 125, 126, 127, 300, 65_535, 65_536)))
CONTROL = st.tuples(st.sampled_from((Opcode.PING, Opcode.PONG)), st.binary(max_size=125))


def ws_frame(first: int, payload: bytes, mask: bytes) -> bytes:
    """One frame of any kind."""
    frame = binary_frame(payload, mask)
    return bytes((first,)) + frame[1:]


@st.composite
def streams(draw: st.DrawFn, masked: bool) -> bytes:
    """A stream that keeps to RFC 6455: messages whole and in fragments, with pings anywhere."""
    frames: list[bytes] = []

    def add(first: int, payload: bytes) -> None:
        frames.append(ws_frame(first, payload, draw(MASK) if masked else b""))

    def control() -> None:
        for opcode, payload in draw(st.lists(CONTROL, max_size=1)):
            add(0x80 | opcode, payload)

    for _ in range(draw(st.integers(0, 6))):
        control()
        # Text that is the same octets in ASCII, so that it can be cut anywhere.
        payload = b"abc%d" % draw(st.integers(0, 99)) + b"x" * draw(SIZE)
        if draw(st.booleans()):
            add(0x82, payload)
            continue
        kind = draw(st.sampled_from((Opcode.BINARY, Opcode.TEXT)))
        cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=3)))
        if not cuts:
            add(0x80 | Opcode.TEXT, payload)
            continue
        pieces = [payload[start:end] for start, end in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
        for index, piece in enumerate(pieces):
            last = 0x80 if index == len(pieces) - 1 else 0
            add(last | (kind if index == 0 else Opcode.CONTINUATION), piece)
            if not last:
                control()
    if draw(st.booleans()):
        add(0x88, draw(st.sampled_from((b"", b"\x03\xe8bye"))))
        add(0x82, b"too late")
    return b"".join(frames)


def oracle(stream: bytes, *, masked: bool) -> list[Frame]:
    """What wsproto makes of a stream. A server gets masked frames."""
    protocol = FrameProtocol(client=not masked, extensions=[])
    protocol.receive_bytes(stream)
    return list(protocol.received_frames())


def feed(splitter: FrameSplitter, pieces: list[bytes]) -> tuple[list[bytes], bytes, bytes]:
    """(payloads, octets for the library, unfinished frame), as the adapter under the library keeps them."""
    payloads: list[bytes] = []
    rest = unread = b""
    for piece in pieces:
        unread += piece
        split = splitter.split(unread)
        payloads += split.payloads
        rest += split.rest
        assert 0 <= split.used <= len(unread)
        unread = unread[split.used :]
    return payloads, rest, unread


def segmented(stream: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted(cut % (len(stream) + 1) for cut in cuts)
    return [stream[start:end] for start, end in zip([0, *places], [*places, len(stream)], strict=True)]


CUTS = st.lists(st.integers(0, 2**20), max_size=12)


@given(st.data(), st.booleans(), CUTS)
def test_the_splitter_and_wsproto_read_the_same(data: st.DataObject, masked: bool, cuts: list[int]) -> None:
    stream = data.draw(streams(masked))
    whole: list[bytes] = []
    others: list[Frame] = []
    in_message = False
    for frame in oracle(stream, masked=masked):
        if frame.opcode is Opcode.BINARY and frame.message_finished and not in_message:
            assert isinstance(frame.payload, bytes)
            whole.append(frame.payload)
        else:
            others.append(frame)
            if not frame.opcode.iscontrol():
                in_message = not frame.message_finished
    payloads, rest, unread = feed(FrameSplitter(masked=masked, max_bytes=70_000), segmented(stream, cuts))
    assert payloads == whole
    assert oracle(rest, masked=masked) == others
    assert unread == b""


@given(
    st.lists(st.one_of(st.binary(max_size=12), st.binary(max_size=200).map(binary_frame)), max_size=6).map(
        b"".join
    ),
    st.booleans(),
    CUTS,
)
def test_any_octets_are_split_alike_however_they_arrive(stream: bytes, masked: bool, cuts: list[int]) -> None:
    at_once = feed(FrameSplitter(masked=masked, max_bytes=150), [stream])
    assert feed(FrameSplitter(masked=masked, max_bytes=150), segmented(stream, cuts)) == at_once
    one_by_one = [stream[index : index + 1] for index in range(len(stream))]
    assert feed(FrameSplitter(masked=masked, max_bytes=150), one_by_one) == at_once
    payloads, _, unread = at_once
    assert all(len(payload) <= 150 for payload in payloads)
    assert len(unread) < 150 + 14
