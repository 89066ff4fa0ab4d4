"""A payment at no worse than its rate, and a delivery for no more than it may cost."""

from fractions import Fraction

import pytest

from connector.protocol import ildcp, ilp
from tests.unit.stream_helpers import Network, send


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rate", [Fraction(1, 3), Fraction(997, 1000), Fraction(7), Fraction(10**6)])
async def test_a_fixed_delivery_delivers_the_amount_and_hardly_more(
    autojump_clock: object, rate: Fraction, seed: int
) -> None:
    network = Network(rate=rate, largest=70_000, loss=0.05, seed=seed)
    network.asset = ildcp.ChildConfig("test.node.me", 6, "EUR")
    report = await send(network, 123_457, fixed_delivery=True)
    assert report.complete, report.reason
    assert (report.sent, report.delivered) == (network.taken, network.received)
    assert 123_457 <= report.delivered < 123_457 + max(rate, Fraction(1)) * (report.packets_fulfilled + 1)


async def test_nothing_is_sent_when_the_rate_is_below_the_minimum(autojump_clock: object) -> None:
    network = Network(rate=Fraction(98, 100))
    report = await send(network, 1_000, minimum_rate=Fraction(99, 100))
    assert not report.complete
    assert report.reason == "the rate is 0.98, below the minimum of 0.99"
    assert network.taken == 0


async def test_a_rate_that_falls_on_the_way_stops_the_payment_at_its_minimum(autojump_clock: object) -> None:
    network = Network(largest=100)

    def fall(prepare: ilp.Prepare) -> None:
        if network.taken >= 2_000:
            network.rate = Fraction(90, 100)

    network.interfere = fall
    report = await send(network, 10_000)
    assert not report.complete
    assert report.reason == "the rate is below the minimum: 90 arrived of 100, at least 99 was asked for"
    assert report.sent == report.delivered == network.taken == network.received
    assert 2_000 <= report.sent < 10_000


