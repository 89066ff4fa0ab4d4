"""A payer and a shop: children of two nodes, who remember what they saw whatever happens to the nodes.

Their connection is their own (wsproto over TCP): it goes on reading when
writing fails, so that whatever a killed node had sent is seen.
"""

import math
import random
import time
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from socket import SO_RCVBUF, SOL_SOCKET

import msgspec
import trio
import wsproto
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, Request

from connector.protocol import btp, ilp

#: Prepares on their way that the payer sent since the last disturbance.
WINDOW = 96
#: How often the payer sends.
INTERVAL_S = 0.01
#: How long the payer waits before it tries again what a node cannot forward now.
PROBE_S = 0.02
#: With less time left the shop does not deal.
SHOP_MARGIN_MS = 500
#: What the kernel holds for a person who does not read is little.
RECEIVE_BUFFER_BYTES = 65_536
FULFILLED = "fulfilled"


class _Lost(Exception):
    """The connection ended, or never began."""


class Connection:
    """One BTP connection of a child."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._ws = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        self._queue: list[bytes] = []
        self._queued = trio.Event()
        self._message = b""
        self._accepted = False

    async def authenticate(self, token: str) -> None:
        """Shake hands, and be accepted."""
        self._queue.append(self._ws.send(Request(host="node", target="/")))
        await self._flush()
        while not self._accepted:
            await self.read()
        auth = btp.SubProtocol("auth", 0, b""), btp.SubProtocol("auth_token", 1, token.encode())
        self.send([btp.encode(btp.Message(1, auth))])
        await self._flush()
        frames: list[btp.Frame] = []
        while not frames:
            frames = await self.read()
        if not isinstance(frames[0], btp.Response):
            raise _Lost
        assert len(frames) == 1, "nothing comes before a request"

    def send(self, frames: list[bytes]) -> None:
        """Have BTP frames written, in order."""
        self._queue += [self._ws.send(BytesMessage(frame)) for frame in frames]
        self._queued.set()

    async def write(self) -> None:
        """Write what is sent, until the other end is gone."""
        while True:
            await self._queued.wait()
            self._queued = trio.Event()
            try:
                await self._flush()
            except _Lost:
                return

    async def _flush(self) -> None:
        octets = b"".join(self._queue)
        self._queue = []
        try:
            await self._stream.send_all(octets)
        except trio.BrokenResourceError:
            raise _Lost from None

    async def read(self) -> list[btp.Frame]:
        """What comes next. Raises _Lost at the end."""
        try:
            octets = await self._stream.receive_some()
        except trio.BrokenResourceError:
            raise _Lost from None
        if not octets:
            raise _Lost
        self._ws.receive_data(octets)
        frames = []
        for event in self._ws.events():
            if isinstance(event, BytesMessage):
                self._message += event.data
                if event.message_finished:
                    frames.append(btp.decode(self._message))
                    self._message = b""
            elif isinstance(event, Ping):
                self._queue.append(self._ws.send(event.response()))
                self._queued.set()
            elif isinstance(event, CloseConnection):
                raise _Lost
            else:
                self._accepted = self._accepted or isinstance(event, AcceptConnection)
        return frames


class Person:
    """A child of a node: dials again whenever the connection is lost."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._token = token
        self.connection: Connection | None = None
        #: Since when what comes is not read; monotonic seconds.
        self.unread_since_s = math.inf
        self._may_read = trio.Event()
        self._may_read.set()
        self._changed = trio.Event()

    async def run(self) -> None:
        """Stay connected; never returns."""
        while True:
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", self._port)
            except OSError:
                await trio.sleep(PROBE_S)
                continue
            stream.setsockopt(SOL_SOCKET, SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            async with stream:
                connection = Connection(stream)
                try:
                    await connection.authenticate(self._token)
                    await self._use(connection)
                except _Lost:
                    pass
            self.lost()

    def stop_reading(self) -> None:
        """Read no more, until `go_on_reading`."""
        self.unread_since_s = time.monotonic()
        self._may_read = trio.Event()

    def go_on_reading(self) -> None:
        """Read what came meanwhile, and what comes."""
        self.unread_since_s = math.inf
        self._may_read.set()

    async def _use(self, connection: Connection) -> None:
        async with trio.open_nursery() as nursery:
            self.connection = connection
            nursery.start_soon(connection.write)
            nursery.start_soon(self.work, connection)
            try:
                while True:
                    await self._may_read.wait()
                    for frame in await connection.read():
                        self.received(connection, nursery, frame)
                    self.moved()
            except _Lost:
                pass
            self.connection = None
            nursery.cancel_scope.cancel()

    async def work(self, connection: Connection) -> None:
        """What to do by oneself while connected."""

    def received(self, connection: Connection, nursery: trio.Nursery, frame: btp.Frame) -> None:
        """A frame came."""
        raise NotImplementedError

    def lost(self) -> None:
        """The connection is gone, and everything that it brought has been read."""
        self.moved()

    def moved(self) -> None:
        """Wake those who wait for something to have changed."""
        self._changed.set()
        self._changed = trio.Event()

    async def wait(self, condition: Callable[[], bool], timeout_s: float = 30) -> None:
        """Wait until `condition()` holds."""
        with trio.fail_after(timeout_s):
            while not condition():
                await self._changed.wait()


class Sent(msgspec.Struct):
    """A packet as the payer knows it; `outcome` is FULFILLED, a reject's code, or empty."""

    amount: int
    #: Monotonic seconds.
    sent_s: float
    answered_s: float = math.inf
    outcome: str = ""


class Payer(Person):
    """Sends Prepares to the shop, in a window, as long as `is_sending`."""

    def __init__(
        self,
        port: int,
        token: str,
        destination: str,
        seed: int,
        *,
        burst: int = 8,
        amount_max: int = 1_000_000,
        expiry_ms: int = 2_000,
    ) -> None:
        """`burst`: how many Prepares at a time."""
        super().__init__(port, token)
        self._burst = burst
        self._amount_max = amount_max
        self._expiry_ms = expiry_ms
        self.packets: dict[bytes, Sent] = {}
        self.outcomes: Counter[str] = Counter()
        self.is_sending = True
        self._destination = destination
        self._random = random.Random(seed)
        self._asked: dict[int, tuple[bytes, bytes]] = {}
        self._window: set[int] = set()
        self._next_id = 2
        self._not_before_s = 0.0

    @property
    def outstanding(self) -> int:
        """Packets that may still be answered."""
        return len(self._asked)

    def forgive(self) -> None:
        """Do not wait for what is on its way: it may be stuck until it expires."""
        self._window.clear()

    async def work(self, connection: Connection) -> None:
        """Send."""
        while True:
            now_s = time.monotonic()
            if self.is_sending and now_s >= self._not_before_s:
                room = min(self._burst, WINDOW - len(self._window))
                if self._not_before_s:
                    # Something went wrong lately: one packet finds out whether it still does.
                    room = min(room, 1)
                connection.send([self._prepare(now_s) for _ in range(room)])
            await trio.sleep(INTERVAL_S)

    def _prepare(self, now_s: float) -> bytes:
        request_id = self._next_id
        self._next_id += 1
        preimage = preimage_of(request_id)
        condition = sha256(preimage).digest()
        amount = self._random.randrange(10, self._amount_max)
        prepare = ilp.Prepare(
            amount=amount,
            expires_at_ms=time.time_ns() // 1_000_000 + self._expiry_ms,
            condition=condition,
            destination=self._destination,
            data=request_id.to_bytes(8, "big"),
        )
        self._asked[request_id] = (condition[:16], preimage)
        self._window.add(request_id)
        self.packets[condition[:16]] = Sent(amount, now_s)
        return btp.ilp_message(request_id, ilp.encode_prepare(prepare))

    def received(self, connection: Connection, nursery: trio.Nursery, frame: btp.Frame) -> None:
        """An answer."""
        assert isinstance(frame, btp.Response), frame
        packet_id, preimage = self._asked.pop(frame.request_id)
        self._window.discard(frame.request_id)
        sent = self.packets[packet_id]
        assert not sent.outcome, "a packet is answered once"
        sent.answered_s = time.monotonic()
        found = btp.find(frame.sub_protocols, "ilp")
        assert found is not None
        packet = ilp.decode(found.data)
        if isinstance(packet, ilp.Fulfill):
            assert packet.fulfillment == preimage
            sent.outcome = FULFILLED
            self._not_before_s = 0
        else:
            assert isinstance(packet, ilp.Reject)
            sent.outcome = packet.code
            if packet.code == "T01":
                self._not_before_s = sent.answered_s + PROBE_S
        self.outcomes[sent.outcome] += 1

    def lost(self) -> None:
        """What was not answered never will be."""
        self._asked.clear()
        self._window.clear()
        self._not_before_s = time.monotonic()
        super().lost()

    async def fulfilled(self, count: int) -> None:
        """Wait until `count` more packets were paid for."""
        aim = self.outcomes[FULFILLED] + count
        await self.wait(lambda: self.outcomes[FULFILLED] >= aim)


def preimage_of(number: int) -> bytes:
    """What payer and shop both know of packet `number`."""
    return sha256(b"crash" + number.to_bytes(8, "big")).digest()


class Seen(msgspec.Struct):
    """A packet as the shop knows it."""

    amount: int
    is_fulfilled: bool = False


class Shop(Person):
    """Fulfills most packets, rejects some, is slow with some, and leaves a few unanswered."""

    def __init__(self, port: int, token: str, seed: int, *, is_moody: bool = True, data: bytes = b"") -> None:
        """Without moods it fulfills everything at once; `data` goes along with each Fulfill."""
        super().__init__(port, token)
        self._data = data
        self.packets: dict[bytes, Seen] = {}
        self._random = random.Random(seed)
        self._is_moody = is_moody

    def received(self, connection: Connection, nursery: trio.Nursery, frame: btp.Frame) -> None:
        """A Prepare."""
        assert isinstance(frame, btp.Message), frame
        found = btp.find(frame.sub_protocols, "ilp")
        assert found is not None
        prepare = ilp.decode_prepare(found.data)
        packet_id = prepare.condition[:16]
        assert packet_id not in self.packets, "a packet comes once"
        self.packets[packet_id] = Seen(prepare.amount)
        mood = self._random.randrange(100) if self._is_moody else 99
        if mood < 2:
            return
        if mood < 7:
            reject = ilp.Reject("F99", "test.shop", "not today", b"")
            connection.send([btp.ilp_response(frame.request_id, ilp.encode_reject(reject))])
        elif mood < 17:
            nursery.start_soon(self._fulfill_later, connection, frame.request_id, prepare)
        else:
            self._fulfill(connection, frame.request_id, prepare)

    async def _fulfill_later(self, connection: Connection, request_id: int, prepare: ilp.Prepare) -> None:
        await trio.sleep(self._random.uniform(0.02, 0.4))
        self._fulfill(connection, request_id, prepare)

    def _fulfill(self, connection: Connection, request_id: int, prepare: ilp.Prepare) -> None:
        if prepare.expires_at_ms - time.time_ns() // 1_000_000 < SHOP_MARGIN_MS:
            return
        preimage = preimage_of(int.from_bytes(prepare.data, "big"))
        assert sha256(preimage).digest() == prepare.condition
        self.packets[prepare.condition[:16]].is_fulfilled = True
        connection.send([btp.ilp_response(request_id, ilp.encode_fulfill(ilp.Fulfill(preimage, self._data)))])
