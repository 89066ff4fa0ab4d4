"""What a configuration file may hold. Unknown keys are errors.

Amounts are in the asset's smallest unit. Every string may hold `${NAME}` or
`${NAME:-default}`, taken from the environment; a secret may also come from the
file that `…_file` names (paths are relative to the configuration file).
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from connector import limits as bounds
from connector.core.rates import Asset

Count = Annotated[int, Meta(ge=1)]
Amount = Annotated[int, Meta(ge=0)]
Milliseconds = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(ge=0)]


class Secret:
    """A string that never shows itself: not in logs, errors, or `config show`."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The string itself; for the one place that needs it."""
        return self._value

    def __repr__(self) -> str:
        return "***"


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all sections."""


class Node(Section, frozen=True):
    """Who this node is."""

    #: Unique among the nodes of one process; a segment of letters, digits, `_`, `~`, `-`.
    name: str
    #: The node's ILP address; its accounts and children are below it.
    address: str
    #: How long a stop waits for packets in flight.
    drain_timeout_s: Seconds = bounds.DRAIN_TIMEOUT_S
    #: Holds the journal and the embedded ledger; no other node may use it. Relative to this file.
    #: Without it: `$XDG_STATE_HOME/connector/NAME` (~/.local/state/connector/NAME). Absolute once loaded.
    state_dir: str | None = None


class Btp(Section, frozen=True):
    """Where peers dial us. Without `listen` nobody can."""

    #: `HOST:PORT`; the host is an IP address or a name.
    listen: str | None = None
    #: Certificate chain and key in PEM: peers then dial `wss://`.
    tls_cert_file: str | None = None
    tls_key_file: str | None = None


class Http(Section, frozen=True):
    """Health, SPSP, and what `connector accounts` and the like ask. Without `listen` there is no HTTP."""

    listen: str | None = None


class Fees(Section, frozen=True):
    """What this node keeps."""

    #: Parts per million of the incoming amount, rounded up, for each forwarded packet.
    spread_ppm: Annotated[int, Meta(ge=0, lt=1_000_000)] = 0


class Limits(Section, frozen=True):
    """Bounds that operators may tune."""

    #: Taken off a packet's expiry, so that its Fulfill can still be relayed in time.
    expiry_margin_ms: Milliseconds = bounds.EXPIRY_MARGIN_MS
    #: The longest that a packet is held, whatever its sender allows.
    hold_max_ms: Annotated[int, Meta(ge=1, le=300_000)] = bounds.HOLD_MAX_MS
    in_flight_max: Annotated[int, Meta(ge=1, le=bounds.IN_FLIGHT_MAX)] = bounds.IN_FLIGHT_MAX
    in_flight_per_link_max: Annotated[int, Meta(ge=1, le=bounds.IN_FLIGHT_MAX)] = (
        bounds.IN_FLIGHT_PER_LINK_MAX
    )


class Receiver(Section, frozen=True):
    """Payments that end here."""

    #: From it the keys of all STREAM receivers are derived. Without it they last until the node stops.
    secret: Secret | None = None
    secret_file: str | None = None


class Journal(Section, frozen=True):
    """What is written down before frames leave."""

    #: `always`: each batch is on disk before its frames leave. `interval`: survives a killed process, but
    #: up to a second may be lost with the power. `off`: no journal and no ledger, balances end with the
    #: process; for measuring and tests, never with money.
    sync: Literal["always", "interval", "off"] = "always"


class Ledger(Section, frozen=True):
    """Where the journal is posted: TigerBeetle when `replicas` is given, else the embedded ledger."""

    #: 128 bits, decimal or `0x…`; 0 when only `replicas` is given. Without it: TIGERBEETLE_CLUSTER_ID.
    #: Without replicas it says nothing: the embedded ledger is used.
    cluster_id: str | None = None
    #: `HOST:PORT`, `[IPv6]:PORT` or `PORT` (of this machine), at most six, commas between them.
    #: Without it: TIGERBEETLE_REPLICAS.
    replicas: str | None = None
    #: Whether an empty ledger is filled from the journal by itself (`always`), or after an operator says so.
    open_empty: Literal["confirm", "always"] = "confirm"
    #: How far the ledger may be behind the journal, in entries, in time since the oldest of them, and in
    #: bytes; beyond any, new Prepares are refused.
    unposted_max: Count = bounds.UNPOSTED_ENTRIES_MAX
    unposted_age_max_s: Count = bounds.UNPOSTED_AGE_MAX_S
    unposted_max_bytes: Count = bounds.UNPOSTED_MAX_BYTES


class Credit(Section, frozen=True):
    """Terms for all peers in one asset."""

    asset: Asset
    #: The credit limit of peers that have none of their own.
    default_limit: Amount | None = None
    #: No peer's credit limit counts for more than this: an emergency brake.
    ceiling: Amount | None = None
    #: The settlement threshold of peers that have none of their own.
    settle_threshold: Count | None = None


class Log(Section, frozen=True):
    """What is logged, and how."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    #: `auto`: lines for people on a terminal, else one JSON object a line.
    format: Literal["auto", "human", "json"] = "auto"


