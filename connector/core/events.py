"""Events: what a node tells those who watch it.

One tagged Struct per event; `type` says which. Amounts are decimal strings in
the asset's smallest unit, since u64 breaks JavaScript's numbers; times are wall
time in milliseconds. Whoever reads events and meets another VERSION cannot
rely on the fields below.
"""

from typing import Final, Literal

import msgspec

VERSION: Final = 1

SettlementState = Literal["none", "due"]
LedgerState = Literal["healthy", "degraded", "refusing"]
SideName = Literal["incoming", "outgoing"]


class AssetName(msgspec.Struct, frozen=True):
    """An asset, and its decimal places."""

    code: str
    scale: int


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of all events."""


class AccountBalance(Event, frozen=True, tag="ACCOUNT_BALANCE"):
    """What we and the holder of an account owe each other, seen from our side."""

    #: The holder: a peer's name, or a local account's.
    peer: str
    kind: Literal["peer", "local"]
    asset: AssetName
    #: Posted: what the peer owes us for, and what we owe the peer for.
    debits: str
    credits: str
    #: The same of packets in flight.
    debits_pending: str
    credits_pending: str
    #: Debits less credits: positive when the peer owes us.
    net: str
    credit_limit: str
    settle_threshold: str | None
    settlement: SettlementState


class SettlementTriggered(Event, frozen=True, tag="SETTLEMENT_TRIGGERED"):
    """We owe a peer so much that it is time to pay."""

    peer: str
    asset: AssetName
    debits: str
    credits: str
    net: str
    threshold: str
    #: The packet that did it; None when it was found at the start.
    trigger: str | None


class LedgerStatus(Event, frozen=True, tag="LEDGER_STATUS"):
    """How the ledger does, and what the journal holds that it lacks."""

    #: `degraded`: the ledger is away and packets flow; `refusing`: no new packets are taken.
    state: LedgerState
    entries: int
    octets: int
    #: Of the oldest entry that the ledger lacks.
    age_ms: int
    #: Empty when healthy.
    reason: str


class PacketInDoubt(Event, frozen=True, tag="PACKET_IN_DOUBT"):
    """Whether one side of a packet is owed, nobody knows."""

    packet: str
    #: `incoming`: the peer may owe us; `outgoing`: we may owe the peer.
    peer: str
    side: SideName
    amount: str
    asset: AssetName
    since_ms: int
    evidence: str


AnyEvent = AccountBalance | SettlementTriggered | LedgerStatus | PacketInDoubt
