"""One session with a TigerBeetle cluster: the C library, for trio.

The library has a thread of its own, knows no cancellation, and keeps what it
was given until it calls back. Hence:

- Packets and the octets they point to are held in `_in_flight` until the
  callback for them came, whatever became of those who asked.
- One request is with the library at a time; others wait their turn, in order.
- A request without an answer in LEDGER_REQUEST_TIMEOUT_S ends the session: what
  it asked may still be done, and nothing may overtake it but by the same ids.
- The callback runs on the library's thread. It copies the result, whose memory
  is the library's, and hands over by `run_sync_soon`.
- Opening and closing a session block, so they run in threads, each session's
  with a limiter of its own: none waits for another's, and trio's stays free.
"""

import atexit
import ctypes
import itertools
from importlib import metadata
from typing import Any, Final

import trio
from tigerbeetle import bindings
from tigerbeetle.lib import c_uint128

from connector.errors import Unavailable
from connector.ledger import tb_log
from connector.ledger.api import TooMuchData
from connector.limits import LEDGER_CLOSE_TIMEOUT_S, LEDGER_REQUEST_TIMEOUT_S

VERSION: Final = metadata.version("tigerbeetle")

_STATUS = bindings.PacketStatus

#: Why a session is over, and what to do.
_ENDED: Final = {
    _STATUS.CLIENT_EVICTED: (
        "the cluster ended this session, for it takes 64 clients and this one was idle for longest: "
        "open a new one, and stop clients that are not needed"
    ),
    _STATUS.CLIENT_RELEASE_TOO_LOW: (
        f"its servers no longer speak with clients of version {VERSION}: update the connector"
    ),
    _STATUS.CLIENT_RELEASE_TOO_HIGH: (
        f"its servers are older than this client, version {VERSION}: update all of them to {VERSION} or newer"
    ),
    _STATUS.CLIENT_SHUTDOWN: "the session was closed; what was asked may still be done",
}

_INIT_FAILED: Final = {
    bindings.InitStatus.UNEXPECTED: "unexpected error of the operating system",
    bindings.InitStatus.OUT_OF_MEMORY: "out of memory",
    bindings.InitStatus.SYSTEM_RESOURCES: "too many open files or threads, or io_uring is not allowed here",
    bindings.InitStatus.NETWORK_SUBSYSTEM: "the network cannot be used",
}


class _Request:
    """What the library reads, and what it answered: `status` is None until then."""

    __slots__ = ("done", "events", "packet", "result", "status", "token")

    def __init__(self, operation: bindings.Operation, events: bytes, key: int) -> None:
        self.events = events
        self.packet = bindings.CPacket(
            user_data=key,
            data=ctypes.cast(ctypes.c_char_p(events), ctypes.c_void_p),
            data_size=len(events),
            operation=operation,
        )
        self.token = trio.lowlevel.current_trio_token()
        self.done = trio.Event()
        self.status: int | None = None
        self.result = b""


_keys = itertools.count(1)
_in_flight: dict[int, _Request] = {}
#: The library writes to them until they are closed. One that ended by itself stays: 32 octets.
_handles: dict[int, bindings.CClient] = {}


@bindings.OnCompletion  # type: ignore[untyped-decorator]  # ctypes has no types
def _completed(_context: int | None, packet: Any, _timestamp: int, result: int | None, size: int) -> None:
    request = _in_flight.pop(packet.contents.user_data)
    if result and size:
        request.result = ctypes.string_at(result, size)
    request.status = packet.contents.status
    try:
        request.token.run_sync_soon(request.done.set)
    except trio.RunFinishedError:
        pass  # nobody waits any more


