"""The stream adapter under trio-websocket: batches of binary frames, one writer.

trio-websocket owns the handshake, ping and pong, close, and odd frames; it
reads and writes through a `FrameStream`. That takes whole binary frames out of
each read and hands them over as one batch, and joins what is to be sent into
one `send_all` of one writer task.

Invariants:
- Only `run_writer` writes to the transport once it runs, and it is never
  cancelled in the middle of a write while the link is to live on: no half
  frames.
- Octets for the library arrive there in order; payloads arrive in batches in
  order; between the two only the order of a read is lost.
- What is buffered for writing is bounded by `limits.WRITE_HARD_MAX_BYTES`:
  past it the stream breaks.
"""

import os
from collections.abc import Callable

import trio

from connector.limits import (
    BTP_FRAME_MAX_BYTES,
    READ_MAX_BYTES,
    WRITE_HARD_MAX_BYTES,
    WRITE_SOFT_MAX_BYTES,
)
from connector.protocol.websocket import FrameSplitter, binary_frame

_HEADER_END = b"\r\n\r\n"
#: A whole close frame begins so (RFC 6455, section 5.2); nothing that follows it is read.
_CLOSE = b"\x88"
#: A position that no write reaches.
_NEVER = 1 << 62


class FrameStream(trio.abc.Stream):
    """A stream for trio-websocket with the binary frames taken out.

    `on_batch` is called with the payloads of each read that holds any, and
    `on_drained` when a congested stream has room again. The server's side of a
    connection gets masked frames and sends plain ones, the client's the other
    way round.
    """

    def __init__(
        self,
        transport: trio.abc.Stream,
        *,
        is_client: bool,
        on_batch: Callable[[list[bytes]], None],
        on_drained: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._is_client = is_client
        self._on_batch = on_batch
        self._on_drained = on_drained
        self._splitter = FrameSplitter(masked=not is_client, max_bytes=BTP_FRAME_MAX_BYTES)
        self._unread = b""
        self._in_handshake = True
        self._started = trio.Event()
        #: The last octets of a header that is not yet whole, to find its end across two reads.
        self._header_tail = b""
        self._chunks: list[bytes] = []
        #: Octets ever queued and ever written; their difference waits.
        self._queued = 0
        self.written = 0
        self._broken = False
        #: Whether the library has sent a close frame, of its own or in answer to one.
        self._said_goodbye = False
        #: Why we broke the connection, if we did.
        self.break_reason = ""
        self._work = trio.Event()
        self._flushed = trio.Event()
        #: Set when nothing more will be read: the peer closed, or we did, or it broke.
        self.ended = trio.Event()

    def start(self) -> None:
        """The handshake is done and `on_batch` may be called; until then no frame is looked at.

        A peer's first frame may come with the last octets of its handshake.
        """
        self._started.set()

    # --- reading, by trio-websocket's reader task ---

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What the WebSocket library is to see; b"" at the end of the stream.

        Hands over batches in between. `max_bytes` is the library's wish and is
        ignored: a batch is what one read holds.
        """
        if not self._in_handshake and not self._started.is_set():
            await self._started.wait()
        while True:
            rest = self._split() if self._unread else b""
            if rest:
                await trio.lowlevel.checkpoint()
                return rest
            data = await self._read()
            if not data:
                return b""
            if self._in_handshake:
                return self._split_handshake(data)
            self._unread += data

    async def _read(self) -> bytes:
        try:
            data = bytes(await self._transport.receive_some(READ_MAX_BYTES))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.ended.set()
            raise
        if not data:
            self.ended.set()
        return data

    def _split(self) -> bytes:
        split = self._splitter.split(self._unread)
        self._unread = self._unread[split.used :]
        if split.payloads:
            self._on_batch(split.payloads)
        return split.rest

    def _split_handshake(self, data: bytes) -> bytes:
        """Pass on the HTTP header; frames that came with it wait for the next read.

        The header may come in pieces: until its end is seen, everything is the
        library's, which bounds it.
        """
        seen = self._header_tail + data
        end = seen.find(_HEADER_END)
        header = len(data)
        if end < 0:
            self._header_tail = seen[-(len(_HEADER_END) - 1) :]
        else:
            self._in_handshake = False
            header = end + len(_HEADER_END) - (len(seen) - len(data))
            self._unread = data[header:]
        if not data[:header].isascii():
            # wsproto would raise a UnicodeDecodeError where nobody can catch it.
            self._break("its WebSocket handshake is not ASCII")
            return b""
        if self._is_client and not self._in_handshake and b" 101" not in seen[:12]:
            # Refused: what follows is no frames but a body, for the library.
            self._splitter.hand_over()
            self._started.set()
        return data[:header]

    # --- writing ---

    @property
    def congested(self) -> bool:
        """Whether so much waits to be written that no more Prepares should be added."""
        return self._queued - self.written > WRITE_SOFT_MAX_BYTES

    def write(self, payloads: list[bytes]) -> int:
        """Queue binary frames; they leave with the next write. Never waits.

        They have left once `written` has reached the number returned (never, if
        the stream is broken, or the library has sent a close frame). When the
        peer does not read and the bound is passed, the stream breaks: the
        reader sees its end.
        """
        if self._said_goodbye:
            return _NEVER
        if self._is_client:
            masks = os.urandom(4 * len(payloads))
            frames = [binary_frame(payload, masks[4 * i : 4 * i + 4]) for i, payload in enumerate(payloads)]
        else:
            frames = [binary_frame(payload) for payload in payloads]
        self._queue(b"".join(frames))
        return _NEVER if self._broken else self._queued

    def _queue(self, data: bytes) -> None:
        if self._broken:
            return
        if self._queued - self.written + len(data) > WRITE_HARD_MAX_BYTES:
            self._break("the peer does not read what is sent to it")
            return
        self._chunks.append(data)
        self._queued += len(data)
        self._work.set()

    def _break(self, reason: str = "") -> None:
        self._broken = True
        self.break_reason = self.break_reason or reason
        self._chunks.clear()
        self._work.set()
        self._flushed.set()
        self._started.set()
        self.ended.set()

    async def run_writer(self) -> None:
        """Write what is queued, joined into one piece at a time, until the stream breaks."""
        while True:
            await self._work.wait()
            if self._broken:
                return
            self._work = trio.Event()
            data = b"".join(self._chunks)
            self._chunks.clear()
            try:
                await self._transport.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._break()
                return
            was_congested = self.congested
            self.written += len(data)
            self._flushed.set()
            self._flushed = trio.Event()
            if was_congested and not self.congested:
                self._on_drained()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Write for the WebSocket library (handshake, pong, close), through the one writer.

        Returns when the octets are with the transport. Cancelling it leaves
        them queued whole. Raises trio.BrokenResourceError.
        """
        self._queue(bytes(data))
        self._said_goodbye = self._said_goodbye or bytes(data[:1]) == _CLOSE
        position = self._queued
        while self.written < position and not self._broken:
            await self._flushed.wait()
        await trio.lowlevel.checkpoint()
        if self._broken:
            raise trio.BrokenResourceError("the connection is gone")

    async def wait_send_all_might_not_block(self) -> None:
        """Part of trio's interface; the queue takes data at once."""
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Close the transport; what is queued and not written is lost."""
        self._break()
        await self._transport.aclose()
