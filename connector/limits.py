"""Every bound of the connector, in one place.

Owns the numbers that keep queues, buffers, tables and retries finite, and the
relations between them, which are asserted when the module is imported. A bound
that operators may tune has its default here and its key in `connector.config`.

Units stand last in each name. Values fixed by a specification name it.
"""

from typing import Final

# --- ILPv4 (RFC 27) and OER (RFC 30) ---

U32_MAX: Final = 2**32 - 1
U64_MAX: Final = 2**64 - 1
#: RFC 15: an ILP address is at most 1023 characters.
ILP_ADDRESS_MAX_BYTES: Final = 1023
#: RFC 27: the data field of every ILP packet.
ILP_DATA_MAX_BYTES: Final = 32_767
#: RFC 27: the message field of a Reject.
ILP_MESSAGE_MAX_BYTES: Final = 8_191
#: The largest encoded Reject (the largest of the three packet types).
ILP_PACKET_MAX_BYTES: Final = ILP_DATA_MAX_BYTES + ILP_MESSAGE_MAX_BYTES + ILP_ADDRESS_MAX_BYTES + 128
#: A length of more octets than this cannot describe anything we accept.
OER_LENGTH_OCTETS_MAX: Final = 8

# --- BTP/2.0 (RFC 23) and WebSocket frames ---

BTP_SUB_PROTOCOLS_MAX: Final = 16
BTP_NAME_MAX_BYTES: Final = 255
#: One BTP frame, and so one WebSocket message.
BTP_FRAME_MAX_BYTES: Final = 65_536
#: Tokens and user names; more is not a credential but an attack.
BTP_CREDENTIAL_MAX_BYTES: Final = 1_024

# --- Links ---

#: One read from a socket; what it holds is handled as one batch.
READ_MAX_BYTES: Final = 65_536
#: From here on a link takes no further Prepares (T02): its peer does not read.
WRITE_SOFT_MAX_BYTES: Final = 1 << 20
#: From here on the link is closed: not even replies can be delivered.
WRITE_HARD_MAX_BYTES: Final = 8 << 20
#: BTP requests of one link that carry no ILP packet: each is answered, more end the link.
BTP_ANSWERS_PER_S_MAX: Final = 100
BTP_ANSWERS_BURST_MAX: Final = 1_000
#: Connections that have not authenticated yet, per listener.
UNAUTHENTICATED_LINKS_MAX: Final = 128
HANDSHAKE_TIMEOUT_S: Final = 10.0
AUTH_TIMEOUT_S: Final = 5.0
CLOSE_TIMEOUT_S: Final = 2.0
PING_INTERVAL_S: Final = 20.0
PONG_TIMEOUT_S: Final = 10.0
#: How long a peer is given to answer a question, such as what it holds.
QUESTION_TIMEOUT_S: Final = 2.0

# --- Supervision ---

BACKOFF_MIN_S: Final = 0.5
BACKOFF_MAX_S: Final = 30.0
#: A task that ran this long is stable again: its backoff starts over.
STABLE_AFTER_S: Final = 60.0
DRAIN_TIMEOUT_S: Final = 10.0

# --- Packets ---

#: Prepares sent and not resolved, over all links of a node.
IN_FLIGHT_MAX: Final = 65_536
#: The same for one link, so that no peer can take the whole table.
IN_FLIGHT_PER_LINK_MAX: Final = 16_384
#: A Prepare is held at most this long, whatever its sender allows.
HOLD_MAX_MS: Final = 30_000
#: Taken off the expiry at each hop, so that a Fulfill can still be relayed.
EXPIRY_MARGIN_MS: Final = 1_000
#: What one link may send unless its configuration says otherwise.
PACKETS_PER_S_MAX: Final = 100_000
#: Repetitions of one kind of warning about one peer are counted, and logged this often.
NOTICE_INTERVAL_MS: Final = 10_000
#: Packets that expired, remembered so that a late Fulfill can be named and valued.
EXPIRED_REMEMBERED_MAX: Final = 4_096
#: Packets of one peer that are in doubt; with more, none is forwarded to or from it.
DOUBTS_PER_PEER_MAX: Final = 65_536
#: Keys of settlements, remembered so that none is booked twice.
SETTLEMENTS_REMEMBERED_MAX: Final = 4_096
#: Destinations whose next hop is remembered between look-ups.
ROUTE_CACHE_MAX: Final = 8_192
#: Configured ones; each peer and account has a route of its own besides.
ROUTES_MAX: Final = 200_000
PEERS_MAX: Final = 4_096
ACCOUNTS_MAX: Final = 65_536
ROUTING_TABLE_MAX: Final = ROUTES_MAX + PEERS_MAX + ACCOUNTS_MAX
#: `USD`, `XRP`: it travels in ILDCP and STREAM packets.
ASSET_CODE_MAX_BYTES: Final = 255
#: Addresses remembered by the codec as valid.
ADDRESS_CACHE_MAX: Final = 8_192
#: Timestamps by minute remembered by the codec; a minute is one entry.
MINUTE_CACHE_MAX: Final = 1_024

