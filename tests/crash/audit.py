"""Books as their directory holds them, read independently of the process that wrote them.

Entries are read one by one, and what they say of each packet is compared with
the book that a recovery makes, with what payer and shop saw, with the books
of the next node, and with the ledger.
"""

import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from connector.core import entries
from connector.core.accounts import Account
from connector.core.book import Book
from connector.core.chart import Code
from connector.core.entries import Side
from connector.core.legs import LedgerSide
from connector.core.transfers import PENDING, POST_PENDING, VOID_PENDING, Transfer
from connector.ledger.api import AccountQuery, Ledger
from connector.ledger.recovery import recover
from connector.ledger.store import Store
from tests.crash.load import FULFILLED, Seen, Sent

#: An answer may have been given this long before a kill, and its record not yet written.
GRACE_S = 0.1
#: A neighbour may take so long to notice that a node is dead.
NOTICE_S = 0.1


class Packet(msgspec.Struct):
    """A packet in a node's journal. Amounts are in the asset's smallest unit."""

    number: int
    incoming: str
    outgoing: str
    amount_in: int
    fee: int
    amount_out: int
    has_ended: bool = False
    #: Whether FULFILLED was its end: its legs were posted.
    is_fulfilled: bool = False
    incoming_side: Side = Side.OPEN
    outgoing_side: Side = Side.OPEN

    @property
    def is_in_doubt(self) -> bool:
        """Whether a side is not known."""
        return Side.OPEN in (self.incoming_side, self.outgoing_side)


class Kill(msgspec.Struct):
    """When a node was killed: before the signal, and after its process was gone. Monotonic seconds."""

    since_s: float
    until_s: float


class Audit:
    """What a node's directory says, as a start would find it."""

    def __init__(self, address: str, packets: dict[bytes, Packet], book: Book, doubts_found: int) -> None:
        self.address = address
        self.packets = packets
        self.book = book
        #: Packets that this recovery, and no one before it, found in doubt.
        self.doubts_found = doubts_found

    def account(self, name: str) -> Account:
        """A peer's account."""
        (account,) = (each for each in self.book.accounts() if each.name == name)
        return account


