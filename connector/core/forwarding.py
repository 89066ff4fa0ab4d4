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

from connector.core.book import Book, Reservation
from connector.core.expiry import ExpiryClock
from connector.core.hop import Hop, InFlight, Relation
from connector.core.instant import Instant
from connector.core.policy import Policy
from connector.core.rates import Rates, fee
from connector.core.routing import RoutingTable, why_not_carried
from connector.errors import RemoteProtocolError
from connector.ids import packet_id
from connector.limits import (
    EXPIRED_REMEMBERED_MAX,
    ROUTE_CACHE_MAX,
    U32_MAX,
    U64_MAX,
)
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
        self.routes: RoutingTable[Hop] = RoutingTable()
        self.clock: ExpiryClock[InFlight] = ExpiryClock()
        self.hops: dict[str, Hop] = {}
        self.in_flight = 0
        #: Set when the node stops: no new Prepares, what is in flight still resolves.
        self.draining = False
        #: Prepares, Fulfills and Rejects so far, by what became of them.
        self.counters: Counter[str] = Counter()
        #: What to tell people, since the last `take`.
        self.notices: list[Notice] = []
        self._rates = rates
        self._active: list[Hop] = []
        #: Condition and outgoing amount of what expired lately, by hop, session and our request id.
        self._expired: dict[tuple[str, int, int], tuple[bytes, int]] = {}
        #: The next hop of destinations seen lately, while the routes stay as they are.
        self._next_hops: dict[str, Hop] = {}
        self._next_hops_version = 0

    # --- hops ---

    def add(self, hop: Hop) -> None:
        """Take `hop` in, with the route to its own address."""
        assert hop.name not in self.hops
        self.hops[hop.name] = hop
        self.routes.add(hop.address, hop)

    def connected(self, hop: Hop) -> int:
        """`hop` has a new connection; its number."""
        self.disconnected(hop)
        hop.sessions += 1
        hop.session = hop.sessions
        return hop.session

    def disconnected(self, hop: Hop) -> None:
        """`hop`'s connection is gone. What is in flight to it resolves by expiry."""
        hop.session = 0
        hop.congested = False
        hop.received.clear()
        hop.outbox.clear()

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

    def _refuse(self, source: Hop, request_id: int, code: str, reason: str, data: bytes = b"") -> None:
        """Reject a Prepare that was not forwarded."""
        self.counters[f"rejected {code}"] += 1
        self.notices.append(Notice("refused", source.name, "", 0, f"{code} {reason}"))
        packet = ilp.encode_reject(ilp.Reject(code, self.address, reason, data))
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
        if self.draining:
            self._refuse(source, request_id, "T03", "this connector is shutting down")
            return
        if not source.limiter.take(now.mono_ms):
            self._refuse(source, request_id, "T05", f"rate limit of {source.name} exceeded, slow down")
            return
        try:
            prepare = ilp.decode_prepare(packet)
        except RemoteProtocolError as error:
            self._refuse(source, request_id, "F01", f"unreadable packet: {error}")
            return
        if prepare.destination == ildcp.DESTINATION:
            self._configure_child(source, request_id, prepare)
            return
        target = self._next_hop(source, request_id, prepare.destination)
        if target is None:
            return
        policy = self.policy
        expires_at_ms = now.wall_ms + policy.hold_max_ms
        if prepare.expires_at_ms - policy.expiry_margin_ms < expires_at_ms:
            expires_at_ms = prepare.expires_at_ms - policy.expiry_margin_ms
        if expires_at_ms <= now.wall_ms:
            self._refuse_late(source, request_id, prepare, now)
            return
        self._forward(source, request_id, packet, prepare, target, expires_at_ms, now)

    def _configure_child(self, source: Hop, request_id: int, prepare: ilp.Prepare) -> None:
        """Answer ILDCP (RFC 31); it has no value and enters no balance."""
        if source.relation is not Relation.CHILD:
            self._refuse(source, request_id, "F00", "only a child is given its address here")
            return
        if prepare.amount or prepare.condition != ildcp.CONDITION:
            self._refuse(source, request_id, "F00", "an ILDCP request has amount 0 and its own condition")
            return
        asset = source.account.asset
        reply = ildcp.reply(ildcp.ChildConfig(source.address, asset.scale, asset.code))
        self.counters["ildcp"] += 1
        self._put(source, RESPONSE, request_id, ilp.encode_fulfill(reply))

    def _next_hop(self, source: Hop, request_id: int, destination: str) -> Hop | None:
        """The hop that is to have the packet, or None after refusing it."""
        if self._next_hops_version != self.routes.version or len(self._next_hops) >= ROUTE_CACHE_MAX:
            self._next_hops.clear()
            self._next_hops_version = self.routes.version
        target = self._next_hops.get(destination)
        if target is None:
            target = self.routes.lookup(destination)
            end = target.address if target is not None else ""
            reason = why_not_carried(self.address, destination, end)
            if target is None or reason is not None:
                self._refuse(source, request_id, "F02", reason or "no route to the destination")
                return None
            self._next_hops[destination] = target
        if target is source and source.relation is not Relation.CHILD:
            self._refuse(source, request_id, "F02", f"the route leads back to {source.name}")
            return None
        return target

    def _refuse_late(self, source: Hop, request_id: int, prepare: ilp.Prepare, now: Instant) -> None:
        left_ms = prepare.expires_at_ms - now.wall_ms
        if left_ms <= 0:
            self._refuse(source, request_id, "R00", f"expired {-left_ms} ms before it came")
            return
        margin_ms = self.policy.expiry_margin_ms
        self._refuse(source, request_id, "R02", f"{left_ms} ms left, this hop needs more than {margin_ms}")

    def _room(self, source: Hop, request_id: int, prepare: ilp.Prepare, target: Hop) -> bool:
        """Whether packet and tables leave room for it; refuses it otherwise."""
        policy = self.policy
        if prepare.amount > source.max_packet_amount:
            self._refuse_too_large(source, request_id, prepare.amount, source.max_packet_amount)
        elif not target.session:
            self._refuse(source, request_id, "T01", f"no connection to {target.name} now")
        elif target.congested or len(target.sent) >= policy.in_flight_per_link_max:
            self._refuse(source, request_id, "T02", f"{target.name} is overloaded")
        elif source.held >= policy.in_flight_per_link_max:
            self._refuse(source, request_id, "T02", f"{source.name} has too many packets in flight")
        elif self.in_flight >= policy.in_flight_max:
            self._refuse(source, request_id, "T02", "this connector has too many packets in flight")
        else:
            return True
        return False

    def _refuse_too_large(self, source: Hop, request_id: int, amount: int, maximum: int) -> None:
        data = amount.to_bytes(8, "big") + maximum.to_bytes(8, "big")
        self._refuse(source, request_id, "F08", f"amount {amount}, at most {maximum}", data)

    def _forward(
        self,
        source: Hop,
        request_id: int,
        packet: bytes,
        prepare: ilp.Prepare,
        target: Hop,
        expires_at_ms: int,
        now: Instant,
    ) -> None:
        if not self._room(source, request_id, prepare, target):
            return
        amount_in = amount_out = prepare.amount
        reservation = None
        if amount_in:
            valued = self._value(source, request_id, amount_in, target)
            if valued is None:
                return
            amount_out, reservation = valued
        own_id = target.next_request_id
        while own_id in target.sent:
            own_id = own_id % U32_MAX + 1
        target.next_request_id = own_id % U32_MAX + 1
        deadline_ms = now.mono_ms + expires_at_ms - now.wall_ms
        entry = InFlight(
            source,
            source.session,
            request_id,
            target,
            target.session,
            own_id,
            prepare.condition,
            deadline_ms,
            amount_in,
            amount_out,
            reservation,
        )
        source.received[request_id] = target.sent[own_id] = entry
        source.held += 1
        self.in_flight += 1
        self.clock.add(entry, deadline_ms)
        rewritten = ilp.rewrite_prepare(packet, prepare, amount_out, expires_at_ms)
        self._put(target, MESSAGE, own_id, rewritten)

    def _value(
        self, source: Hop, request_id: int, amount_in: int, target: Hop
    ) -> tuple[int, Reservation] | None:
        """What leaves of `amount_in`, and its entries in the book; None after refusing the packet."""
        # Nothing is forwarded to a local account: delivery costs nothing.
        kept = 0 if target.is_local else fee(amount_in, self.policy.spread_ppm)
        amount_out = amount_in - kept
        if source.account.exchange is not target.account.exchange:
            conversion = self._rates.conversion(source.account.asset, target.account.asset)
            if conversion is None:
                pair = f"{source.account.asset} to {target.account.asset}"
                self._refuse(source, request_id, "F02", f"no exchange rate from {pair}")
                return None
            amount_out = conversion.apply(amount_out)
            if amount_out > U64_MAX:
                self._refuse_too_large(source, request_id, amount_in, conversion.largest())
                return None
        if amount_out <= 0:
            reason = f"amount {amount_in} is worth nothing at the next hop, send more in one packet"
            self._refuse(source, request_id, "R01", reason)
            return None
        reservation = self.book.reserve(source.account, target.account, amount_in, kept, amount_out)
        if reservation is None:
            left = max(0, source.account.available)
            reason = f"credit limit of {source.name}: {left} left, {amount_in} needed"
            self._refuse(source, request_id, "T04", reason)
            return None
        return amount_out, reservation

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
                self._fulfill(entry, packet, ilp.decode_fulfill(packet))
            else:
                reject = ilp.decode_reject(packet)
                self._resolve(entry, posted=False)
                self.counters[f"relayed {reject.code}"] += 1
                self._answer(entry, ilp.encode_reject(reject))
        except RemoteProtocolError as error:
            self._fail(entry, "T00", f"{target.name} sent an unreadable reply: {error}")

    def failure(self, target: Hop, request_id: int, reason: str, now: Instant) -> None:
        """`target` answered a Prepare with something that is no ILP packet."""
        entry = self._awaited(target, request_id, now)
        if entry is not None:
            self._fail(entry, "T00", f"{target.name} {reason}")

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

    def _fulfill(self, entry: InFlight, packet: bytes, fulfill: ilp.Fulfill) -> None:
        target = entry.target
        if sha256(fulfill.fulfillment).digest() != entry.condition:
            self._notice("wrong fulfillment", entry, target, entry.amount_out, "does not match the condition")
            self._fail(entry, "F05", f"{target.name} sent a fulfillment that does not match the condition")
            return
        self._resolve(entry, posted=True)
        self.counters["fulfilled"] += 1
        if not self._answer(entry, ilp.shortest_fulfill(packet, fulfill)):
            reason = "its link was lost before the fulfill could be relayed"
            self._notice("fulfill lost", entry, entry.source, entry.amount_in, reason)

    def expire(self, now: Instant) -> None:
        """Answer, with R00, every Prepare whose outgoing expiry has come."""
        for entry in self.clock.due(now.mono_ms):
            self._resolve(entry, posted=False, due=True)
            self._remember_expired(entry)
            self._reject(entry, "R00", f"{entry.target.name} did not answer in time")

    def _fail(self, entry: InFlight, code: str, reason: str) -> None:
        self._resolve(entry, posted=False)
        self._reject(entry, code, reason)

    def _reject(self, entry: InFlight, code: str, reason: str) -> None:
        self.counters[f"rejected {code}"] += 1
        self._notice("rejected", entry, entry.target, entry.amount_out, f"{code} {reason}")
        self._answer(entry, ilp.encode_reject(ilp.Reject(code, self.address, reason, b"")))

    def _resolve(self, entry: InFlight, *, posted: bool, due: bool = False) -> None:
        """Take `entry` out of every table and close its entries in the book."""
        del entry.target.sent[entry.request_id]
        entry.source.held -= 1
        self.in_flight -= 1
        if not due:
            self.clock.remove(entry, entry.deadline_ms)
        if entry.reservation is not None:
            if posted:
                self.book.commit(entry.reservation)
            else:
                self.book.void(entry.reservation)

    def _notice(self, kind: str, entry: InFlight, hop: Hop, amount: int, reason: str) -> None:
        self.notices.append(Notice(kind, hop.name, packet_id(entry.condition), amount, reason))
