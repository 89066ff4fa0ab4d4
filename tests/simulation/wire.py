"""Memory streams that fail like a network and a careless peer, by a seeded script.

A `Cable` joins a dialling and an accepting node. It delivers bytes after a
delay, and drops or repeats whole BTP frames; what it did with each Fulfill it
remembers, so that a disagreement between neighbours can be explained or not.
"""

import random
from typing import Protocol

import msgspec
import trio

from connector.protocol import btp, ilp
from connector.protocol.websocket import FrameSplitter, binary_frame


class Faults(msgspec.Struct, frozen=True):
    """How a cable misbehaves. Probabilities are per BTP frame, after authentication."""

    drop: float = 0.0
    repeat: float = 0.0
    delay_max_s: float = 0.0
    #: Per write: how likely it has to wait until the other end reads on; then, how likely it never does.
    stall: float = 0.0
    stall_breaks: float = 0.0


NO_FAULTS = Faults()
#: How many writes come in two reads.
_TEARS = 0.25
_STALL_MAX_S = 2.0


class Fate(msgspec.Struct):
    """What became of a Prepare's reply on one cable."""

    condition: bytes
    fulfilled: bool = False
    dropped: bool = False
    #: When the asking side read the Fulfill, on the mock clock.
    read_s: float | None = None


class Watcher(Protocol):
    """Who is told of what ends write."""

    def step(self, sender: str, name: str) -> None:
        """`sender` is at that point; it may be killed there."""

    def prepared(self, sender: str, prepare: ilp.Prepare) -> None:
        """A Prepare has left `sender`."""


class Cable:
    """One connection. `dialler` and `acceptor` are the names of its ends."""

    def __init__(self, dialler: str, acceptor: str, faults: Faults, seed: int, watcher: Watcher) -> None:
        self.ends = (dialler, acceptor)
        self.faults = faults
        self.watcher = watcher
        self.began_s = trio.current_time()
        #: When it was cut, or an end closed it.
        self.ended_s: float | None = None
        self.random = random.Random(seed)
        #: By the name of the end that asked, and its request id.
        self.fates: dict[tuple[str, int], Fate] = {}
        upward = _Direction(self, dialler, acceptor, masked=True)
        downward = _Direction(self, acceptor, dialler, masked=False)
        self.dialler_stream = _End(upward, downward)
        self.acceptor_stream = _End(downward, upward)

    def cut(self) -> None:
        """Break the connection in both directions; what is under way is lost."""
        self.end()
        for stream in (self.dialler_stream, self.acceptor_stream):
            stream.outgoing.cut()

    def lose(self, name: str, *, delivers: bool) -> None:
        """The process at end `name` was killed; its system still delivers what it was given, or not."""
        self.end()
        stream = self.end_of(name)
        stream.incoming.cut()
        if delivers:
            stream.outgoing.close()
        else:
            stream.outgoing.cut()

    def end_of(self, name: str) -> "_End":
        """The end that `name` holds."""
        return self.dialler_stream if name == self.ends[0] else self.acceptor_stream

    def end(self) -> None:
        """Note when it ended."""
        if self.ended_s is None:
            self.ended_s = trio.current_time()


class _Chunk(msgspec.Struct):
    due_s: float
    data: bytes
    #: Fulfills whose reading is to be noted.
    fates: list[Fate]