# --- Books ---

#: Entries between two checkpoints of the book: what a start has to read again, about a second's worth.
CHECKPOINT_ENTRIES: Final = 500_000
#: An entry's size as long as none has been written: about half are PREPARED.
ENTRY_TYPICAL_BYTES: Final = 41
#: With `sync = "interval"`: how much may be lost with the power.
JOURNAL_FLUSH_INTERVAL_S: Final = 1.0
#: After a commit, how long the next batch is waited for to say that the frames of this one have left.
JOURNAL_MARK_DELAY_S: Final = 0.005
#: How long its two connections wait for each other; no other process opens the file.
JOURNAL_LOCK_TIMEOUT_S: Final = 10
#: How long the journal's thread waits for more before it is given back.
JOURNAL_IDLE_S: Final = 0.005
#: Batches removed in one transaction, so that none takes long.
JOURNAL_COMPACT_ROWS_MAX: Final = 64
#: Entries read from the journal for a request of the ledger's, and handled between two looks at packets.
POSTER_READ_ENTRIES_MAX: Final = 8_192
POSTER_SLICE_ENTRIES: Final = 64
#: Pairs of accounts whose packets' transfers are worked out in advance.
PAIRS_REMEMBERED_MAX: Final = 16_384
#: Accounts compared with the ledger at a time, when it is reached.
ATTACH_SLICE_ACCOUNTS: Final = 512
#: Between two requests, while the ledger keeps up.
POSTER_PAUSE_S: Final = 0.02
#: How often a lag of the ledger is looked at, and how many looks are remembered for its age.
LAG_WATCH_INTERVAL_S: Final = 1.0
LAG_SAMPLES_MAX: Final = 4_096
#: Digits of a balance that a peer tells us: more than any sum of 64-bit amounts has.
BALANCE_DIGITS_MAX: Final = 40
#: A link that has not taken a frame for so long is noted by itself, and holds up nobody else's mark.
STUCK_AFTER_MS: Final = 200
#: Packets that wait for the journal: more octets, or a longer wait, and new Prepares are refused.
GATE_MAX_BYTES: Final = 64 << 20
GATE_STALL_MS: Final = 1_000
#: A Fulfill is relayed after this long, committed or not.
FULFILL_HOLD_MAX_MS: Final = 20

#: What the journal holds and the ledger does not yet: beyond any of these, new Prepares are refused.
UNPOSTED_ENTRIES_MAX: Final = 100_000_000
UNPOSTED_AGE_MAX_S: Final = 86_400
UNPOSTED_MAX_BYTES: Final = 4 << 30
#: TigerBeetle: a cluster has at most six replicas; its id is a 128-bit integer.
LEDGER_REPLICAS_MAX: Final = 6
U128_MAX: Final = 2**128 - 1
#: Credit terms are by asset: more assets than a node deals in.
CREDIT_ASSETS_MAX: Final = 1_024

# --- STREAM (RFC 29): receiving ---

STREAM_FRAMES_MAX: Final = 256
#: Connections whose keys are remembered between packets.
STREAM_CONNECTIONS_CACHED_MAX: Final = 4_096

# --- STREAM: sending, and probes ---

STREAM_SENDER_IN_FLIGHT_MAX: Final = 128
STREAM_WINDOW_START: Final = 8
STREAM_BACKOFF_MIN_MS: Final = 100
STREAM_BACKOFF_MAX_MS: Final = 1_000
#: Flights in a row without a fulfilled packet, about 20 s of backoff, until a payment gives up.
STREAM_SETBACKS_MAX: Final = 24
STREAM_TEST_PACKETS_MAX: Final = 32
#: Characters of what others say that are shown: an asset's code, a reason.
STREAM_ASSET_CODE_SHOWN_MAX: Final = 32
REASON_SHOWN_MAX: Final = 500
#: What rounding at the connectors between may cost a packet too small for its fair minimum.
STREAM_ROUNDING_MAX: Final = 16
#: Flights in a row that arrived below the minimum, until the rate counts as fallen.
STREAM_BELOW_MINIMUM_MAX: Final = 3
STREAM_PACKET_TIMEOUT_MS: Final = 30_000
#: A connector answers at the expiry itself; the reply still has to reach us.
REPLY_MARGIN_MS: Final = 1_000
#: After a payment's time limit, how long replies of packets in flight are waited for.
STREAM_DRAIN_MS: Final = 5_000
STREAM_CLOSE_TIMEOUT_S: Final = 2.0
PAYMENT_TIMEOUT_S: Final = 60.0
#: The least time worth waiting for a parent one hop away.
ILDCP_TIMEOUT_MS: Final = 10_000
PROBE_TIMEOUT_S: Final = 10.0
PROBE_INTERVAL_S: Final = 0.2
PROBES_MAX: Final = 100_000