class Peer(Section, frozen=True):
    """One neighbour, and the one account we keep with it."""

    name: str
    #: `child`: we give it an address below ours; `parent`: also the default route, if there is no other.
    relation: Literal["parent", "peer", "child"]
    asset: Asset
    #: How far the peer's debt to us may grow, packets in flight counted. Without it: its asset's default.
    credit_limit: Amount | None = None
    #: When we owe the peer this much, we pay. Without it: its asset's; without that, never.
    settle_threshold: Count | None = None
    #: What both sides of the link know; unique among peers.
    token: Secret | None = None
    token_file: str | None = None
    #: The peer's ILP address (for a child: this node's address and its name, if not given).
    address: str | None = None
    #: `ws://HOST:PORT` or `wss://…`: we dial. Without it the peer dials us.
    url: str | None = None
    #: Sent along when we dial, for peers that ask for one.
    username: str = ""
    #: Certificates to trust for this peer's `wss://` instead of the system's.
    ca_file: str | None = None
    max_packet_amount: Amount = bounds.U64_MAX
    #: 0: no more than the node can carry anyway.
    max_packets_per_s: Annotated[int, Meta(ge=0)] = 0


class Route(Section, frozen=True):
    """Packets to addresses below `prefix` go to the peer `next_hop`. An empty prefix: all others."""

    prefix: str
    next_hop: str


class LocalAccount(Section, frozen=True):
    """An account of this node that receives STREAM payments, at this node's address and its name."""

    name: str
    asset: Asset


class NodeConfig(Section, frozen=True):
    """One node: the whole of a configuration file."""

    node: Node
    btp: Btp = Btp()
    http: Http = Http()
    fees: Fees = Fees()
    limits: Limits = Limits()
    receiver: Receiver = Receiver()
    journal: Journal = Journal()
    ledger: Ledger = Ledger()
    log: Log = Log()
    #: The price of one whole unit of each asset code, in any common reference: exact decimals.
    prices: dict[str, str] = {}
    #: At most one table for each asset.
    credit: Annotated[tuple[Credit, ...], Meta(max_length=bounds.CREDIT_ASSETS_MAX)] = ()
    peers: Annotated[tuple[Peer, ...], Meta(max_length=bounds.PEERS_MAX)] = ()
    routes: Annotated[tuple[Route, ...], Meta(max_length=bounds.ROUTES_MAX)] = ()
    accounts: Annotated[tuple[LocalAccount, ...], Meta(max_length=bounds.ACCOUNTS_MAX)] = ()


def hide_secret(value: object) -> str:
    """How a secret is written out: as stars. For msgspec's `enc_hook`."""
    assert isinstance(value, Secret)
    return "***"


def describe_secret(kind: type) -> dict[str, object]:
    """A secret in JSON Schema. For msgspec's `schema_hook`."""
    assert kind is Secret
    return {"type": "string", "writeOnly": True}


def json_schema() -> dict[str, object]:
    """The JSON Schema of a configuration file."""
    return msgspec.json.schema(NodeConfig, schema_hook=describe_secret)
