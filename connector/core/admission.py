"""Admission: whether a Prepare may go on, where to, and what it is worth there.

Everything here is decided before anything is kept: a Prepare is refused, or
every limit that it touches has room for it.
"""

import msgspec

from connector.core.book import Book, Reservation
from connector.core.hop import Hop, Relation
from connector.core.policy import Policy
from connector.core.rates import Rates, fee
from connector.core.routing import RoutingTable, why_not_carried
from connector.limits import DOUBTS_PER_PEER_MAX, ROUTE_CACHE_MAX, U64_MAX
from connector.protocol import ilp


class Refusal(msgspec.Struct, frozen=True):
    """Why a Prepare is rejected here: an ILP error code, a message for its sender, and data."""

    code: str
    reason: str
    data: bytes = b""


class Admission:
    """Routes, rates and limits of one node, asked once per Prepare."""

    def __init__(self, address: str, rates: Rates, policy: Policy, book: Book) -> None:
        self.routes: RoutingTable[Hop] = RoutingTable()
        self._address = address
        self._rates = rates
        self._policy = policy
        self._book = book
        #: The next hop of destinations seen lately, while the routes stay as they are.
        self._next_hops: dict[str, Hop] = {}
        self._next_hops_version = 0

    def next_hop(self, source: Hop, destination: str) -> Hop | Refusal:
        """The hop that is to have the packet."""
        if self._next_hops_version != self.routes.version or len(self._next_hops) >= ROUTE_CACHE_MAX:
            self._next_hops.clear()
            self._next_hops_version = self.routes.version
        target = self._next_hops.get(destination)
        if target is None:
            target = self.routes.lookup(destination)
            end = target.address if target is not None else ""
            reason = why_not_carried(self._address, destination, end)
            if target is None or reason is not None:
                return Refusal("F02", reason or "no route to the destination")
            self._next_hops[destination] = target
        if target is source and source.relation is not Relation.CHILD:
            return Refusal("F02", f"the route leads back to {source.name}")
        return target

    def expiry(self, expires_at_ms: int, now_ms: int) -> int | Refusal:
        """The expiry that the packet leaves with (wall time, ms)."""
        policy = self._policy
        outgoing_ms = expires_at_ms - policy.expiry_margin_ms
        latest_ms = now_ms + policy.hold_max_ms
        outgoing_ms = min(outgoing_ms, latest_ms)
        if outgoing_ms > now_ms:
            return outgoing_ms
        left_ms = expires_at_ms - now_ms
        if left_ms <= 0:
            return Refusal("R00", f"expired {-left_ms} ms before it came")
        return Refusal("R02", f"{left_ms} ms left, this hop needs more than {policy.expiry_margin_ms}")

    def room(self, source: Hop, amount: int, target: Hop, in_flight: int) -> Refusal | None:
        """Whether packet and tables leave room for it."""
        policy = self._policy
        if amount > source.max_packet_amount:
            return _too_large(amount, source.max_packet_amount)
        if not target.session:
            return Refusal("T01", f"no connection to {target.name} now")
        if target.congested or len(target.sent) >= policy.in_flight_per_link_max:
            return Refusal("T02", f"{target.name} is overloaded")
        if source.held >= policy.in_flight_per_link_max:
            return Refusal("T02", f"{source.name} has too many packets in flight")
        if in_flight >= policy.in_flight_max:
            return Refusal("T02", "this connector has too many packets in flight")
        if source.account.doubts >= DOUBTS_PER_PEER_MAX or target.account.doubts >= DOUBTS_PER_PEER_MAX:
            name = source.name if source.account.doubts >= DOUBTS_PER_PEER_MAX else target.name
            return Refusal("T01", f"too many packets with {name} are in doubt and await a decision")
        return None

    def value(
        self, source: Hop, prepare: ilp.Prepare, target: Hop, now_ms: int
    ) -> tuple[int, Reservation] | Refusal:
        """What leaves of the packet's amount, and its entries in the book."""
        amount_in = prepare.amount
        # Nothing is forwarded to a local account: delivery costs nothing.
        kept = 0 if target.is_local else fee(amount_in, self._policy.spread_ppm)
        amount_out = amount_in - kept
        incoming, outgoing = source.account, target.account
        if incoming.exchange is not outgoing.exchange:
            conversion = self._rates.conversion(incoming.asset, outgoing.asset)
            if conversion is None:
                return Refusal("F02", f"no exchange rate from {incoming.asset} to {outgoing.asset}")
            amount_out = conversion.apply(amount_out)
            if amount_out > U64_MAX:
                return _too_large(amount_in, conversion.largest())
        if amount_out <= 0:
            reason = f"amount {amount_in} is worth nothing at the next hop, send more in one packet"
            return Refusal("R01", reason)
        packet_id = prepare.condition[:16]
        reservation = self._book.reserve(incoming, outgoing, amount_in, kept, amount_out, packet_id, now_ms)
        if reservation is None:
            left = max(0, incoming.available)
            return Refusal("T04", f"credit limit of {source.name}: {left} left, {amount_in} needed")
        return amount_out, reservation


def _too_large(amount: int, maximum: int) -> Refusal:
    data = amount.to_bytes(8, "big") + maximum.to_bytes(8, "big")
    return Refusal("F08", f"amount {amount}, at most {maximum}", data)
