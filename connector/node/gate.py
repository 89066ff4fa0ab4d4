"""The gate: frames wait here until the entries that allow them are committed.

A batch without entries leaves at once. A valid Fulfill waits for its commit at
most FULFILL_HOLD_MAX_MS, and half of the expiry margin: then it leaves, and its
entry is still to be committed. While the journal fails, no Prepare leaves and
every reply does. While it is slow, so that what waits is old or much, no new
Prepares are taken.

`departed` is the number of the entry up to which all frames are with the
operating system, but for those of links whose peer has not read for a while:
`stuck` has them, so that one peer does not hold up what is known of the others.
What has not left when its link is lost is known to the
books: a Prepare is withdrawn, a Fulfill is in doubt.
"""

from collections import deque
from collections.abc import Callable

import msgspec
import trio
from loguru import logger

from connector.core.accounts import Reservation
from connector.core.admission import Refusal
from connector.core.forwarding import Forwarder
from connector.core.hop import Hop
from connector.core.instant import Instant
from connector.ledger.journal import Journal
from connector.limits import FULFILL_HOLD_MAX_MS, GATE_MAX_BYTES, GATE_STALL_MS, STUCK_AFTER_MS
from connector.links.link import Link
from connector.links.registry import Registry
from connector.links.session import Item
from connector.protocol.btp import MESSAGE

#: What senders are told; the cause is for the operator.
_NO_BOOKS = "this connector cannot write its books now"
#: Who refuses new Prepares; see `Forwarder.closed_by`.
_FAILURE = "journal"
_STALL = "slow journal"


class Parcel(msgspec.Struct):
    """What one batch has for one hop: frames, and what the Fulfills among them are worth."""

    hop: Hop
    session: int
    items: list[Item]
    relayed: list[Reservation]


class _Held(msgspec.Struct, eq=False):
    """Parcels that wait for their entries, the first of which has the number `first`."""

    first: int
    since_ms: int
    parcels: list[Parcel]
    octets: int
    is_relieved: bool = False


class _Leaving(msgspec.Struct, frozen=True, gc=False):
    """Fulfills that were given to a link: they have left once it has written up to `position`."""

    position: int
    #: The first entry of their batch.
    first: int
    since_ms: int
    relayed: list[Reservation]


