"""A payment sends what it was told, over paths that lose, limit and lie."""

from collections.abc import Callable
from fractions import Fraction

import msgspec
import pytest
import trio

from connector.errors import PaymentError, Unavailable
from connector.limits import STREAM_SENDER_IN_FLIGHT_MAX, U64_MAX
from connector.protocol import ildcp, ilp, stream
from connector.protocol.stream_crypto import Keys
from connector.sender.controller import Terms
from connector.sender.report import Asset
from connector.sender.stream_client import Progress, pay
from tests.unit.stream_helpers import RECEIVER, SERVER, Network, send


async def test_a_payment_over_a_good_path_is_one_packet_after_one_test(autojump_clock: object) -> None:
    network = Network(rate=Fraction(997, 1000))
    report = await send(network, 1_000_000)
    assert report.complete
    assert report.reason is None
    assert (report.sent, report.delivered, report.fees) == (1_000_000, 997_000, 3_000)
    assert (report.source_asset, report.destination_asset) == (Asset("USD", 6), Asset("USD", 6))
    assert report.rate == report.effective_rate == Fraction(997, 1000)
    assert report.minimum_rate == Fraction(997, 1000) * Fraction(99, 100)
    assert (report.packets_fulfilled, report.packets_rejected, report.rejects) == (1, 0, {})
    assert report.duration_ms == 190
    assert (network.taken, network.received) == (1_000_000, 997_000)


async def test_f08_shrinks_packets_to_the_largest_that_passes(autojump_clock: object) -> None:
    network = Network(largest=100)
    report = await send(network, 1_050)
    assert report.complete
    assert (report.sent, report.delivered, report.packets_fulfilled) == (1_050, 1_050, 11)
    assert report.rejects == {"F08": 1}
    # After the test packet: even parts, not ten of 100 and one of 50.
    assert sorted(set(network.amounts[1:-1])) == [95, 96]


async def test_the_smallest_packets_still_carry_the_whole_amount(autojump_clock: object) -> None:
    network = Network(largest=1)
    report = await send(network, 500)
    assert (report.complete, report.sent, report.packets_fulfilled) == (True, 500, 500)


async def test_many_packets_are_in_flight_together(autojump_clock: object) -> None:
    network = Network(largest=10)
    report = await send(network, 20_000)
    assert (report.complete, report.packets_fulfilled) == (True, 2_000)
    assert network.most_in_flight == STREAM_SENDER_IN_FLIGHT_MAX
    assert report.duration_ms < 5_000


async def test_the_window_follows_what_the_path_can_hold(autojump_clock: object) -> None:
    network = Network(largest=10, window=20)
    report = await send(network, 10_000)
    assert (report.complete, report.sent) == (True, 10_000)
    assert set(report.rejects) == {"F08", "T02"}
    assert report.rejects["T02"] < 300


@pytest.mark.parametrize("liquidity", [1, 37, 5_000])
async def test_t04_halves_until_it_fits(autojump_clock: object, liquidity: int) -> None:
    network = Network(liquidity=liquidity)
    report = await send(network, liquidity * 20)
    assert report.complete
    assert network.taken == report.sent == liquidity * 20


@pytest.mark.parametrize("seed", range(10))
async def test_a_lossy_path_delivers_everything_and_the_report_is_exact(
    autojump_clock: object, seed: int
) -> None:
    network = Network(
        rate=Fraction(1999, 1000), largest=5_000, liquidity=60_000, window=30, loss=0.02, seed=seed
    )
    report = await send(network, 1_000_003)
    assert report.complete, report.reason
    assert (report.sent, report.delivered) == (network.taken, network.received)
    assert report.sent == 1_000_003
    assert report.in_doubt == 0


@pytest.mark.parametrize("code", ["F00", "F02", "R02", "F06"])
async def test_a_final_reject_stops_and_says_who_and_why(autojump_clock: object, code: str) -> None:
    network = Network()
    network.interfere = lambda prepare: ilp.Reject(code, "test.other", "because", b"")
    report = await send(network, 1_000)
    assert not report.complete
    assert report.reason == f"{code} from test.other: because"
    assert report.rejects == {code: 1}