# --- HTTP ---

SPSP_TIMEOUT_S: Final = 10.0
SPSP_BODY_MAX_BYTES: Final = 65_536
#: Connections to a node's HTTP port.
HTTP_CONNECTIONS_MAX: Final = 256
#: A client that is slower is disconnected.
HTTP_TIMEOUT_S: Final = 10
#: The body of a request.
HTTP_BODY_MAX_BYTES: Final = 65_536
#: How long a person's booking is waited for to be on disk.
BOOKING_TIMEOUT_S: Final = 5.0
#: How long a command waits for a node's answer.
ADMIN_TIMEOUT_S: Final = 10.0
#: How long one answer waits for a job, such as the doctor's examination.
JOB_WAIT_S: Final = 5.0
#: Rows of an account's history in one answer.
HISTORY_ROWS_DEFAULT: Final = 100
HISTORY_ROWS_MAX: Final = 1_000
#: What a settlement is known by, as people write it.
REFERENCE_MAX_CHARACTERS: Final = 256

# --- Events, and the doctor ---

EVENT_SUBSCRIBERS_MAX: Final = 16
#: How often changed balances are told, and how many accounts are looked at between two looks at packets.
BALANCE_INTERVAL_S: Final = 0.1
BALANCE_SLICE_ACCOUNTS: Final = 256
#: Lines about packets in doubt, for each time that some come to be.
DOUBTS_LOGGED_MAX: Final = 8
#: Entries between journal and ledger that the doctor replays.
DOCTOR_ENTRIES_MAX: Final = 2_000_000
#: Transfers of one account that are searched for pending ones that nobody knows.
ORPHAN_SEARCH_TRANSFERS_MAX: Final = 5_000_000
#: Orphans found in one search: more are found by the next one.
ORPHANS_MAX: Final = 65_536
#: Less room than this beside the journal is worth a warning, or an error.
DISK_FREE_WARN_BYTES: Final = 4 << 30
DISK_FREE_ERROR_BYTES: Final = 256 << 20

# --- Ledger ---

#: Events, ids or rows of one request: TigerBeetle's, with messages of 1 MiB.
LEDGER_BATCH_MAX: Final = 8_189
#: After it a request counts as unknown, and its session is over.
LEDGER_REQUEST_TIMEOUT_S: Final = 10.0
#: Closing a session takes up to 0.4 s; what takes longer is left to its thread.
LEDGER_CLOSE_TIMEOUT_S: Final = 2.0
#: Lines of TigerBeetle's client, per level: so many at once, then one each interval.
LEDGER_LOG_LINES_MAX: Final = 10
LEDGER_LOG_INTERVAL_S: Final = 300.0
#: How long the embedded ledger waits for another process to let go of its file.
LEDGER_LOCK_TIMEOUT_S: Final = 5.0

# --- Configuration ---

CONFIG_FILE_MAX_BYTES: Final = 16 << 20
SECRET_FILE_MAX_BYTES: Final = 64 << 10

assert ILP_PACKET_MAX_BYTES + 64 <= BTP_FRAME_MAX_BYTES <= WRITE_SOFT_MAX_BYTES
assert WRITE_SOFT_MAX_BYTES < WRITE_HARD_MAX_BYTES
assert IN_FLIGHT_PER_LINK_MAX <= IN_FLIGHT_MAX <= U32_MAX // 2
assert EXPIRY_MARGIN_MS < HOLD_MAX_MS
assert BACKOFF_MIN_S <= BACKOFF_MAX_S <= STABLE_AFTER_S
assert max(BOOKING_TIMEOUT_S, JOB_WAIT_S) < HTTP_TIMEOUT_S
assert PONG_TIMEOUT_S <= PING_INTERVAL_S
assert STREAM_WINDOW_START <= STREAM_SENDER_IN_FLIGHT_MAX
assert STREAM_BACKOFF_MIN_MS <= STREAM_BACKOFF_MAX_MS