class Gate:
    """Between the forwarder and the links of one node."""

    def __init__(
        self,
        forwarder: Forwarder,
        registry: Registry,
        journal: Journal | None,
        now: Callable[[], Instant],
        release: Callable[[], None],
    ) -> None:
        """`release` has the forwarder's outcome of what could not leave taken and sent; see `Pipeline`."""
        self._forwarder = forwarder
        self._registry = registry
        self._journal = journal
        self._now = now
        self._release = release
        self._held: deque[_Held] = deque()
        #: Octets of packets that wait.
        self._octets = 0
        self._something_held = trio.Event()
        #: Per link, what was given to it and has perhaps not left.
        self._leaving: dict[Link, deque[_Leaving]] = {}
        #: The newest entry whose frames were given to the links, with all before it.
        self._released = 0
        if journal is not None:
            self._released = journal.appended
            journal.departed = self.departed
            journal.stuck = self.stuck
            journal.on_failure = self._on_failure
            journal.on_success = self._on_success

    def pass_on(self, parcels: list[Parcel], log: list[bytes], now: Instant) -> None:
        """Let `parcels` leave once `log` is committed."""
        journal = self._journal
        if journal is None or not log:
            for parcel in parcels:
                self._pass_at_once(parcel)
            return
        octets = sum([len(item[2]) for parcel in parcels for item in parcel.items])
        held = _Held(journal.appended + 1, now.mono_ms, parcels, octets)
        last = journal.append(log, lambda: self._on_commit(held, last))
        self._held.append(held)
        self._octets += octets
        if self._octets > GATE_MAX_BYTES:
            self._stall()
        if journal.failure:
            self._give_up(held)
        else:
            self._something_held.set()

    def _pass_at_once(self, parcel: Parcel) -> None:
        """Frames without entries: nothing of them is kept for a journal that fails."""
        if self._journal is not None and self._journal.failure:
            for kind, request_id, _ in parcel.items:
                if kind == MESSAGE:
                    self._forwarder.withdraw(parcel.hop, request_id, "T00", _NO_BOOKS, self._now())
            parcel.items = [item for item in parcel.items if item[0] != MESSAGE]
            self._release()
        if parcel.items:
            self._send(parcel, 0)

    def _on_commit(self, held: _Held, last: int) -> None:
        # The journal commits in order.
        assert self._held.popleft() is held
        self._octets -= held.octets
        if _STALL in self._forwarder.closed_by and not self._is_stalled():
            del self._forwarder.closed_by[_STALL]
            logger.info("new packets are taken again: the journal keeps up")
        for parcel in held.parcels:
            if held.is_relieved:
                # It took long: what was rejected meanwhile must not leave.
                sent = parcel.hop.sent
                parcel.items = [item for item in parcel.items if item[0] != MESSAGE or item[1] in sent]
            if parcel.items:
                self._send(parcel, held.first)
        # Not before: sending one parcel may append, and ask how far all has left.
        self._released = last

    def _send(self, parcel: Parcel, first: int) -> None:
        hop = parcel.hop
        link = self._registry.link(hop.name)
        if link is None or parcel.session != hop.session:
            self._return(parcel)
            return
        position = link.send(parcel.items)
        if first and parcel.relayed:
            leaving = _Leaving(position, first, self._now().mono_ms, parcel.relayed)
            self._leaving.setdefault(link, deque()).append(leaving)
        if link.congested:
            hop.congested = True

    def _return(self, parcel: Parcel) -> None:
        """The connection that these frames were for is gone."""
        now = self._now()
        for kind, request_id, _ in parcel.items:
            if kind == MESSAGE:
                reason = f"the link to {parcel.hop.name} was lost"
                self._forwarder.withdraw(parcel.hop, request_id, "T01", reason, now)
        for reservation in parcel.relayed:
            self._forwarder.book.unrelayed(reservation, now.wall_ms)
        self._release()

    # --- what has left ---

    def departed(self) -> int:
        """The entry up to which all frames have left, except for those of `stuck` accounts."""
        newest = self._released
        late_ms = self._now().mono_ms - STUCK_AFTER_MS
        for link, leaving in list(self._leaving.items()):
            while leaving and leaving[0].position <= link.written:
                leaving.popleft()
            if not leaving:
                del self._leaving[link]
            elif leaving[0].since_ms > late_ms:
                newest = min(newest, leaving[0].first - 1)
        return newest

    def stuck(self) -> dict[int, int]:
        """Accounts whose peer does not read, by number, and the first entry whose frame waits for it."""
        late_ms = self._now().mono_ms - STUCK_AFTER_MS
        return {
            leaving[0].relayed[0].incoming.number: leaving[0].first
            for leaving in self._leaving.values()
            if leaving and leaving[0].since_ms <= late_ms
        }

    def closed(self, link: Link) -> None:
        """`link` is gone: what had not left is in doubt."""
        now = self._now()
        for leaving in self._leaving.pop(link, ()):
            if leaving.position > link.written:
                for reservation in leaving.relayed:
                    self._forwarder.book.unrelayed(reservation, now.wall_ms)

    # --- a journal that is slow, or fails ---

    async def run(self) -> None:
        """Let replies go that have waited long enough; never returns."""
        margin_ms = self._forwarder.policy.expiry_margin_ms
        # Looked at this often, nothing waits for more than twice as long.
        interval_ms = min(FULFILL_HOLD_MAX_MS, margin_ms / 2) / 2
        while True:
            await self._something_held.wait()
            self._something_held = trio.Event()
            while self._held:
                await trio.sleep(interval_ms / 1000)
                if self._is_stalled():
                    self._stall()
                latest_ms = self._now().mono_ms - interval_ms
                # Letting go of one may hold another.
                for held in list(self._held):
                    if held.since_ms > latest_ms:
                        break
                    if not held.is_relieved:
                        self._relieve(held)

    def _is_stalled(self) -> bool:
        """Whether too much waits, or something has waited for too long."""
        if self._octets > GATE_MAX_BYTES // 2:
            return True
        return bool(self._held) and self._now().mono_ms - self._held[0].since_ms > GATE_STALL_MS

    def _stall(self) -> None:
        """Take no new Prepares until the journal has caught up."""
        if _STALL not in self._forwarder.closed_by:
            self._forwarder.closed_by[_STALL] = Refusal("T00", _NO_BOOKS)
            logger.warning(
                "new packets are refused: {} octets of packets wait for the journal, the oldest for {} ms",
                self._octets,
                self._now().mono_ms - self._held[0].since_ms,
            )

    def _relieve(self, held: _Held) -> None:
        """Let the replies among `held` leave; its Prepares stay."""
        held.is_relieved = True
        stay = []
        for parcel in held.parcels:
            replies = [item for item in parcel.items if item[0] != MESSAGE]
            if not replies:
                stay.append(parcel)
                continue
            self._send(Parcel(parcel.hop, parcel.session, replies, parcel.relayed), held.first)
            parcel.items = [item for item in parcel.items if item[0] == MESSAGE]
            parcel.relayed = []
            if parcel.items:
                stay.append(parcel)
        held.parcels = stay

    def _give_up(self, held: _Held) -> None:
        """Let the replies leave, and reject the Prepares."""
        if not held.is_relieved:
            self._relieve(held)
        parcels, held.parcels = held.parcels, []
        now = self._now()
        for parcel in parcels:
            for _, request_id, _ in parcel.items:
                self._forwarder.withdraw(parcel.hop, request_id, "T00", _NO_BOOKS, now)
        if parcels:
            self._release()

    def _on_failure(self) -> None:
        self._forwarder.closed_by[_FAILURE] = Refusal("T00", _NO_BOOKS)
        for held in list(self._held):
            self._give_up(held)

    def _on_success(self) -> None:
        self._forwarder.closed_by.pop(_FAILURE, None)
