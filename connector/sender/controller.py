"""Decides what a payment sends next: rate, amounts, minimums, when to wait and when to stop.

Pure: offers go out, replies come in, `now_ms` is a monotonic clock. First a test
packet that nobody can fulfill measures the rate, with the amount that packets
will really have; then packets go out, each with a minimum that the receiver
enforces.

Invariants: fulfilled + in flight + in doubt never exceeds the amount to send, or
for a fixed delivery `send_max`. The
minimums of all packets together are never below the minimum rate: only a packet
much smaller than the measured one may use what earlier ones arrived above it.
`delivered` counts only what the receiver itself said, authenticated. A packet
without a reply is in doubt: its money may have gone, so it is never sent again.
"""

from collections import Counter
from fractions import Fraction
from typing import Final

import msgspec

from connector.limits import STREAM_BELOW_MINIMUM_MAX, STREAM_ROUNDING_MAX, STREAM_TEST_PACKETS_MAX, U64_MAX
from connector.protocol import stream
from connector.sender.congestion import Congestion
from connector.sender.envelope import Reply
from connector.sender.report import Asset, asset_from_wire, format_rate, printable

#: What a rate measured with a fixed delivery needs to have arrived, to be exact enough.
_PRECISE_AT: Final = 1_000
#: When nothing arrived of a test packet, the next is larger by this.
_SCALE_UP: Final = 1_000
#: What has to arrive of an asset sent as the same asset, unless a minimum rate was asked for:
#: a path that keeps more is not a price but a mistake, or a theft.
SAME_ASSET_RATE_MIN: Final = Fraction(9, 10)
STREAM_ID: Final = 1


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be paid.

    `amount` is in source units to send, or with `fixed_delivery` in destination
    units to arrive, for no more than `send_max` source units. Rates are
    destination units per source unit. Without `minimum_rate` it is the measured
    rate less `slippage`, and at least SAME_ASSET_RATE_MIN has to be measured when
    the receiver's asset is our own.
    """

    amount: int
    fixed_delivery: bool = False
    send_max: int = U64_MAX
    minimum_rate: Fraction | None = None
    slippage: Fraction = Fraction(1, 100)
    packet_max: int = U64_MAX


class Offer(msgspec.Struct, frozen=True):
    """One packet to send. A `test` cannot be fulfilled; `introduce` asks for the receiver's asset."""

    sequence: int
    amount: int
    minimum: int
    test: bool
    introduce: bool


class Wait(msgspec.Struct, frozen=True):
    """Nothing to send until a reply comes or, unless None, that time."""

    until_ms: int | None


class Done(msgspec.Struct, frozen=True):
    """Nothing more to send, nothing in flight."""


DONE: Final = Done()


