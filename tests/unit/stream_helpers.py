"""A path to a receiver with every fault at hand, and a payment over it."""

import random
from collections.abc import Callable
from fractions import Fraction

import msgspec
import trio

from connector.limits import STREAM_SENDER_IN_FLIGHT_MAX, U64_MAX
from connector.protocol import ildcp, ilp
from connector.protocol.stream_crypto import IV_BYTES
from connector.receiver.stream_server import NONCE_BYTES, StreamServer
from connector.sender.controller import Terms
from connector.sender.report import Report
from connector.sender.stream_client import Receiver, pay

SERVER = StreamServer(bytes(range(32)), "test.node.alice", "USD", 6)
RECEIVER = Receiver(*SERVER.generate_credentials(bytes(NONCE_BYTES)))


class Network:
    """An uplink whose other end is SERVER, behind one connector with every fault at hand.

    `taken` is what the connector has fulfilled upstream, so what the sender has
    truly spent; `received` what the receiver has been paid.
    """

    def __init__(
        self,
        *,
        rate: Fraction = Fraction(1),
        largest: int = U64_MAX,
        liquidity: int = U64_MAX,
        window: int = 10_000,
        loss: float = 0.0,
        latency_s: float = 0.05,
        seed: int = 0,
    ) -> None:
        self.rate = rate
        self.largest = largest
        self.liquidity = liquidity
        self.window = window
        self.loss = loss
        self.latency_s = latency_s
        self.random = random.Random(seed)
        self.taken = 0
        self.received = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self.value_in_flight = 0
        self.amounts: list[int] = []
        self.asset = ildcp.ChildConfig("test.node.me", 6, "USD")
        self.interfere: Callable[[ilp.Prepare], ilp.Packet | None] = lambda prepare: None
        self.receive: Callable[[ilp.Prepare], ilp.Fulfill | ilp.Reject] = self._receive

    async def send(self, packet: bytes, *, timeout_s: float) -> bytes:
        prepare = ilp.decode_prepare(packet)
        if prepare.destination == ildcp.DESTINATION:
            return ilp.encode_fulfill(ildcp.reply(self.asset))
        self.in_flight += 1
        self.value_in_flight += prepare.amount
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            reply = await self._forward(prepare)
        finally:
            self.in_flight -= 1
            self.value_in_flight -= prepare.amount
        if isinstance(reply, ilp.Fulfill):
            self.taken += prepare.amount
            return ilp.encode_fulfill(reply)
        assert isinstance(reply, ilp.Reject)
        return ilp.encode_reject(reply)

    async def _forward(self, prepare: ilp.Prepare) -> ilp.Packet:
        interfered = self.interfere(prepare)
        if interfered is not None:
            await trio.sleep(self.latency_s)
            return interfered
        if prepare.amount > self.largest:
            sizes = prepare.amount.to_bytes(8, "big") + self.largest.to_bytes(8, "big")
            return ilp.Reject("F08", "test.node", "too large", sizes)
        if self.value_in_flight > self.liquidity or self.in_flight > self.window:
            code = "T04" if self.value_in_flight > self.liquidity else "T02"
            await trio.sleep(self.latency_s)
            return ilp.Reject(code, "test.node", "full", b"")
        await trio.sleep(self.latency_s * (0.5 + self.random.random()))
        if self.random.random() < self.loss:
            return await self._expire()
        self.amounts.append(prepare.amount)
        arrived = prepare.amount * self.rate // 1
        reply = self.receive(msgspec.structs.replace(prepare, amount=arrived))
        await trio.sleep(self.latency_s / 2)
        if isinstance(reply, ilp.Fulfill):
            self.received += arrived
        return reply

    async def _expire(self) -> ilp.Packet:
        await trio.sleep(30)
        return ilp.Reject("R00", "test.node", "no answer in time", b"")

    def _receive(self, prepare: ilp.Prepare) -> ilp.Fulfill | ilp.Reject:
        return SERVER.handle(prepare, self.random.randbytes(IV_BYTES))


async def send(
    network: Network,
    amount: int,
    *,
    timeout_s: float = 600,
    fixed_delivery: bool = False,
    minimum_rate: Fraction | None = None,
    send_max: int = U64_MAX,
) -> Report:
    randomness = random.Random(7)
    report = await pay(
        network,
        RECEIVER,
        Terms(amount=amount, fixed_delivery=fixed_delivery, minimum_rate=minimum_rate, send_max=send_max),
        timeout_s=timeout_s,
        wall_ms=lambda: 1_700_000_000_000 + round(trio.current_time() * 1000),
        entropy=randomness.randbytes,
    )
    assert network.in_flight == 0
    assert network.most_in_flight <= STREAM_SENDER_IN_FLIGHT_MAX
    return report
