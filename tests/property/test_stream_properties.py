"""STREAM codec: what is written is read again, and no octets whatever make it fail otherwise."""

from hypothesis import given
from hypothesis import strategies as st

from connector.errors import RemoteProtocolError
from connector.limits import STREAM_FRAMES_MAX, U64_MAX
from connector.protocol import ilp, stream
from connector.protocol.stream_crypto import Keys, condition
from connector.receiver.stream_server import StreamServer

U64 = st.integers(0, U64_MAX)
OCTET = st.integers(0, 255)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
ADDRESS = st.one_of(st.just(""), st.from_regex(r"\A(g|test|private)(\.[a-zA-Z0-9_~-]{1,9}){1,4}\Z"))

FRAME: st.SearchStrategy[stream.Frame] = st.one_of(
    st.builds(stream.ConnectionClose, OCTET, TEXT),
    st.builds(stream.NewAddress, ADDRESS),
    st.builds(stream.AssetDetails, TEXT, OCTET),
    st.builds(stream.StreamClose, U64, OCTET, TEXT),
    st.builds(stream.StreamData, U64, U64, st.binary(max_size=200)),
    st.builds(stream.StreamReceipt, U64, st.binary(max_size=64)),
    *(st.builds(frame, U64) for frame in (stream.MaxData, stream.DataBlocked)),
    *(st.builds(frame, U64) for frame in (stream.MaxStreamId, stream.StreamIdBlocked)),
    *(st.builds(frame, U64, U64) for frame in (stream.StreamMoney, stream.StreamMaxData)),
    st.builds(stream.StreamDataBlocked, U64, U64),
    *(st.builds(frame, U64, U64, U64) for frame in (stream.StreamMaxMoney, stream.StreamMoneyBlocked)),
)
PACKET = st.builds(
    stream.Packet,
    U64,
    st.sampled_from((ilp.PREPARE, ilp.FULFILL, ilp.REJECT)),
    U64,
    st.lists(FRAME, max_size=12).map(tuple),
)
ACCOUNT = "test.node.alice"
SERVER = StreamServer(bytes(range(32)), ACCOUNT, "USD", 6)
DESTINATION, SECRET = SERVER.generate_credentials(bytes(18))


@given(PACKET, st.binary(max_size=40))
def test_every_packet_is_read_as_it_was_written_whatever_the_padding(
    packet: stream.Packet,
    padding: bytes,
) -> None:
    assert stream.decode(stream.encode(packet) + padding) == packet


@given(st.binary(max_size=300))
def test_no_octets_make_the_decoder_fail_but_as_a_protocol_error(octets: bytes) -> None:
    for candidate in (octets, b"\x01\x0c" + octets, b"\x01\x0c\x01\x00\x01\x00\x01\x02" + octets):
        try:
            packet = stream.decode(candidate)
        except RemoteProtocolError:
            continue
        assert len(packet.frames) <= STREAM_FRAMES_MAX
        assert stream.decode(stream.encode(packet)) == packet


@given(PACKET, st.data())
def test_a_damaged_packet_is_another_packet_or_a_protocol_error(
    packet: stream.Packet,
    data: st.DataObject,
) -> None:
    octets = bytearray(stream.encode(packet))
    octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(OCTET)
    try:
        stream.decode(bytes(octets[: data.draw(st.integers(0, len(octets)))]))
    except RemoteProtocolError:
        pass


@given(st.binary(max_size=400), st.binary(min_size=12, max_size=12))
def test_what_is_encrypted_is_decrypted_to_the_same(plain: bytes, iv: bytes) -> None:
    keys = Keys(SECRET)
    assert keys.decrypt(keys.encrypt(plain, iv)) == plain


@given(st.binary(max_size=200), st.sampled_from((ACCOUNT, DESTINATION, DESTINATION[:-1], ACCOUNT + ".x.y")))
def test_data_from_anyone_is_rejected_in_the_name_of_the_account(data: bytes, destination: str) -> None:
    reply = SERVER.handle(ilp.Prepare(1, 0, bytes(32), destination, data), bytes(12))
    assert isinstance(reply, ilp.Reject)
    assert reply.triggered_by == ACCOUNT
    assert reply.data == b""
    ilp.encode_reject(reply)


@given(PACKET, U64, st.booleans())
def test_whatever_a_sender_packs_it_gets_one_reply_that_matches(
    packet: stream.Packet,
    amount: int,
    fulfillable: bool,
) -> None:
    keys = Keys(SECRET)
    data = keys.encrypt(stream.encode(packet), bytes(12))
    opens = condition(keys.fulfillment(data)) if fulfillable else bytes(32)
    reply = SERVER.handle(ilp.Prepare(amount, 0, opens, DESTINATION, data), b"\x01" * 12)
    if packet.packet_type != ilp.PREPARE:
        assert isinstance(reply, ilp.Reject)
        assert reply.code == "F06"
        return
    answer = stream.decode(keys.decrypt(reply.data))
    fulfilled = isinstance(reply, ilp.Fulfill)
    assert (answer.sequence, answer.prepare_amount) == (packet.sequence, amount)
    assert answer.packet_type == (ilp.FULFILL if fulfilled else ilp.REJECT)
    assert not fulfilled or (fulfillable and amount >= packet.prepare_amount)
