"""The packet path: batches from links through the forwarder, and out again.

One plain function call handles all that a read brought: decode, decide, book,
deliver to local accounts, and hand frames and journal entries to the gate, from
which they leave, one write per link. Nothing awaits.
"""

import os
from collections.abc import Callable

import trio

from connector.core.accounts import Account, Doubt, Reservation
from connector.core.forwarding import Forwarder
from connector.core.hop import Hop
from connector.core.instant import Instant
from connector.errors import RemoteProtocolError
from connector.ledger.journal import Journal
from connector.links.link import Link
from connector.links.registry import Registry
from connector.links.session import Item
from connector.node import balance
from connector.node.gate import Gate, Parcel
from connector.node.notices import NoticeLog
from connector.protocol import ilp
from connector.protocol.btp import ERROR, MESSAGE, RESPONSE
from connector.receiver.stream_server import StreamServer


class Pipeline:
    """Joins links, forwarder and receivers. It is the links' handler."""

    def __init__(
        self,
        forwarder: Forwarder,
        registry: Registry,
        now: Callable[[], Instant],
        on_link: Callable[[Link, str | None], None],
        journal: Journal | None = None,
    ) -> None:
        """`on_link(link, None)` hears of each link that opens, `on_link(link, reason)` that is lost.

        Without a journal, balances end with the process.
        """
        self._forwarder = forwarder
        self._registry = registry
        self._now = now
        self._on_link = on_link
        self._receivers: dict[str, StreamServer] = {}
        self._sessions: dict[Link, int] = {}
        self.gate = Gate(forwarder, registry, journal, now, self.release)
        self._notices = NoticeLog()
        self._earlier = trio.Event()
        self._armed_ms: int | None = None
        #: Set when the node stops: no new links.
        self.is_draining = False
        #: Told of each account that reaches its settlement threshold, and of the packet that did it.
        self.on_reached: Callable[[Account, Reservation | None], None] = lambda account, packet: None
        #: Told of packets that came to be in doubt.
        self.on_doubted: Callable[[list[Doubt]], None] = lambda doubts: None
        #: Set whenever the last packet in flight is resolved.
        self._idle = trio.Event()

    def receive_at(self, hop: Hop, receiver: StreamServer) -> None:
        """Deliver what is forwarded to the local account `hop` to `receiver`."""
        self._forwarder.connected(hop, self._now())
        self._receivers[hop.name] = receiver

    # --- the links' handler ---

    def opened(self, link: Link) -> str | None:
        """See `links.link.Handler`."""
        if self.is_draining:
            return "shutting down"
        refusal = self._registry.admit(link)
        if refusal is None:
            self._sessions[link] = self._forwarder.connected(self._forwarder.hops[link.peer], self._now())
            self._on_link(link, None)
        return refusal

    def closed(self, link: Link) -> None:
        """See `links.link.Handler`."""
        self._sessions.pop(link, None)
        if self._registry.remove(link):
            self._forwarder.disconnected(self._forwarder.hops[link.peer], self._now())
            self._on_link(link, link.close_reason)
        self.gate.closed(link)
        self.release()

    def drained(self, link: Link) -> None:
        """See `links.link.Handler`."""
        hop = self._forwarder.hops[link.peer]
        if self._sessions.get(link) == hop.session:
            hop.congested = False

    def asked(self, link: Link, name: str, data: bytes) -> bytes | None:
        """See `links.link.Handler`."""
        if name == balance.NAME:
            return balance.answer(self._forwarder.hops[link.peer].account)
        return None

    def packets(self, link: Link, batch: list[Item]) -> None:
        """See `links.link.Handler`."""
        forwarder = self._forwarder
        hop = forwarder.hops[link.peer]
        if self._sessions.get(link) != hop.session:
            return  # A link that has been replaced and not yet heard of it.
        now = self._now()
        for kind, request_id, packet in batch:
            if kind == RESPONSE:
                forwarder.reply(hop, request_id, packet, now)
            elif kind == ERROR:
                forwarder.failure(hop, request_id, packet.decode("ascii", "replace"), now)
            else:
                try:
                    forwarder.prepare(hop, request_id, packet, now)
                except RemoteProtocolError as error:
                    link.session.fail(request_id, str(error), error)
                    break
        self.release()

    # --- the expiry clock ---

    async def run_expiry(self) -> None:
        """Reject what no one answered, at its expiry; never returns."""
        clock = self._forwarder.clock
        while True:
            due_ms = self._armed_ms = clock.next_due_ms()
            if due_ms is None:
                await self._earlier.wait()
                continue
            wait_ms = due_ms - self._now().mono_ms
            if wait_ms > 0:
                with trio.move_on_after(wait_ms / 1000):
                    await self._earlier.wait()
                continue
            await trio.lowlevel.checkpoint()
            now = self._now()
            self._forwarder.expire(now)
            self.release()

    async def wait_idle(self) -> None:
        """Wait until no packet is in flight."""
        while self._forwarder.in_flight:
            self._idle = trio.Event()
            await self._idle.wait()

    # --- the end of a batch ---

    def release(self) -> None:
        """Deliver to local accounts, then hand frames and entries to the gate, a parcel per hop."""
        forwarder = self._forwarder
        now = self._now()
        parcels: list[Parcel] = []
        while outgoing := forwarder.take():
            for hop, items in outgoing:
                receiver = self._receivers.get(hop.name)
                if receiver is None:
                    parcels.append(Parcel(hop, hop.session, items, hop.relayed))
                    hop.relayed = []
                else:
                    self._deliver(hop, receiver, items, now)
        log = forwarder.book.take_log()
        if parcels or log:
            self.gate.pass_on(parcels, log, now)
        self._rearm()
        if forwarder.notices:
            self._notices.log(forwarder.notices, now)
            forwarder.notices.clear()
        if forwarder.book.reached:
            self._tell_reached()
        if forwarder.book.doubted:
            doubted, forwarder.book.doubted = forwarder.book.doubted, []
            self.on_doubted(doubted)
        if not forwarder.in_flight:
            self._idle.set()

    def _tell_reached(self) -> None:
        reached, self._forwarder.book.reached = self._forwarder.book.reached, []
        for account, reservation in reached:
            self.on_reached(account, reservation)

    def _deliver(self, hop: Hop, receiver: StreamServer, items: list[Item], now: Instant) -> None:
        """Give Prepares to the receiver of a local account, and its replies to the forwarder."""
        for kind, request_id, packet in items:
            assert kind == MESSAGE, "a local account sends no Prepares"
            reply = receiver.handle(ilp.decode_prepare(packet), os.urandom(12))
            if isinstance(reply, ilp.Fulfill):
                self._forwarder.reply(hop, request_id, ilp.encode_fulfill(reply), now)
            else:
                self._forwarder.reply(hop, request_id, ilp.encode_reject(reply), now)

    def _rearm(self) -> None:
        """Wake the expiry clock if something falls due before what it waits for."""
        due_ms = self._forwarder.clock.next_due_ms()
        if due_ms is not None and (self._armed_ms is None or due_ms < self._armed_ms):
            self._armed_ms = due_ms
            self._earlier.set()
            self._earlier = trio.Event()