async def test_a_path_that_stays_full_is_given_up(autojump_clock: object) -> None:
    network = Network()
    network.interfere = lambda prepare: ilp.Reject("T01", "test.node", "peer down", b"")
    report = await send(network, 1_000)
    assert report.reason == "gave up after 24 setbacks in a row; the last: T01 from test.node: peer down"
    assert 15_000 < report.duration_ms < 25_000


async def test_an_amount_of_which_nothing_would_arrive_is_not_sent(autojump_clock: object) -> None:
    report = await send(Network(rate=Fraction(1, 1000)), 10)
    assert report.reason == "the amount is too small: nothing of it would arrive"
    assert report.sent == 0


async def test_the_time_limit_ends_a_payment_with_what_was_done(autojump_clock: object) -> None:
    network = Network(largest=1, latency_s=1)
    report = await send(network, 100_000, timeout_s=20)
    assert report.reason == "not finished within 20 s"
    assert report.in_doubt == 0
    assert 0 < report.sent == network.taken < 100_000


async def test_packets_without_a_reply_are_in_doubt_and_never_sent_again(autojump_clock: object) -> None:
    network = Network(largest=10)
    seen = 0

    async def break_off(prepare: ilp.Prepare) -> ilp.Packet:
        nonlocal seen
        seen += 1
        if seen > 20:
            raise Unavailable("the link is gone")
        return await forward(prepare)

    forward = network._forward
    network._forward = break_off  # type: ignore[method-assign]
    report = await send(network, 1_000)
    assert not report.complete
    assert report.reason == "a packet was left without a valid reply: the link is gone"
    assert report.in_doubt > 0
    assert report.sent == network.taken
    assert report.sent + report.in_doubt <= 1_000
    assert report.fees is None


async def test_a_wrong_fulfillment_pays_nothing(autojump_clock: object) -> None:
    network = Network()
    network.receive = lambda prepare: (
        ilp.Fulfill(bytes(32), b"") if prepare.amount and network.amounts[1:] else network._receive(prepare)
    )
    report = await send(network, 1_000)
    assert (report.sent, report.delivered, report.in_doubt) == (0, 0, 1_000)
    assert report.reason == (
        "a packet was left without a valid reply: the fulfillment does not open the condition"
    )


async def test_only_authenticated_replies_count_as_delivered(autojump_clock: object) -> None:
    network = Network()

    def strip(prepare: ilp.Prepare) -> ilp.Fulfill | ilp.Reject:
        reply = network._receive(prepare)
        return msgspec.structs.replace(reply, data=b"") if isinstance(reply, ilp.Fulfill) else reply

    network.receive = strip
    report = await send(network, 1_000)
    assert (report.complete, report.sent, report.delivered) == (False, 1_000, 0)
    assert report.reason == "a packet was fulfilled, but its reply does not say what arrived"


async def test_a_rate_told_by_a_connector_is_not_believed(autojump_clock: object) -> None:
    network = Network()
    forged = Keys(bytes(32)).encrypt(stream.encode(stream.Packet(1, ilp.REJECT, 10**9)), bytes(12))
    network.interfere = lambda prepare: ilp.Reject("F99", RECEIVER.destination, "", forged)
    report = await send(network, 1_000)
    assert report.rate is None
    assert report.sent == 0
    assert report.reason == f"F99 from {RECEIVER.destination}"


def limited_receiver(limit: Callable[[], int]) -> Callable[[ilp.Prepare], ilp.Fulfill | ilp.Reject]:
    """A receiver that takes at most `limit()` on stream 1, and says so."""
    keys = Keys(RECEIVER.shared_secret)
    received = 0

    def receive(prepare: ilp.Prepare) -> ilp.Fulfill | ilp.Reject:
        nonlocal received
        request = stream.decode(keys.decrypt(prepare.data))
        reply = SERVER.handle(prepare, bytes(12))
        fulfilled = isinstance(reply, ilp.Fulfill) and received + prepare.amount <= limit()
        received += prepare.amount if fulfilled else 0
        frames = (stream.StreamMaxMoney(1, limit(), received),) if received else ()
        kind = ilp.FULFILL if fulfilled else ilp.REJECT
        answer = stream.Packet(request.sequence, kind, prepare.amount, frames)
        data = keys.encrypt(stream.encode(answer), received.to_bytes(12, "big"))
        if isinstance(reply, ilp.Fulfill) and fulfilled:
            return ilp.Fulfill(reply.fulfillment, data)
        return ilp.Reject("F99", "test.node.alice", "", data)

    return receive