class _Direction:
    """Bytes from `sender` to `receiver`."""

    def __init__(self, cable: Cable, sender: str, receiver: str, *, masked: bool) -> None:
        self._cable = cable
        self._sender = sender
        self._receiver = receiver
        self._masked = masked
        self._splitter = FrameSplitter(masked=masked, max_bytes=1 << 20)
        self._handshake = True
        self._frames = 0
        self._unsplit = b""
        self._repeated = False
        self._chunks: list[_Chunk] = []
        self._news = trio.Event()
        self.closed = False
        self.broken = False

    def put(self, data: bytes) -> None:
        fates: list[Fate] = []
        if self._handshake:
            self._handshake = b"\r\n\r\n" not in data
            out = data
        else:
            split = self._splitter.split(self._unsplit + data)
            self._unsplit = (self._unsplit + data)[split.used :]
            out = split.rest + b"".join(self._frame(payload, fates) for payload in split.payloads)
        delay_s = self._cable.random.random() * self._cable.faults.delay_max_s
        due_s = trio.current_time() + delay_s
        if self._chunks:
            due_s = max(due_s, self._chunks[-1].due_s)  # A connection keeps its order.
        # Reads end anywhere. Only a repeated Prepare comes in one read with the first: later it
        # would be another packet, by the same right as the first.
        tears = self._cable.random.random() < _TEARS and out and not self._repeated
        cut = self._cable.random.randrange(len(out)) if tears else 0
        self._repeated = False
        if cut:
            self._chunks.append(_Chunk(due_s, out[:cut], []))
        self._chunks.append(_Chunk(due_s, out[cut:], fates))
        self._notify()

    def _frame(self, payload: bytes, fates: list[Fate]) -> bytes:
        """The frame again, or nothing, or twice."""
        cable = self._cable
        self._frames += 1
        frame = binary_frame(payload, b"mask" if self._masked else b"")
        fate = self._note(payload)
        if self._frames == 1:
            return frame  # Authentication.
        chance = cable.random.random()
        if chance < cable.faults.drop:
            if fate is not None:
                fate.dropped = True
            return b""
        if fate is not None and fate.fulfilled:
            fates.append(fate)
        if chance < cable.faults.drop + cable.faults.repeat:
            self._repeated = True
            return frame * 2
        return frame

    def _note(self, payload: bytes) -> Fate | None:
        """Remember a Prepare, or find the one that a reply answers."""
        packet = btp.read_packet(payload)
        if packet is None:
            return None
        request_id = int.from_bytes(payload[1:5], "big")
        if payload[0] == btp.MESSAGE:
            prepare = ilp.decode_prepare(packet)
            self._cable.watcher.prepared(self._sender, prepare)
            self._cable.fates.setdefault((self._sender, request_id), Fate(prepare.condition))
            return None
        fate = self._cable.fates.get((self._receiver, request_id))
        if fate is not None and packet[0] == ilp.FULFILL:
            fate.fulfilled = True
        return fate

    async def get(self) -> bytes:
        while True:
            if self.broken:
                raise trio.BrokenResourceError("the cable was cut")
            if self._chunks:
                wait_s = self._chunks[0].due_s - trio.current_time()
                if wait_s <= 0:
                    data = self._read()
                    await trio.lowlevel.checkpoint()
                    return data
                with trio.move_on_after(wait_s):
                    await self._news.wait()
            elif self.closed:
                await trio.lowlevel.checkpoint()
                return b""
            else:
                await self._news.wait()

    def _read(self) -> bytes:
        chunk = self._chunks.pop(0)
        for fate in chunk.fates:
            fate.read_s = fate.read_s if fate.read_s is not None else trio.current_time()
        # A chunk whose frames were all dropped is no end of the stream.
        return chunk.data

    @property
    def is_over(self) -> bool:
        """Whether nothing can be written any more."""
        return self.broken or self.closed

    @property
    def is_at_end(self) -> bool:
        """Whether nothing more will be read."""
        return self.closed and not self._chunks

    async def stall(self) -> None:
        """Wait, sometimes, until there is room."""
        cable = self._cable
        if not self._handshake and cable.random.random() < cable.faults.stall:
            await trio.sleep(cable.random.random() * _STALL_MAX_S)
            if cable.random.random() < cable.faults.stall_breaks:
                cable.cut()

    def step(self, name: str) -> None:
        self._cable.watcher.step(self._sender, name)

    def end(self) -> None:
        """Its sender closes the connection."""
        self._cable.end()
        self.close()

    def close(self) -> None:
        self.closed = True
        self._notify()

    def cut(self) -> None:
        self.broken = True
        self._chunks.clear()
        self._notify()

    def _notify(self) -> None:
        self._news.set()
        self._news = trio.Event()


class _End(trio.abc.Stream):
    """What a node holds of a cable."""

    def __init__(self, outgoing: _Direction, incoming: _Direction) -> None:
        self.outgoing = outgoing
        self.incoming = incoming
        #: When this end closed the connection, or heard that it is gone.
        self.gone_s: float | None = None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        if self.outgoing.broken:
            raise self._gone("the cable was cut")
        if self.outgoing.closed or self.incoming.closed:
            raise self._gone("the other end is closed")
        await self.outgoing.stall()
        self.outgoing.step("before a write")
        if not self.outgoing.is_over:
            self.outgoing.put(bytes(data))
        self.outgoing.step("after a write")
        if self.outgoing.is_over:
            raise self._gone("the cable was cut, or this end was killed")

    def _gone(self, reason: str = "") -> trio.BrokenResourceError:
        self.gone_s = self.gone_s if self.gone_s is not None else trio.current_time()
        return trio.BrokenResourceError(reason)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        while True:
            try:
                data = await self.incoming.get()
            except trio.BrokenResourceError as error:
                raise self._gone() from error
            if data:
                return data
            if self.incoming.is_at_end:
                self._gone()
                return data

    async def aclose(self) -> None:
        self._gone()
        self.outgoing.end()
        self.incoming.cut()
        await trio.lowlevel.checkpoint()