class Controller:
    """One payment on `terms` from `own_asset`, on stream 1 of its own connection."""

    def __init__(self, terms: Terms, own_asset: Asset) -> None:
        assert terms.amount > 0
        assert terms.packet_max > 0
        assert terms.send_max > 0
        self.terms: Final = terms
        self.own_asset: Final = own_asset
        self.rate: Fraction | None = None
        self.minimum_rate = terms.minimum_rate
        self.sent = 0
        self.delivered = 0
        self.in_doubt = 0
        self.fulfilled = 0
        self.rejects: Counter[str] = Counter()
        self.asset: Asset | None = None
        self.stopped: str | None = None
        self.in_flight: dict[int, Offer] = {}
        self._in_flight_amount = 0
        self._in_flight_minimum = 0
        self._in_doubt_expected = 0
        self._measured_with = 0
        self._obstacle: str | None = None
        self._congestion = Congestion(min(terms.packet_max, U64_MAX))
        self._next_sequence = 1
        self._tests = 0
        self._test_amount = terms.amount
        self._heard = False
        self._below_minimum = 0
        self._receive_max: int | None = None
        self._remote_received = 0

    @property
    def satisfied(self) -> bool:
        """Whether the payment is complete."""
        return (self.delivered if self.terms.fixed_delivery else self.sent) >= self.terms.amount

    @property
    def complete(self) -> bool:
        """Whether it is complete and nothing went wrong on the way."""
        return self.satisfied and self.stopped is None

    def stop(self, reason: str) -> None:
        """Send nothing more; the first reason stands."""
        self.stopped = self.stopped or reason

    # --- what to send ---

    def next(self, now_ms: int) -> Offer | Wait | Done:
        """What to do now. An Offer counts as sent: answer it with `answered` or `lost`."""
        if self.stopped or self.satisfied:
            return Wait(None) if self.in_flight else DONE
        if len(self.in_flight) >= (self._congestion.window if self.rate else 1):
            return Wait(None)
        if now_ms < self._congestion.retry_at_ms:
            return Wait(self._congestion.retry_at_ms)
        if self.rate is None or self.minimum_rate is None:
            return self._test()
        amount = self._next_amount(self.rate)
        if amount or not self.in_flight:
            if amount == 0 and self._room(self.rate) != 0:
                self.stop(self._nothing_left())
                return DONE
            # With no room at the receiver, an empty packet asks whether there is more now.
            return self._offer(amount, self._minimum(amount, self.minimum_rate), test=False)
        return Wait(None)

    @property
    def _spendable(self) -> int:
        """What may be fulfilled from now on, packets in flight included."""
        most = self.terms.send_max if self.terms.fixed_delivery else self.terms.amount
        return most - self.sent - self.in_doubt

    def _nothing_left(self) -> str:
        if self.in_doubt or self._spendable:
            return "packets without a reply hold the rest of the amount"
        return (
            f"all of the {self.terms.send_max} units allowed are sent: "
            f"{self.delivered} arrived of {self.terms.amount} to deliver"
        )

    def _test(self) -> Offer | Done:
        self._tests += 1
        if self._tests > STREAM_TEST_PACKETS_MAX:
            self.stop(f"no rate after {STREAM_TEST_PACKETS_MAX} test packets")
            return DONE
        return self._offer(min(self._test_amount, self._congestion.packet_limit), 0, test=True)

    def _offer(self, amount: int, minimum: int, *, test: bool) -> Offer:
        offer = Offer(self._next_sequence, amount, minimum, test, introduce=not self._heard)
        self._next_sequence += 1
        self.in_flight[offer.sequence] = offer
        self._in_flight_amount += 0 if test else amount
        self._in_flight_minimum += minimum
        return offer

    def _is_small(self, amount: int) -> bool:
        """Whether rounding can make the measured rate unfair to a packet of `amount`."""
        return amount * 2 <= self._measured_with

    def _minimum(self, amount: int, rate: Fraction) -> int:
        fair = amount * rate // 1
        if not self._is_small(amount):
            return fair
        due = (self.sent + self._in_flight_amount + amount) * rate // 1
        spare = self.delivered + self._in_flight_minimum + fair - due
        return max(0, fair - max(0, min(spare, STREAM_ROUNDING_MAX)))

    def _next_amount(self, rate: Fraction) -> int:
        available = self._spendable - self._in_flight_amount
        if self.terms.fixed_delivery:
            expected = self._in_flight_amount * rate // 1 + self._in_doubt_expected
            wanted = self.terms.amount - self.delivered - expected
            needed = -(-wanted // rate)
            if needed > 0:
                # What is left may be too little to arrive at all: rather a little more, than not complete.
                needed = max(needed, self._congestion.floor)
            available = min(available, needed)
        room = self._room(rate)
        if room is not None:
            available = min(available, -(-room // rate))
        if available <= 0:
            return 0
        # Even parts: a small last packet would lose more to rounding than its minimum allows.
        parts = -(-available // self._congestion.packet_limit)
        return -(-available // parts)

    def _room(self, rate: Fraction) -> int | None:
        """What the receiver will still take, in its units; None if it has set no limit."""
        if self._receive_max is None:
            return None
        taken = max(self.delivered, self._remote_received) + self._in_flight_amount * rate // 1
        return max(0, self._receive_max - taken)

    def farewell(self) -> Offer | None:
        """The packet that may carry a goodbye, when there is somebody to hear it and nothing in flight."""
        if not self._heard or self.in_flight:
            return None
        return Offer(self._next_sequence, 0, 0, test=True, introduce=False)

    # --- what came back ---

    def lost(self, offer: Offer, reason: str) -> None:
        """No reply to `offer`, or none that can be read: its money is in doubt, and the payment over."""
        self._landed(offer)
        if not offer.test:
            self.in_doubt += offer.amount
            self._in_doubt_expected += offer.amount * (self.rate or 0) // 1
        self.stop(reason)

    def answered(self, offer: Offer, reply: Reply, now_ms: int) -> None:
        """The reply to `offer`."""
        self._landed(offer)
        if reply.delivered is not None:
            self._heard = True
            self._heed(reply.frames)
        if reply.fulfilled:
            self._fulfilled(offer, reply, now_ms)
        if not self.satisfied:
            # Only now: the reply that completes a payment may well close it.
            self._heed_close(reply.frames)
        if offer.test and reply.delivered is not None:
            self._measured(offer, reply.delivered)
        elif not reply.fulfilled:
            self.rejects[reply.code] += 1
            self._rejected(offer, reply, now_ms)
        if self._congestion.exhausted:
            last = self._obstacle or _who(reply)
            self.stop(f"gave up after {self._congestion.setbacks} setbacks in a row; the last: {last}")

    def _landed(self, offer: Offer) -> None:
        del self.in_flight[offer.sequence]
        self._in_flight_amount -= 0 if offer.test else offer.amount
        self._in_flight_minimum -= offer.minimum

    def _heed(self, frames: tuple[stream.Frame, ...]) -> None:
        for frame in frames:
            if isinstance(frame, stream.AssetDetails):
                self.asset = asset_from_wire(frame.source_asset_code, frame.source_asset_scale)
            elif isinstance(frame, stream.StreamMaxMoney) and frame.stream_id == STREAM_ID:
                # RFC 29, 4.4.4: "they MUST ignore flow control offsets that do not increase".
                self._receive_max = max(self._receive_max or 0, frame.receive_max)
                self._remote_received = max(self._remote_received, frame.total_received)

    def _heed_close(self, frames: tuple[stream.Frame, ...]) -> None:
        for frame in frames:
            if isinstance(frame, stream.StreamClose) and frame.stream_id != STREAM_ID:
                continue
            if isinstance(frame, stream.ConnectionClose | stream.StreamClose):
                reason = printable(frame.error_message) or f"error code {frame.error_code}"
                self.stop(f"the receiver closed the connection: {reason}")

    def _measured(self, offer: Offer, delivered: int) -> None:
        """A test packet came through: `delivered` of its amount arrived."""
        self._congestion.setbacks = 0
        largest = offer.amount >= self._congestion.packet_limit
        if delivered == 0:
            self._scale_up(largest)
        elif self.terms.fixed_delivery and delivered < min(self.terms.amount, _PRECISE_AT) and not largest:
            self._test_amount = -(-offer.amount * min(self.terms.amount, _PRECISE_AT) // delivered)
        else:
            self._measured_with = offer.amount
            self._agree(Fraction(delivered, offer.amount))

    def _scale_up(self, largest: bool) -> None:
        if largest or not self.terms.fixed_delivery or self._test_amount >= U64_MAX:
            self.stop("the amount is too small: nothing of it would arrive")
        self._test_amount = min(self._test_amount * _SCALE_UP, U64_MAX)

    def _agree(self, rate: Fraction) -> None:
        asked = self.terms.minimum_rate
        if asked is not None and rate < asked:
            self.stop(f"the rate is {format_rate(rate)}, below the minimum of {format_rate(asked)}")
        elif asked is None and self.asset == self.own_asset and rate < SAME_ASSET_RATE_MIN:
            self.stop(
                f"the rate is {format_rate(rate)}, though both assets are {self.own_asset.code} "
                f"with scale {self.own_asset.scale}: the least taken unasked is "
                f"{format_rate(SAME_ASSET_RATE_MIN)}; pass --min-rate to accept it",
            )
        needed = -(-self.terms.amount // rate)
        if self.terms.fixed_delivery and needed > self.terms.send_max:
            self.stop(
                f"at the measured rate of {format_rate(rate)}, {needed} units would have to be sent: "
                f"more than the {self.terms.send_max} allowed",
            )
        self.rate = rate
        self._congestion.bound(int(U64_MAX // rate))
        self.minimum_rate = rate * (1 - self.terms.slippage) if asked is None else asked

    def _fulfilled(self, offer: Offer, reply: Reply, now_ms: int) -> None:
        if offer.amount == 0:
            if self.rate is not None and self._room(self.rate) == 0:
                self._obstacle = f"the receiver takes no more than {self._receive_max}"
                self._back_off(offer, now_ms)
            return
        self.fulfilled += 1
        self.sent += offer.amount
        self._below_minimum = 0
        self._obstacle = None
        self._congestion.fulfilled(offer.amount)
        if reply.delivered is None:
            self.stop("a packet was fulfilled, but its reply does not say what arrived")
        else:
            self.delivered += reply.delivered
            if reply.delivered < offer.minimum:
                self.stop("the receiver took less than the minimum that it was told to enforce")

    def _back_off(self, offer: Offer, now_ms: int) -> None:
        self._congestion.back_off(offer.sequence, self._next_sequence, now_ms)

    def _rejected(self, offer: Offer, reply: Reply, now_ms: int) -> None:
        code = reply.code
        if code[0] == "T" or code == "R00":
            self._obstacle = _who(reply)
        if code == "F08":
            self._congestion.too_large(offer.sequence, self._next_sequence, offer.amount, reply.too_large)
            if self._congestion.ceiling == 0:
                self.stop(f"no amount is small enough for this path: {_who(reply)}")
        elif code == "T04":
            self._congestion.lacking_liquidity(offer.sequence, self._next_sequence, now_ms, offer.amount)
        elif code[0] == "T" or code == "R00":
            self._back_off(offer, now_ms)
        elif code == "R01" and offer.test:
            self._scale_up(offer.amount >= self._congestion.packet_limit)
        elif code == "R01" and self._may_grow(offer):
            self._too_small(offer, now_ms)
        elif code == "F99" and reply.delivered is not None:
            self._declined(offer, reply.delivered, reply, now_ms)
        else:
            self.stop(_who(reply))

    def _may_grow(self, offer: Offer) -> bool:
        """Whether a packet that lost too much to rounding can be sent again as part of a larger one."""
        if not self._is_small(offer.amount) or self.rate is None or offer.amount >= self._spendable:
            return False
        if self.terms.fixed_delivery:
            return offer.amount <= (self.terms.amount - self.delivered) / self.rate + STREAM_ROUNDING_MAX
        return True

    def _too_small(self, offer: Offer, now_ms: int) -> None:
        self._congestion.too_small(offer.amount)
        self._back_off(offer, now_ms)

    def _declined(self, offer: Offer, delivered: int, reply: Reply, now_ms: int) -> None:
        """The receiver itself refused a packet of which `delivered` had arrived."""
        if delivered < offer.minimum and self._may_grow(offer):
            self._too_small(offer, now_ms)
            return
        is_news = self._congestion.back_off(offer.sequence, self._next_sequence, now_ms)
        if delivered < offer.minimum:
            self._below_minimum += is_news
            if self._below_minimum >= STREAM_BELOW_MINIMUM_MAX:
                self.stop(
                    f"the rate is below the minimum: {delivered} arrived of {offer.amount}, "
                    f"at least {offer.minimum} was asked for",
                )
            return
        taken = max(self.delivered, self._remote_received)
        if self._receive_max is None or taken + delivered <= self._receive_max:
            # It names no limit that would explain it: it will not say yes to the same packet again.
            self.stop(_who(reply))


def _who(reply: Reply) -> str:
    who = reply.triggered_by or "a node that does not say which"
    return f"{reply.code} from {who}" + (f": {printable(reply.message)}" if reply.message else "")
