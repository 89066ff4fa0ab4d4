"""Pays over STREAM (RFC 29): the trio shell around `controller`.

Owns what the controller may not have: the uplink, clocks, randomness, and one
task per packet in flight. Whatever happens, a payment ends with a report: once
packets have left, the truth about them matters more than the error.
"""

import secrets
import time
from collections.abc import Callable

import msgspec
import trio

from connector.errors import RemoteProtocolError, Unavailable
from connector.limits import (
    PAYMENT_TIMEOUT_S,
    REPLY_MARGIN_MS,
    STREAM_CLOSE_TIMEOUT_S,
    STREAM_DRAIN_MS,
    STREAM_PACKET_TIMEOUT_MS,
)
from connector.protocol import ilp, stream
from connector.protocol.stream_crypto import IV_BYTES, Keys
from connector.sender.controller import STREAM_ID, Controller, Done, Offer, Terms
from connector.sender.envelope import open_reply, seal
from connector.sender.report import Asset, Report, asset_from_wire
from connector.sender.uplink import Uplink, own_config


class Receiver(msgspec.Struct, frozen=True):
    """Where to pay, and the secret shared with whoever is there. Never print it: it holds a secret."""

    destination: str
    shared_secret: bytes

    def __repr__(self) -> str:
        return f"Receiver({self.destination!r})"


class Progress(msgspec.Struct, frozen=True):
    """How far a payment is: `done` of `total`, in the units that the amount was given in."""

    done: int
    total: int
    sent: int
    delivered: int
    packets_fulfilled: int
    packets_rejected: int


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


async def pay(
    uplink: Uplink,
    receiver: Receiver,
    terms: Terms,
    *,
    timeout_s: float = PAYMENT_TIMEOUT_S,
    on_progress: Callable[[Progress], None] | None = None,
    interrupt: trio.Event | None = None,
    wall_ms: Callable[[], int] = _wall_ms,
    entropy: Callable[[int], bytes] = secrets.token_bytes,
) -> Report:
    """Pay `receiver` on `terms`; the report says what came of it.

    Setting `interrupt` stops the payment: nothing more is sent, replies still due
    are waited for a little.

    Raises PaymentError or Unavailable only while nothing has been sent yet. Not
    raised for a payment that stops half-way: see `Report.reason`.
    """
    config = await own_config(uplink, wall_ms())
    own_asset = asset_from_wire(config.asset_code, config.asset_scale)
    payment = _Payment(uplink, receiver, terms, own_asset, on_progress, wall_ms, entropy)
    started = trio.current_time()
    await payment.run(timeout_s, trio.Event() if interrupt is None else interrupt)
    duration_ms = round((trio.current_time() - started) * 1000)
    await payment.close()
    return payment.report(duration_ms)


