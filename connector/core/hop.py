"""A hop: one neighbour as the packet path sees it.

A peer behind a link, or a local account behind the receiver: to the forwarder
both are a place packets come from and go to. A hop is down (`session` 0) or up
with the number of its present connection; request ids belong to a connection,
so whatever is resolved after it is gone is not sent on the next one.
"""

from enum import Enum

import msgspec

from connector.core.book import Account, Reservation
from connector.core.limiter import TokenBucket
from connector.limits import U64_MAX


class Relation(Enum):
    """What a hop is to this node."""

    PARENT = "parent"
    PEER = "peer"
    CHILD = "child"
    LOCAL = "local"


class Hop:
    """One neighbour. Mutable; owned by the forwarder it is added to."""

    __slots__ = (
        "account",
        "address",
        "congested",
        "held",
        "is_local",
        "limiter",
        "max_packet_amount",
        "name",
        "next_request_id",
        "outbox",
        "received",
        "relation",
        "relayed",
        "sent",
        "session",
        "sessions",
    )

    def __init__(
        self,
        name: str,
        relation: Relation,
        address: str,
        account: Account,
        limiter: TokenBucket,
        max_packet_amount: int = U64_MAX,
    ) -> None:
        self.name = name
        self.relation = relation
        self.is_local = relation is Relation.LOCAL
        self.address = address
        self.account = account
        self.limiter = limiter
        #: The largest amount taken from this hop in one packet.
        self.max_packet_amount = max_packet_amount
        #: Number of the present connection; 0 while there is none.
        self.session = 0
        #: Connections so far.
        self.sessions = 0
        #: Whether the hop reads too slowly to be given more Prepares.
        self.congested = False
        #: How many packets from this hop are in flight, over all its sessions.
        self.held = 0
        self.next_request_id = 1
        #: In flight, from this hop's present session, by its request id.
        self.received: dict[int, InFlight] = {}
        #: In flight, to this hop, by our request id; all sessions.
        self.sent: dict[int, InFlight] = {}
        #: What the batch in hand has for this hop: (BTP type, request id, ILP packet).
        self.outbox: list[tuple[int, int, bytes]] = []
        #: What the Fulfills in it are worth: in doubt if they cannot leave.
        self.relayed: list[Reservation] = []

    def __repr__(self) -> str:
        return f"<{self.relation.value} {self.name} session {self.session}>"


class InFlight(msgspec.Struct, eq=False, gc=False):
    """A Prepare that was forwarded and not resolved; in both hops' tables and on the expiry clock.

    `gc=False` is safe: resolving takes it out of every table, which ends its cycles.
    """

    source: Hop
    source_session: int
    source_request_id: int
    target: Hop
    target_session: int
    request_id: int
    condition: bytes
    #: Monotonic: the outgoing expiry as of when it was forwarded.
    deadline_ms: int
    amount_in: int
    amount_out: int
    #: None for a packet without value.
    reservation: Reservation | None