def read_books(directory: Path, address: str) -> Audit:
    """Read the books of a node that does not run. The directory is a copy: it is opened as a node does."""
    store = Store(directory, address, "always")
    try:
        log = [entry for batch in store.read_all(0) for entry in entries.decode(batch.entries)]
        recovered = recover(store, time.time_ns() // 1_000_000)
    finally:
        store.close()
    assert recovered.last == len(log), "every entry is still there"
    packets = _packets_of(log)
    _enter_doubts(packets, recovered.book)
    _check_accounts(packets, recovered.book)
    return Audit(address, packets, recovered.book, recovered.doubts)


def _packets_of(log: Iterable[tuple]) -> dict[bytes, Packet]:  # type: ignore[type-arg]  # see entries.decode
    """What became of each packet; none is taken twice, and each ends once."""
    names: list[str] = []
    numbered: dict[int, Packet] = {}
    found: dict[bytes, Packet] = {}
    for entry in log:
        kind, number = entry[0], entry[1]
        if kind == entries.OPENED:
            assert number == len(names)
            names.append(entry[3])
        elif kind == entries.PREPARED:
            _, _, _, packet_id, incoming, outgoing, amount_in, fee, amount_out = entry
            assert packet_id not in found, "a packet is in the books once"
            assert number not in numbered, "a number is used once"
            packet = Packet(number, names[incoming], names[outgoing], amount_in, fee, amount_out)
            found[packet_id] = numbered[number] = packet
        else:
            _end(numbered[number], entry)
    return found


def _end(packet: Packet, entry: tuple) -> None:  # type: ignore[type-arg]
    kind = entry[0]
    if kind == entries.UNRELAYED:
        assert packet.incoming_side is Side.OWED
        assert packet.amount_in == entry[5]
        packet.incoming_side = Side.OPEN
    elif kind == entries.CLOSED:
        side = Side.OWED if entry[4] else Side.CLEAR
        if entry[3] == entries.INCOMING:
            assert packet.incoming_side is Side.OPEN
            packet.incoming_side = side
        else:
            assert packet.outgoing_side is Side.OPEN
            packet.outgoing_side = side
    else:
        assert not packet.has_ended, "a packet ends once"
        packet.has_ended = True
        if kind == entries.FULFILLED:
            packet.is_fulfilled = True
            packet.incoming_side = packet.outgoing_side = Side.OWED
        elif kind == entries.REJECTED:
            packet.incoming_side = packet.outgoing_side = Side.CLEAR
        else:
            assert kind == entries.DOUBTED, kind
            packet.incoming_side, packet.outgoing_side = Side(entry[3]), Side(entry[4])


def _enter_doubts(packets: dict[bytes, Packet], book: Book) -> None:
    """What recovery holds in doubt is what did not end, and Fulfills that did not leave for certain."""
    assert not book.pending
    for doubt in book.doubts.values():
        packet = packets[doubt.packet_id]
        assert (packet.number, packet.amount_in) == (doubt.number, doubt.amount_in), "each has its value"
        assert packet.incoming == doubt.incoming.name
        if doubt.outgoing is not None:
            assert (packet.outgoing, packet.amount_out) == (doubt.outgoing.name, doubt.amount_out)
            assert (packet.incoming_side, packet.outgoing_side) == (
                doubt.incoming_side,
                doubt.outgoing_side,
            )
        else:
            assert packet.is_fulfilled
            packet.incoming_side = Side.OPEN
        packet.has_ended = True
    in_doubt = {packet.number for packet in packets.values() if packet.is_in_doubt or not packet.has_ended}
    assert in_doubt == set(book.doubts), "the in-doubt list is complete"


def _check_accounts(packets: dict[bytes, Packet], book: Book) -> None:
    """Balances are what the packets come to."""
    sums: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    fees = 0
    for packet in packets.values():
        incoming, outgoing = sums[packet.incoming], sums[packet.outgoing]
        incoming[0] += packet.amount_in * (packet.incoming_side is Side.OWED)
        incoming[1] += packet.amount_in * (packet.incoming_side is Side.OPEN)
        outgoing[0] -= packet.amount_out * (packet.outgoing_side is Side.OWED)
        outgoing[2] += packet.amount_out * (packet.outgoing_side is Side.OPEN)
        fees += packet.fee * packet.is_fulfilled
    for account in book.accounts():
        if account.number >= 0:
            have = [account.net, account.debits_pending, account.credits_pending]
            assert have == sums[account.name], f"{account}: {have}, its packets come to {sums[account.name]}"
        elif account.name == "fees":
            assert -account.net == fees
    for asset, totals in book.totals().items():
        assert totals.debits_posted == totals.credits_posted, asset
        assert totals.debits_pending == totals.credits_pending, asset


# --- against what others saw ---


def check_in_flight(audit: Audit, sent: Mapping[bytes, Sent], kills: Sequence[Kill]) -> None:
    """Only what was in flight at a kill is in doubt, or was answered shortly before it."""
    for packet_id, packet in audit.packets.items():
        if packet.is_in_doubt:
            own = sent[packet_id]
            first = bisect_left(kills, own.sent_s, key=lambda kill: kill.until_s + NOTICE_S)
            where = f"{audit.address}: {packet_id.hex()} is in doubt, {own}, {packet}"
            assert first < len(kills), f"{where}: no kill came after it"
            late_s = kills[first].since_s - own.answered_s
            assert late_s <= GRACE_S, f"{where}: it was answered {late_s:.3f} s before the next kill"


def check_payer(audit: Audit, sent: Mapping[bytes, Sent], payer: str) -> None:
    """The payer's own node and the payer agree on all but what is in doubt."""
    paid = in_doubt = 0
    for packet_id, own in sent.items():
        packet = audit.packets.get(packet_id)
        if own.outcome == FULFILLED:
            paid += own.amount
            assert packet is not None, f"{packet_id.hex()} was paid and is in no book"
            assert packet.incoming_side is not Side.CLEAR, f"{packet_id.hex()}: {own}, {packet}"
            in_doubt += own.amount * (packet.incoming_side is Side.OPEN)
        elif packet is not None:
            # A recorded Fulfill was seen: the payer reads to the end what a killed node has sent.
            assert packet.incoming_side is not Side.OWED, f"{packet_id.hex()}: {own}, {packet}"
        if packet is not None:
            assert (packet.incoming, packet.amount_in) == (payer, own.amount)
    assert audit.packets.keys() <= sent.keys(), "nobody else sends"
    assert audit.account(payer).net + in_doubt == paid


def check_shop(audit: Audit, seen: Mapping[bytes, Seen], shop: str) -> None:
    """The shop's own node and the shop agree on all but what is in doubt."""
    earned = in_doubt = 0
    for packet_id, packet in audit.packets.items():
        own = seen.get(packet_id)
        assert packet.outgoing == shop
        if own is not None and own.is_fulfilled:
            earned += own.amount
            assert own.amount == packet.amount_out
            assert packet.outgoing_side is not Side.CLEAR, f"{packet_id.hex()}: {own}, {packet}"
            in_doubt += own.amount * (packet.outgoing_side is Side.OPEN)
        else:
            assert packet.outgoing_side is not Side.OWED, f"{packet_id.hex()}: {own}, {packet}"
    assert -audit.account(shop).net + in_doubt == earned


def check_arrived(audit: Audit, seen: Mapping[bytes, Seen]) -> None:
    """No Prepare leaves before it is written down."""
    for packet_id, own in seen.items():
        assert packet_id in audit.packets, f"{packet_id.hex()}: {own} came to the shop from nowhere"


def check_neighbours(debtor: Audit, creditor: Audit, names: tuple[str, str]) -> None:
    """Two nodes agree on every packet between them that neither holds in doubt.

    `names`: what the debtor calls the creditor, and the other way around.
    """
    difference = 0
    for packet_id, there in creditor.packets.items():
        if there.incoming == names[1]:
            here = debtor.packets.get(packet_id)
            assert here is not None, f"{packet_id.hex()} came from {debtor.address}, which never had it"
            assert (here.outgoing, here.amount_out) == (names[0], there.amount_in)
    for packet_id, here in debtor.packets.items():
        if here.outgoing != names[0]:
            continue
        known = creditor.packets.get(packet_id)
        # What was never written down there is owed by nobody.
        side = Side.CLEAR if known is None else known.incoming_side
        if Side.OPEN not in (here.outgoing_side, side):
            assert here.outgoing_side is side, f"{packet_id.hex()}: {here}, {known}"
        owed, claimed = here.outgoing_side is Side.OWED, side is Side.OWED
        difference += here.amount_out * (claimed - owed)
    net = debtor.account(names[0]).net + creditor.account(names[1]).net
    assert net == difference, "accounts differ by what is in doubt, value for value"


# --- against the ledger ---


async def check_ledger(audit: Audit, ledger: Ledger) -> int:
    """The ledger has the book's balances, and each packet's legs once; how many transfers it has."""
    sides = {LedgerSide(audit.address, each).id: each for each in audit.book.accounts()}
    found = {each.id: each for each in await ledger.lookup_accounts(list(sides))}
    for ident, account in sides.items():
        own = found[ident]
        have = own.debits_posted, own.credits_posted, own.debits_pending, own.credits_pending
        assert have == account.balance(), (
            f"{audit.address} {account}: the ledger has {have}, the book {account.balance()}"
        )
    transfers: dict[int, Transfer] = {}
    for ident in sides:
        for transfer in await transfers_of(ledger, ident):
            transfers[transfer.id] = transfer
    check_transfers(audit, transfers.values())
    return len(transfers)


async def transfers_of(ledger: Ledger, account_id: int) -> list[Transfer]:
    """Every transfer of an account, oldest first."""
    found: list[Transfer] = []
    while True:
        since = found[-1].timestamp + 1 if found else 0
        query = AccountQuery(account_id=account_id, timestamp_min=since, limit=ledger.batch_max)
        rows = await ledger.account_transfers(query)
        found += rows
        if len(rows) < query.limit:
            return found


def check_transfers(audit: Audit, transfers: Iterable[Transfer]) -> None:
    """Each leg of a fulfilled packet was posted once, others never; what is pending is in doubt."""
    posted: Counter[tuple[bytes, int, int]] = Counter()
    pending: dict[int, int] = {}
    ends: list[Transfer] = []
    for transfer in transfers:
        if transfer.flags & PENDING:
            pending[transfer.id] = transfer.amount
        if transfer.flags & (POST_PENDING | VOID_PENDING):
            ends.append(transfer)
        if transfer.code in (Code.PACKET, Code.FEE) and not transfer.flags & (PENDING | VOID_PENDING):
            packet_id = transfer.user_data_128.to_bytes(16, "little")
            posted[packet_id, transfer.code, transfer.amount] += 1
    expected: Counter[tuple[bytes, int, int]] = Counter()
    for packet_id, packet in audit.packets.items():
        if packet.is_fulfilled:
            expected[packet_id, Code.PACKET, packet.amount_out] += 1
            if packet.fee:
                expected[packet_id, Code.FEE, packet.fee] += 1
    assert posted == expected, f"lost: {expected - posted}, too many: {posted - expected}"
    for end in ends:
        assert pending.pop(end.pending_id, None) == end.amount, f"ended twice, or never begun: {end}"
    sides = [side for each in audit.book.doubts.values() for side in (each.incoming_side, each.outgoing_side)]
    assert len(pending) == sides.count(Side.OPEN), "what is pending is in doubt"
