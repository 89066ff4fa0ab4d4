"""A STREAM receiver takes exactly the money it was offered, and needs no memory for it."""

import pytest

from connector.errors import LocalProtocolError
from connector.limits import STREAM_CONNECTIONS_CACHED_MAX, STREAM_FRAMES_MAX, U32_MAX, U64_MAX
from connector.protocol import ilp, stream
from connector.protocol.stream_crypto import Keys, condition
from connector.receiver.stream_server import StreamServer

ACCOUNT = "test.node.alice"
SECRET = bytes(range(32))
NONCE = b"n" * 18
IV = b"v" * 12
EXPIRY = 1_700_000_000_000


def server(secret: bytes = SECRET, account: str = ACCOUNT) -> StreamServer:
    return StreamServer(secret, account, "USD", 6)


class Sender:
    """Makes Prepares for one connection and opens what comes back."""

    def __init__(self, destination: str, shared_secret: bytes) -> None:
        self.destination = destination
        self.keys = Keys(shared_secret)

    def prepare(
        self,
        amount: int,
        *frames: stream.Frame,
        minimum: int = 0,
        packet_type: int = ilp.PREPARE,
        fulfillable: bool = True,
    ) -> ilp.Prepare:
        plain = stream.encode(stream.Packet(41, packet_type, minimum, frames))
        data = self.keys.encrypt(plain, b"s" * 12)
        opens = condition(self.keys.fulfillment(data)) if fulfillable else b"?" * 32
        return ilp.Prepare(amount, EXPIRY, opens, self.destination, data)

    def open(self, reply: ilp.Fulfill | ilp.Reject) -> stream.Packet:
        return stream.decode(self.keys.decrypt(reply.data))


@pytest.fixture
def sender() -> Sender:
    return Sender(*server().generate_credentials(NONCE))


def test_money_is_fulfilled_and_the_reply_says_what_arrived(sender: Sender) -> None:
    prepare = sender.prepare(500, stream.StreamMoney(1, 500), minimum=500)
    reply = server().handle(prepare, IV)
    assert isinstance(reply, ilp.Fulfill)
    assert condition(reply.fulfillment) == prepare.condition
    assert reply.data[:12] == IV
    assert sender.open(reply) == stream.Packet(
        41, ilp.FULFILL, 500, (stream.StreamMaxMoney(1, U64_MAX, 500),)
    )


def test_a_server_restarted_with_its_secret_knows_the_addresses_it_gave_out() -> None:
    destination, shared_secret = server().generate_credentials(NONCE)
    sender = Sender(destination, shared_secret)
    again = server()
    assert isinstance(again.handle(sender.prepare(5), IV), ilp.Fulfill)
    assert again.generate_credentials(NONCE) == (destination, shared_secret)


def test_an_address_is_the_account_and_one_segment_of_base64url() -> None:
    destination, shared_secret = server().generate_credentials(NONCE)
    assert destination.rpartition(".")[0] == ACCOUNT
    assert len(destination.rpartition(".")[2]) == 44
    assert len(shared_secret) == 32


def test_less_than_the_minimum_is_refused_with_what_arrived(sender: Sender) -> None:
    reply = server().handle(sender.prepare(499, stream.StreamMoney(1, 500), minimum=500), IV)
    assert isinstance(reply, ilp.Reject)
    assert (reply.code, reply.triggered_by) == ("F99", ACCOUNT)
    assert reply.message == "less arrived than the sender's minimum"
    assert sender.open(reply) == stream.Packet(41, ilp.REJECT, 499, (stream.StreamMaxMoney(1, U64_MAX, 0),))


def test_a_test_packet_that_nobody_can_fulfill_measures_the_rate(sender: Sender) -> None:
    reply = server().handle(sender.prepare(123, fulfillable=False), IV)
    assert isinstance(reply, ilp.Reject)
    assert (reply.code, sender.open(reply)) == ("F99", stream.Packet(41, ilp.REJECT, 123))


@pytest.mark.parametrize("fulfillable", [True, False])
def test_a_new_address_is_answered_with_the_asset(sender: Sender, fulfillable: bool) -> None:
    prepare = sender.prepare(0, stream.NewAddress("test.bob"), fulfillable=fulfillable)
    assert sender.open(server().handle(prepare, IV)).frames == (
        stream.MaxStreamId(U32_MAX),
        stream.AssetDetails("USD", 6),
    )


def test_streams_of_one_packet_share_its_amount(sender: Sender) -> None:
    frames = (stream.StreamMoney(1, 1), stream.StreamMoney(3, 1), stream.StreamMoney(3, 1))
    assert sender.open(server().handle(sender.prepare(100, *frames), IV)).frames == (
        stream.StreamMaxMoney(1, U64_MAX, 33),
        stream.StreamMaxMoney(3, U64_MAX, 66),
    )


def test_data_is_refused_with_its_money_because_a_reply_would_acknowledge_it(sender: Sender) -> None:
    frames = (stream.StreamMoney(1, 9), stream.StreamData(1, 0, b"invoice 7"))
    reply = server().handle(sender.prepare(9, *frames), IV)
    assert isinstance(reply, ilp.Reject)
    assert (reply.code, reply.message) == ("F99", "this account takes money, not data")
    assert stream.StreamClose(1, stream.APPLICATION_ERROR, "this account takes money, not data") in (
        sender.open(reply).frames
    )


