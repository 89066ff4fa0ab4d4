"""Forwarding: what becomes of each ILP packet (RFC 27, RFC 34).

The forwarder owns the in-flight tables, the expiry clock, the routing table
and the book, and decides; it neither waits nor writes. A shell hands it what
came in, in batches, and takes from it what is to go out (`take`).

Invariants:
- Every Prepare is answered exactly once, at the latest at its outgoing expiry.
- Limits are checked before a Prepare leaves; once a valid Fulfill came in time
  it is relayed, whatever else is wrong.
- A Fulfill counts only if it hashes to the condition and came before the
  outgoing expiry; else the hop that sent it is owed nothing.
- `len(sent)` over all hops never exceeds `limits.IN_FLIGHT_MAX`.
"""

from collections import Counter
from hashlib import sha256

import msgspec

from connector.core.admission import Admission, Refusal
from connector.core.book import Book, Reservation
from connector.core.entries import Side
from connector.core.expiry import ExpiryClock
from connector.core.hop import Hop, InFlight, Relation
from connector.core.instant import Instant
from connector.core.policy import Policy
from connector.core.rates import Rates
from connector.core.routing import RoutingTable
from connector.errors import RemoteProtocolError
from connector.ids import packet_id
from connector.limits import EXPIRED_REMEMBERED_MAX, U32_MAX
from connector.protocol import ildcp, ilp
from connector.protocol.btp import MESSAGE, RESPONSE


class Notice(msgspec.Struct, frozen=True):
    """Something a person may want to hear of. `amount` is in `hop`'s asset."""

    kind: str
    hop: str
    packet_id: str
    amount: int
    reason: str