class _Payment:
    """One payment's tasks."""

    def __init__(
        self,
        uplink: Uplink,
        receiver: Receiver,
        terms: Terms,
        own_asset: Asset,
        on_progress: Callable[[Progress], None] | None,
        wall_ms: Callable[[], int],
        entropy: Callable[[int], bytes],
    ) -> None:
        self._uplink = uplink
        self._destination = receiver.destination
        self._keys = Keys(receiver.shared_secret)
        self._controller = Controller(terms, own_asset)
        self._on_progress = on_progress
        self._wall_ms = wall_ms
        self._entropy = entropy
        self._news = trio.Event()
        self._ends_at_ms = 0

    async def run(self, timeout_s: float, interrupt: trio.Event) -> None:
        """Send until the controller is done, or stopped and the replies still due had their time."""
        self._ends_at_ms = self._now_ms() + round(timeout_s * 1000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._heed, interrupt)
            while True:
                now_ms = self._now_ms()
                if now_ms >= self._ends_at_ms:
                    if self._controller.stopped:
                        break
                    self._stop(f"not finished within {timeout_s:g} s")
                step = self._controller.next(now_ms)
                if isinstance(step, Done):
                    break
                if isinstance(step, Offer):
                    nursery.start_soon(self._send, step)
                else:
                    await self._wait(min(self._ends_at_ms, step.until_ms or self._ends_at_ms))
            nursery.cancel_scope.cancel()
        for offer in list(self._controller.in_flight.values()):
            self._controller.lost(offer, "replies were still missing at the end")

    def _stop(self, reason: str) -> None:
        self._controller.stop(reason)
        self._ends_at_ms = self._now_ms() + STREAM_DRAIN_MS

    async def _heed(self, interrupt: trio.Event) -> None:
        await interrupt.wait()
        self._stop("interrupted")
        self._news.set()

    async def _wait(self, until_ms: int) -> None:
        with trio.move_on_after((until_ms - self._now_ms()) / 1000):
            await self._news.wait()
        if self._news.is_set():
            self._news = trio.Event()

    async def _send(self, offer: Offer) -> None:
        prepare = self._seal(offer, self._frames(offer))
        timeout_s = (STREAM_PACKET_TIMEOUT_MS + REPLY_MARGIN_MS) / 1000
        try:
            octets = await self._uplink.send(ilp.encode_prepare(prepare), timeout_s=timeout_s)
            reply = open_reply(self._keys, prepare, offer.sequence, octets)
        except (Unavailable, RemoteProtocolError) as error:
            self._controller.lost(offer, f"a packet was left without a valid reply: {error}")
        else:
            self._controller.answered(offer, reply, self._now_ms())
        self._news.set()
        self._tell()

    def _frames(self, offer: Offer) -> tuple[stream.Frame, ...]:
        frames: tuple[stream.Frame, ...] = ()
        if offer.introduce:
            # The empty address asks the stock receiver for its asset without inviting
            # it to open a payment back, which this sender could not take part in.
            asset = self._controller.own_asset
            frames = (stream.NewAddress(""), stream.AssetDetails(asset.code, asset.scale))
        if offer.amount and not offer.test:
            # Shares that add up to nothing make the stock receiver divide by zero.
            frames += (stream.StreamMoney(STREAM_ID, offer.amount),)
        return frames

    def _seal(self, offer: Offer, frames: tuple[stream.Frame, ...]) -> ilp.Prepare:
        return seal(
            self._keys,
            stream.Packet(offer.sequence, ilp.PREPARE, offer.minimum, frames),
            destination=self._destination,
            amount=offer.amount,
            expires_at_ms=self._wall_ms() + STREAM_PACKET_TIMEOUT_MS,
            iv=self._entropy(IV_BYTES),
            unfulfillable=self._entropy(32) if offer.test else None,
        )

    async def close(self) -> None:
        """Tell the receiver that the connection is over, if it has ever answered; a courtesy."""
        offer = self._controller.farewell()
        if offer is None:
            return
        prepare = self._seal(offer, (stream.ConnectionClose(stream.NO_ERROR, ""),))
        try:
            await self._uplink.send(ilp.encode_prepare(prepare), timeout_s=STREAM_CLOSE_TIMEOUT_S)
        except Unavailable:
            return

    def _tell(self) -> None:
        if self._on_progress is not None:
            controller = self._controller
            fixed = controller.terms.fixed_delivery
            self._on_progress(
                Progress(
                    done=controller.delivered if fixed else controller.sent,
                    total=controller.terms.amount,
                    sent=controller.sent,
                    delivered=controller.delivered,
                    packets_fulfilled=controller.fulfilled,
                    packets_rejected=controller.rejects.total(),
                ),
            )

    def report(self, duration_ms: int) -> Report:
        """What came of it."""
        controller = self._controller
        return Report(
            complete=controller.complete,
            reason=controller.stopped,
            destination=self._destination,
            source_asset=controller.own_asset,
            destination_asset=controller.asset,
            sent=controller.sent,
            delivered=controller.delivered,
            in_doubt=controller.in_doubt,
            rate=controller.rate,
            minimum_rate=controller.minimum_rate,
            packets_fulfilled=controller.fulfilled,
            packets_rejected=controller.rejects.total(),
            rejects=dict(sorted(controller.rejects.items())),
            duration_ms=duration_ms,
        )

    @staticmethod
    def _now_ms() -> int:
        return round(trio.current_time() * 1000)