class Client:
    """A session with the cluster; use `open_client`. Texts of errors begin with `name`."""

    def __init__(self, handle: bindings.CClient, key: int, name: str) -> None:
        self._handle = handle
        self._key = key
        self._name = name
        self._turn = trio.Lock()
        self._current: _Request | None = None
        self._ended: str | None = None
        self._closing = trio.CapacityLimiter(1)

    async def request(self, operation: bindings.Operation, events: bytes) -> bytes:
        """The octets of the answer. Raises Unavailable; TooMuchData if nothing was asked for that reason.

        Whoever asks may be cancelled: the request goes on, and the next one waits for it.
        """
        async with self._turn:
            request = None
            with trio.move_on_after(LEDGER_REQUEST_TIMEOUT_S):
                await self._previous()
                request = self._submit(operation, events)
                await request.done.wait()
            if request is None or request.status is None:
                await self._abandon()
            assert request is not None
            return self._answer(request)

    async def aclose(self) -> None:
        """End the session; a request under way ends in Unavailable. Blocks nothing, takes up to 0.4 s."""
        if self._ended is None:
            self._ended = _ENDED[_STATUS.CLIENT_SHUTDOWN]
        with trio.move_on_after(LEDGER_CLOSE_TIMEOUT_S, shield=True):
            await trio.to_thread.run_sync(self._close, abandon_on_cancel=True, limiter=self._closing)

    async def _previous(self) -> None:
        if self._current is not None and self._current.status is None:
            await self._current.done.wait()

    def _submit(self, operation: bindings.Operation, events: bytes) -> _Request:
        if self._ended is not None:
            raise Unavailable(f"{self._name}: {self._ended}")
        key = next(_keys)
        request = _in_flight[key] = self._current = _Request(operation, events, key)
        status = bindings.tb_client_submit(ctypes.byref(self._handle), ctypes.byref(request.packet))
        if status != bindings.ClientStatus.OK:
            # The library ends a session by itself only when it was evicted, while nothing was asked.
            del _in_flight[key]
            self._current = None
            self._ended = _ENDED[_STATUS.CLIENT_EVICTED]
            raise Unavailable(f"{self._name}: {self._ended}")
        return request

    async def _abandon(self) -> None:
        self._ended = f"no answer in {LEDGER_REQUEST_TIMEOUT_S:g} s; what was asked may still be done"
        await self.aclose()
        raise Unavailable(f"{self._name}: {self._ended}")

    def _answer(self, request: _Request) -> bytes:
        assert request.status is not None
        status = _STATUS(request.status)
        if status == _STATUS.OK:
            return request.result
        if status == _STATUS.TOO_MUCH_DATA:
            raise TooMuchData(f"{self._name}: its servers take fewer events a request than were sent")
        reason = _ENDED.get(status)
        assert reason is not None, f"TigerBeetle's client refused a request: {status.name}"
        self._ended = self._ended or reason
        raise Unavailable(f"{self._name}: {reason}")

    def _close(self) -> None:
        """Blocks until the library's thread has ended, and so has called back for all it was given."""
        if bindings.tb_client_deinit(ctypes.byref(self._handle)) == bindings.ClientStatus.OK:
            del _handles[self._key]


async def open_client(cluster_id: int, addresses: str, name: str) -> Client:
    """A new session with the cluster whose replicas are at `addresses`; nothing was exchanged yet.

    Raises Unavailable when the operating system refuses what the library needs.
    """
    tb_log.to_loguru()
    handle = bindings.CClient()
    key = next(_keys)

    def init() -> bindings.InitStatus:
        cluster = c_uint128.from_param(cluster_id)
        encoded = addresses.encode("ascii")
        status: bindings.InitStatus = bindings.tb_client_init(
            ctypes.byref(handle),
            ctypes.cast(ctypes.byref(cluster), ctypes.POINTER(ctypes.c_uint8 * 16)),
            encoded,
            len(encoded),
            key,
            _completed,
        )
        return status

    status = await trio.to_thread.run_sync(init, limiter=trio.CapacityLimiter(1))
    if status != bindings.InitStatus.SUCCESS:
        reason = _INIT_FAILED.get(status)
        assert reason is not None, f"TigerBeetle's client refused {addresses!r}: {status.name}"
        raise Unavailable(f"{name}: {reason}")
    _handles[key] = handle
    return Client(handle, key, name)


@atexit.register
def _close_all() -> None:
    """No thread of the library may call back into an interpreter that is gone."""
    for handle in _handles.values():
        bindings.tb_client_deinit(ctypes.byref(handle))