def four_hops(amount: int) -> int:
    """What arrives after four connectors that keep a thousandth each, rounded up."""
    for _ in range(4):
        amount -= -(-amount // 1000)
    return max(amount, 0)


class Rounding(Network):
    """Four connectors; what is worth nothing at one of them is R01."""

    async def _forward(self, prepare: ilp.Prepare) -> ilp.Packet:
        arrives = four_hops(prepare.amount)
        if prepare.amount and not arrives:
            return ilp.Reject("R01", "test.node", "worth nothing at the next hop", b"")
        self.rate = Fraction(arrives, prepare.amount or 1)
        self.latency_s = 0
        return await super()._forward(prepare)


@pytest.mark.parametrize("amount", [99, 1_000, 5_000, 123_456])
async def test_a_fixed_delivery_is_completed_whatever_rounding_keeps(
    autojump_clock: object, amount: int
) -> None:
    network = Rounding(largest=1_000)
    report = await send(network, amount, fixed_delivery=True)
    assert report.complete, report.reason
    assert amount <= report.delivered <= amount + 16
    assert report.delivered == network.received
    assert report.effective_rate is not None
    assert report.minimum_rate is not None
    assert report.effective_rate >= report.minimum_rate


@pytest.mark.parametrize("amount", [1, 7])
async def test_a_delivery_so_small_that_rounding_takes_most_of_it_is_not_paid_dearly(
    autojump_clock: object, amount: int
) -> None:
    network = Rounding()
    network.asset = ildcp.ChildConfig("test.node.me", 6, "EUR")
    report = await send(network, amount, fixed_delivery=True)
    assert not report.complete
    assert report.reason is not None
    assert report.reason.startswith("the rate is below the minimum")
    assert report.sent == network.taken == 0


async def test_credit_that_is_used_up_is_the_reason_and_not_the_small_packets_it_leads_to(
    autojump_clock: object,
) -> None:
    network = Rounding()

    def exhaust(prepare: ilp.Prepare) -> ilp.Packet | None:
        if network.taken + network.value_in_flight <= 700_000:
            return None
        return ilp.Reject("T04", "test.node", "the credit limit is reached", b"")

    network.interfere = exhaust
    report = await send(network, 1_000_000)
    assert not report.complete
    assert report.reason == (
        "gave up after 24 setbacks in a row; the last: T04 from test.node: the credit limit is reached"
    )
    assert 690_000 < report.sent == network.taken <= 700_000


@pytest.mark.parametrize("fixed_delivery", [False, True])
async def test_a_hop_that_keeps_almost_all_of_one_asset_gets_nothing(
    autojump_clock: object, fixed_delivery: bool
) -> None:
    network = Network(rate=Fraction(1, 1_000_000))
    report = await send(network, 1_000_000, fixed_delivery=fixed_delivery)
    assert report.reason == (
        "the rate is 0.000001, though both assets are USD with scale 6: the least taken unasked is 0.9; "
        "pass --min-rate to accept it"
    )
    assert report.sent == network.taken == 0


@pytest.mark.parametrize(
    ("rate", "complete"), [(Fraction(9, 10), True), (Fraction(899_999, 1_000_000), False)]
)
async def test_the_floor_for_one_asset_is_nine_tenths(
    autojump_clock: object, rate: Fraction, complete: bool
) -> None:
    network = Network(rate=rate)
    report = await send(network, 1_000_000)
    assert report.complete is complete
    assert network.taken == (1_000_000 if complete else 0)


async def test_a_low_rate_that_was_asked_for_is_taken(autojump_clock: object) -> None:
    report = await send(Network(rate=Fraction(1, 2)), 1_000, minimum_rate=Fraction(1, 2))
    assert (report.complete, report.sent, report.delivered) == (True, 1_000, 500)


@pytest.mark.parametrize("asset", [("EUR", 6), ("USD", 9)])
async def test_between_different_assets_any_rate_may_be_fair(
    autojump_clock: object, asset: tuple[str, int]
) -> None:
    network = Network(rate=Fraction(1, 1_000))
    network.asset = ildcp.ChildConfig("test.node.me", asset[1], asset[0])
    report = await send(network, 1_000_000)
    assert (report.complete, report.delivered) == (True, 1_000)


async def test_a_delivery_that_would_cost_too_much_is_not_begun(autojump_clock: object) -> None:
    network = Network(rate=Fraction(95, 100))
    report = await send(network, 95_000, fixed_delivery=True, send_max=99_999)
    assert report.reason == (
        "at the measured rate of 0.95, 100000 units would have to be sent: more than the 99999 allowed"
    )
    assert report.sent == network.taken == 0
    assert (await send(network, 95_000, fixed_delivery=True, send_max=100_000)).complete


@pytest.mark.parametrize("seed", range(5))
async def test_a_delivery_never_has_more_on_the_way_than_it_may_cost(
    autojump_clock: object, seed: int
) -> None:
    network = Network(largest=1_000, loss=0.05, seed=seed)
    most_at_risk = 0

    def worsen(prepare: ilp.Prepare) -> None:
        nonlocal most_at_risk
        most_at_risk = max(most_at_risk, network.taken + network.value_in_flight)
        if network.taken:
            network.rate = Fraction(995, 1000)

    network.interfere = worsen
    report = await send(network, 100_000, fixed_delivery=True, send_max=100_200)
    assert not report.complete
    assert report.reason == (
        f"all of the 100200 units allowed are sent: {report.delivered} arrived of 100000 to deliver"
    )
    # The test packets, which cannot be paid, come before anything is taken.
    assert report.sent == network.taken == most_at_risk == 100_200
    assert report.delivered == network.received < 100_000


async def test_packets_too_small_to_arrive_do_not_outgrow_what_may_be_sent(autojump_clock: object) -> None:
    network = Rounding(largest=1_000)
    report = await send(network, 10_000, fixed_delivery=True, send_max=10_050)
    assert network.taken == report.sent <= 10_050
    assert report.duration_ms < 5_000