async def test_a_receiver_is_sent_no_more_than_it_takes(autojump_clock: object) -> None:
    network = Network(largest=100)
    network.receive = limited_receiver(lambda: 730)
    report = await send(network, 5_000)
    assert not report.complete
    assert (report.sent, report.delivered) == (730, 730)
    assert (
        report.reason == "gave up after 24 setbacks in a row; the last: the receiver takes no more than 730"
    )


async def test_a_receiver_that_takes_more_later_gets_it(autojump_clock: object) -> None:
    network = Network(largest=100)
    network.receive = limited_receiver(lambda: 730 if trio.current_time() < start + 5 else 10_000)
    start = trio.current_time()
    report = await send(network, 5_000)
    assert report.complete, report.reason
    assert (report.sent, report.delivered) == (5_000, 5_000)


async def test_a_receiver_that_closes_ends_the_payment_with_its_reason(autojump_clock: object) -> None:
    network = Network(largest=100)
    keys = Keys(RECEIVER.shared_secret)

    def close(prepare: ilp.Prepare) -> ilp.Fulfill | ilp.Reject:
        if network.taken < 500:
            return network._receive(prepare)
        sequence = stream.decode(keys.decrypt(prepare.data)).sequence
        frames = (stream.StreamClose(1, stream.APPLICATION_ERROR, "had enough"),)
        answer = stream.Packet(sequence, ilp.REJECT, prepare.amount, frames)
        return ilp.Reject("F99", "test.node.alice", "", keys.encrypt(stream.encode(answer), bytes(12)))

    network.receive = close
    report = await send(network, 5_000)
    assert not report.complete
    assert report.reason == "the receiver closed the connection: had enough"
    assert report.sent == report.delivered == network.taken


async def test_an_interrupted_payment_still_gets_its_replies_and_reports(autojump_clock: object) -> None:
    network = Network(largest=10)
    interrupt = trio.Event()

    def enough(step: Progress) -> None:
        if step.done >= 500:
            interrupt.set()

    report = await pay(
        network,
        RECEIVER,
        Terms(amount=100_000),
        on_progress=enough,
        interrupt=interrupt,
        wall_ms=lambda: 1_700_000_000_000,
    )
    assert (report.complete, report.reason, report.in_doubt) == (False, "interrupted", 0)
    assert 500 <= report.sent == report.delivered == network.taken < 3_000


async def test_progress_is_told_after_every_reply(autojump_clock: object) -> None:
    told: list[Progress] = []
    report = await pay(
        Network(largest=100),
        RECEIVER,
        Terms(amount=1_000),
        on_progress=told.append,
        wall_ms=lambda: 1_700_000_000_000,
    )
    assert report.complete
    assert [step.done for step in told] == [0, 0, *range(100, 1_001, 100)]
    assert told[-1] == Progress(1_000, 1_000, 1_000, 1_000, 10, 1)


async def test_a_connector_that_gives_no_address_is_a_payment_error() -> None:
    class Refusing:
        async def send(self, packet: bytes, *, timeout_s: float) -> bytes:
            return ilp.encode_reject(ilp.Reject("F02", "test.node", "no such thing", b""))

    with pytest.raises(PaymentError, match="gave us no address: F02 no such thing"):
        await pay(Refusing(), RECEIVER, Terms(amount=1))


async def test_a_report_as_json_has_amounts_as_strings(autojump_clock: object) -> None:
    network = Network()
    network.asset = ildcp.ChildConfig("test.node.me", 2, "EUR")
    report = (await send(network, U64_MAX)).as_json()
    assert report["sent"] == report["delivered"] == str(U64_MAX)
    assert report["fees"] is None
    assert report["source_asset"] == {"code": "EUR", "scale": 2}
    assert report["destination_asset"] == {"code": "USD", "scale": 6}
    assert (report["complete"], report["reason"], report["rate"]) == (True, None, "1")