def test_an_even_stream_id_from_a_client_closes_the_connection(sender: Sender) -> None:
    reply = server().handle(sender.prepare(9, stream.StreamMoney(2, 9)), IV)
    assert isinstance(reply, ilp.Reject)
    assert sender.open(reply).frames == (
        stream.ConnectionClose(stream.PROTOCOL_VIOLATION, "a client's streams have odd ids"),
    )


@pytest.mark.parametrize(
    "frame", [stream.StreamMoney(1, 0), stream.NewAddress(""), stream.StreamData(1, 0, b"")]
)
def test_as_many_frames_as_a_packet_can_hold_get_a_reply_that_can_hold_it(
    sender: Sender,
    frame: stream.Frame,
) -> None:
    frames = (stream.NewAddress(""), *(frame for _ in range(STREAM_FRAMES_MAX - 1)))
    reply = server().handle(sender.prepare(1, *frames), IV)
    assert len(sender.open(reply).frames) <= STREAM_FRAMES_MAX


def test_all_different_streams_get_a_reply_that_can_hold_it(sender: Sender) -> None:
    frames = [stream.StreamMoney(2 * number + 1, 1) for number in range(STREAM_FRAMES_MAX - 1)]
    reply = server().handle(sender.prepare(1, stream.NewAddress(""), *frames), IV)
    assert isinstance(reply, ilp.Fulfill)
    assert len(sender.open(reply).frames) == STREAM_FRAMES_MAX


def test_a_reply_packet_sent_back_in_a_prepare_is_refused(sender: Sender) -> None:
    reply = server().handle(sender.prepare(1, packet_type=ilp.FULFILL), IV)
    assert isinstance(reply, ilp.Reject)
    assert (reply.code, reply.data) == ("F06", b"")


@pytest.mark.parametrize("data", [b"", b"short", bytes(100)])
def test_data_that_does_not_decrypt_is_an_unexpected_payment(sender: Sender, data: bytes) -> None:
    reply = server().handle(ilp.Prepare(1, EXPIRY, bytes(32), sender.destination, data), IV)
    assert isinstance(reply, ilp.Reject)
    assert (reply.code, reply.triggered_by, reply.data) == ("F06", ACCOUNT, b"")


def test_a_probe_to_the_account_itself_is_answered_in_its_name() -> None:
    reply = server().handle(ilp.Prepare(0, EXPIRY, b"?" * 32, ACCOUNT, b""), IV)
    assert isinstance(reply, ilp.Reject)
    assert (reply.code, reply.triggered_by) == ("F06", ACCOUNT)


def tampered(destination: str) -> list[str]:
    token = destination.rpartition(".")[2]
    changed = ("A" if token[0] != "A" else "B") + token[1:]
    tokens = [changed, token[:-1], token + "A", "~" + token[1:], token[:-1] + "~", "x", "A" * 44]
    return [f"{ACCOUNT}.{bad}" for bad in tokens] + [
        f"{destination}.more",
        f"{ACCOUNT}.more.{token}",
        f"test.node.alicia.{token}",
        f"test.node.bobby.{token}",
    ]


@pytest.mark.parametrize("destination", tampered(server().generate_credentials(NONCE)[0]))
def test_an_address_that_was_not_given_out_is_unreachable(sender: Sender, destination: str) -> None:
    mine = server()
    assert isinstance(mine.handle(sender.prepare(1), IV), ilp.Fulfill)
    sender.destination = destination
    reply = mine.handle(sender.prepare(1), IV)
    assert isinstance(reply, ilp.Reject)
    assert (reply.code, reply.triggered_by) == ("F02", ACCOUNT)


@pytest.mark.parametrize("other", [server(secret=bytes(32)), server(account="test.node.carol")])
def test_another_server_or_account_does_not_answer_for_this_one(sender: Sender, other: StreamServer) -> None:
    token = sender.destination.rpartition(".")[2]
    sender.destination = f"{other.account_address}.{token}"
    reply = other.handle(sender.prepare(1), IV)
    assert isinstance(reply, ilp.Reject)
    assert reply.code == "F02"


def test_remembered_keys_are_bounded_and_forgetting_them_changes_nothing(sender: Sender) -> None:
    mine = server()
    for number in range(STREAM_CONNECTIONS_CACHED_MAX + 10):
        other = Sender(*mine.generate_credentials(number.to_bytes(18, "big")))
        assert isinstance(mine.handle(other.prepare(1), IV), ilp.Fulfill)
    assert len(mine._connections) <= STREAM_CONNECTIONS_CACHED_MAX
    assert isinstance(mine.handle(sender.prepare(1), IV), ilp.Fulfill)


def test_addresses_not_given_out_are_not_remembered() -> None:
    mine = server()
    for number in range(100):
        mine.handle(ilp.Prepare(0, EXPIRY, bytes(32), f"{ACCOUNT}.{number:044}", b""), IV)
    assert len(mine._connections) == 0


def test_unusable_arguments_are_refused_at_the_start() -> None:
    with pytest.raises(LocalProtocolError, match="server secret: at least 32 bytes"):
        StreamServer(bytes(31), ACCOUNT, "USD", 6)
    with pytest.raises(LocalProtocolError, match="not an ILP address"):
        StreamServer(SECRET, "alice", "USD", 6)
    with pytest.raises(LocalProtocolError, match="256 does not fit in one octet"):
        StreamServer(SECRET, ACCOUNT, "USD", 256)
    with pytest.raises(LocalProtocolError, match="nonce: 3 bytes"):
        server().generate_credentials(b"abc")