class Forwarder:
    """The packet core of one node."""

    def __init__(self, address: str, rates: Rates, policy: Policy, book: Book) -> None:
        self.address = address
        self.book = book
        self.policy = policy
        self.admission = Admission(address, rates, policy, book)
        self.clock: ExpiryClock[InFlight] = ExpiryClock()
        self.hops: dict[str, Hop] = {}
        self.in_flight = 0
        #: Why no new Prepares are taken, by who decided so; what is in flight still resolves.
        self.closed_by: dict[str, Refusal] = {}
        #: Prepares, Fulfills and Rejects so far, by what became of them.
        self.counters: Counter[str] = Counter()
        #: What to tell people, since the last `take`.
        self.notices: list[Notice] = []
        self._active: list[Hop] = []
        #: Condition and outgoing amount of what expired lately, by hop, session and our request id.
        self._expired: dict[tuple[str, int, int], tuple[bytes, int]] = {}

    @property
    def routes(self) -> RoutingTable[Hop]:
        """Which hop serves which addresses."""
        return self.admission.routes

    # --- hops ---

    def add(self, hop: Hop) -> None:
        """Take `hop` in, with the route to its own address."""
        assert hop.name not in self.hops
        self.hops[hop.name] = hop
        self.routes.add(hop.address, hop)

    def connected(self, hop: Hop, now: Instant) -> int:
        """`hop` has a new connection; its number."""
        self.disconnected(hop, now)
        hop.sessions += 1
        hop.session = hop.sessions
        return hop.session

    def disconnected(self, hop: Hop, now: Instant) -> None:
        """`hop`'s connection is gone. What is in flight to it resolves by expiry."""
        hop.session = 0
        hop.congested = False
        hop.received.clear()
        outbox, hop.outbox = hop.outbox, []
        for kind, request_id, _ in outbox:
            if kind == MESSAGE:
                self.withdraw(hop, request_id, "T01", f"the link to {hop.name} was lost", now)
        for reservation in hop.relayed:
            self.book.unrelayed(reservation, now.wall_ms)
        hop.relayed.clear()

    # --- what goes out ---

    def take(self) -> list[tuple[Hop, list[tuple[int, int, bytes]]]]:
        """Everything to send since the last call, by hop: (BTP type, request id, packet)."""
        out = []
        for hop in self._active:
            if hop.outbox:
                out.append((hop, hop.outbox))
                hop.outbox = []
        self._active.clear()
        return out

    def _put(self, hop: Hop, kind: int, request_id: int, packet: bytes) -> None:
        if not hop.outbox:
            self._active.append(hop)
        hop.outbox.append((kind, request_id, packet))

    def _answer(self, entry: InFlight, packet: bytes) -> bool:
        """Send the one reply to `entry`'s Prepare; False when its connection is gone."""
        source = entry.source
        if entry.source_session != source.session:
            return False
        del source.received[entry.source_request_id]
        self._put(source, RESPONSE, entry.source_request_id, packet)
        return True

    def _refuse(self, source: Hop, request_id: int, refusal: Refusal) -> None:
        """Reject a Prepare that was not forwarded."""
        code, reason = refusal.code, refusal.reason
        self.counters[f"rejected {code}"] += 1
        self.notices.append(Notice("refused", source.name, "", 0, f"{code} {reason}"))
        packet = ilp.encode_reject(ilp.Reject(code, self.address, reason, refusal.data))
        self._put(source, RESPONSE, request_id, packet)

    # --- Prepare ---

    def prepare(self, source: Hop, request_id: int, packet: bytes, now: Instant) -> None:
        """A Prepare came from `source`.

        Raises RemoteProtocolError when `request_id` is in flight already: the
        link cannot be trusted to tell replies apart and is to be closed.
        """
        if request_id in source.received:
            raise RemoteProtocolError(f"request id {request_id} is in flight already")
        self.counters["prepares"] += 1
        if self.closed_by:
            self._refuse(source, request_id, next(iter(self.closed_by.values())))
            return
        if not source.limiter.take(now.mono_ms):
            self._refuse(
                source, request_id, Refusal("T05", f"rate limit of {source.name} exceeded, slow down")
            )
            return
        try:
            prepare = ilp.decode_prepare(packet)
        except RemoteProtocolError as error:
            self._refuse(source, request_id, Refusal("F01", f"unreadable packet: {error}"))
            return
        if prepare.destination == ildcp.DESTINATION:
            self._configure_child(source, request_id, prepare)
            return
        refusal = self._forward(source, request_id, packet, prepare, now)
        if refusal is not None:
            self._refuse(source, request_id, refusal)

    def _configure_child(self, source: Hop, request_id: int, prepare: ilp.Prepare) -> None:
        """Answer ILDCP (RFC 31); it has no value and enters no balance."""
        if source.relation is not Relation.CHILD:
            reason = "only a child is given its address here"
            self._refuse(source, request_id, Refusal("F00", reason))
            return
        if prepare.amount or prepare.condition != ildcp.CONDITION:
            reason = "an ILDCP request has amount 0 and its own condition"
            self._refuse(source, request_id, Refusal("F00", reason))
            return
        asset = source.account.asset
        reply = ildcp.reply(ildcp.ChildConfig(source.address, asset.scale, asset.code))
        self.counters["ildcp"] += 1
        self._put(source, RESPONSE, request_id, ilp.encode_fulfill(reply))

    def _forward(
        self, source: Hop, request_id: int, packet: bytes, prepare: ilp.Prepare, now: Instant
    ) -> Refusal | None:
        """Keep the packet and send it on; or say why not."""
        admission = self.admission
        target = admission.next_hop(source, prepare.destination)
        if isinstance(target, Refusal):
            return target
        expires_at_ms = admission.expiry(prepare.expires_at_ms, now.wall_ms)
        if isinstance(expires_at_ms, Refusal):
            return expires_at_ms
        amount_in = amount_out = prepare.amount
        refusal = admission.room(source, amount_in, target, self.in_flight)
        if refusal is not None:
            return refusal
        reservation = None
        if amount_in:
            valued = admission.value(source, prepare, target, now.wall_ms)
            if isinstance(valued, Refusal):
                return valued
            amount_out, reservation = valued
        deadline_ms = now.mono_ms + expires_at_ms - now.wall_ms
        own_id = self._keep(
            source, request_id, target, prepare.condition, deadline_ms, amount_in, amount_out, reservation
        )
        self._put(target, MESSAGE, own_id, ilp.rewrite_prepare(packet, prepare, amount_out, expires_at_ms))
        return None

    def _keep(
        self,
        source: Hop,
        request_id: int,
        target: Hop,
        condition: bytes,
        deadline_ms: int,
        amount_in: int,
        amount_out: int,
        reservation: Reservation | None,
    ) -> int:
        """Enter a packet into every table; the request id that it leaves with."""
        own_id = target.next_request_id
        while own_id in target.sent:
            own_id = own_id % U32_MAX + 1
        target.next_request_id = own_id % U32_MAX + 1
        entry = InFlight(
            source,
            source.session,
            request_id,
            target,
            target.session,
            own_id,
            condition,
            deadline_ms,
            amount_in,
            amount_out,
            reservation,
        )
        source.received[request_id] = target.sent[own_id] = entry
        source.held += 1
        self.in_flight += 1
        self.clock.add(entry, deadline_ms)
        return own_id

    # --- Fulfill and Reject ---

    def reply(self, target: Hop, request_id: int, packet: bytes, now: Instant) -> None:
        """A Fulfill or Reject came from `target`; one that matches nothing is ignored."""
        entry = self._awaited(target, request_id, now)
        if entry is None:
            self._unmatched(target, request_id, packet)
            return
        kind = packet[0] if packet else 0
        try:
            if kind == ilp.FULFILL:
                self._fulfill(entry, packet, ilp.decode_fulfill(packet), now)
            else:
                reject = ilp.decode_reject(packet)
                self._resolve(entry)
                if entry.reservation is not None:
                    self.book.void(entry.reservation, now.wall_ms)
                self.counters[f"relayed {reject.code}"] += 1
                self._answer(entry, ilp.encode_reject(reject))
        except RemoteProtocolError as error:
            self._fail(entry, "T00", f"{target.name} sent an unreadable reply: {error}", now)

    def failure(self, target: Hop, request_id: int, reason: str, now: Instant) -> None:
        """`target` answered a Prepare with something that is no ILP packet."""
        entry = self._awaited(target, request_id, now)
        if entry is not None:
            self._fail(entry, "T00", f"{target.name} {reason}", now)

    def withdraw(self, target: Hop, request_id: int, code: str, reason: str, now: Instant) -> None:
        """A Prepare that `take` gave out did not leave: reject it, if it is still in flight."""
        entry = target.sent.get(request_id)
        if entry is not None:
            self._fail(entry, code, reason, now)

    def _awaited(self, target: Hop, request_id: int, now: Instant) -> InFlight | None:
        """What a reply on `target`'s present connection answers, if it comes in time.

        What is due and not yet answered is the expiry clock's, within milliseconds.
        """
        entry = target.sent.get(request_id)
        if entry is None or entry.target_session != target.session or now.mono_ms >= entry.deadline_ms:
            return None
        return entry

    def _unmatched(self, target: Hop, request_id: int, packet: bytes) -> None:
        """A reply that came late, twice, or to nothing: ignored and never booked.

        A Fulfill of a packet that has expired is worth telling: its sender holds
        the packet for paid, and we do not.
        """
        if packet[:1] != b"\x0d":
            self.counters["ignored reject"] += 1
            return
        self.counters["ignored fulfill"] += 1
        condition, amount = self._expired.pop((target.name, target.session, request_id), (b"", 0))
        reason = "it came too late" if condition else "it answers nothing, or again"
        self.notices.append(Notice("ignored fulfill", target.name, packet_id(condition), amount, reason))

    def _remember_expired(self, entry: InFlight) -> None:
        if len(self._expired) >= EXPIRED_REMEMBERED_MAX:
            del self._expired[next(iter(self._expired))]
        key = (entry.target.name, entry.target_session, entry.request_id)
        self._expired[key] = (entry.condition, entry.amount_out)

    def _fulfill(self, entry: InFlight, packet: bytes, fulfill: ilp.Fulfill, now: Instant) -> None:
        target, source, reservation = entry.target, entry.source, entry.reservation
        if sha256(fulfill.fulfillment).digest() != entry.condition:
            self._notice("wrong fulfillment", entry, target, entry.amount_out, "does not match the condition")
            reason = f"{target.name} sent a fulfillment that does not match the condition"
            self._fail(entry, "F05", reason, now)
            return
        self._resolve(entry)
        self.counters["fulfilled"] += 1
        if self._answer(entry, ilp.shortest_fulfill(packet, fulfill)):
            if reservation is not None:
                self.book.commit(reservation, now.wall_ms)
                source.relayed.append(reservation)
            return
        # We owe downstream, and cannot count on upstream: it never had the Fulfill.
        if reservation is not None:
            self.book.doubt(reservation, Side.OPEN, Side.OWED, now.wall_ms)
        reason = "its link was lost before the fulfill could be relayed"
        self._notice("fulfill lost", entry, source, entry.amount_in, reason)

    def expire(self, now: Instant) -> None:
        """Answer, with R00, every Prepare whose outgoing expiry has come."""
        for entry in self.clock.due(now.mono_ms):
            self._resolve(entry, due=True)
            self._remember_expired(entry)
            reason = f"{entry.target.name} did not answer in time"
            if entry.target_session != entry.target.session:
                reason = f"the link to {entry.target.name} was lost, and with it any answer"
            if entry.reservation is not None:
                self._void_expired(entry, entry.reservation, now)
            self._reject(entry, "R00", reason)

    def _void_expired(self, entry: InFlight, reservation: Reservation, now: Instant) -> None:
        """Upstream owes nothing; downstream may hold it for paid if its answer was lost with the link."""
        if entry.target_session == entry.target.session:
            self.book.void(reservation, now.wall_ms)
            return
        self.book.doubt(reservation, Side.CLEAR, Side.OPEN, now.wall_ms)
        reason = "its link was lost before an answer came"
        self._notice("in doubt", entry, entry.target, entry.amount_out, reason)

    def _fail(self, entry: InFlight, code: str, reason: str, now: Instant) -> None:
        self._resolve(entry)
        if entry.reservation is not None:
            self.book.void(entry.reservation, now.wall_ms)
        self._reject(entry, code, reason)

    def _reject(self, entry: InFlight, code: str, reason: str) -> None:
        self.counters[f"rejected {code}"] += 1
        self._notice("rejected", entry, entry.target, entry.amount_out, f"{code} {reason}")
        self._answer(entry, ilp.encode_reject(ilp.Reject(code, self.address, reason, b"")))

    def _resolve(self, entry: InFlight, *, due: bool = False) -> None:
        """Take `entry` out of every table; what becomes of its entries in the book is the caller's."""
        del entry.target.sent[entry.request_id]
        entry.source.held -= 1
        self.in_flight -= 1
        if not due:
            self.clock.remove(entry, entry.deadline_ms)

    def _notice(self, kind: str, entry: InFlight, hop: Hop, amount: int, reason: str) -> None:
        self.notices.append(Notice(kind, hop.name, packet_id(entry.condition), amount, reason))
