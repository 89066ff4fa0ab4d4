"""What must hold at the end of a seed, whatever went wrong.

- Every Prepare of a payer was answered once, unless its connection was lost;
  no packet was resolved twice on any node, and none is left in flight.
- Each book has what its journal tells, and the ledger has what the book has;
  there, each packet is posted once or not at all.
- Each pair of neighbours agrees on every packet, except for those that are in
  doubt on either side, and those whose Fulfill was dropped, or late. The
  difference between their accounts is exactly these, each with its value.
- What is in doubt was in flight when its node was killed or its link lost.
"""

import random
from collections.abc import Iterable
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from connector.core import entries, snapshot
from connector.core.accounts import Account, Doubt
from connector.core.chart import Code
from connector.core.entries import Side
from connector.core.transfers import PENDING, POST_PENDING, VOID_PENDING
from connector.ledger.recovery import recover
from connector.ledger.store import Store
from connector.protocol import ilp
from tests.simulation import disk
from tests.simulation.ledgers import Session, all_transfers, check_balances
from tests.simulation.machine import Machine
from tests.simulation.network import NODES
from tests.simulation.people import Payer, Shop
from tests.simulation.wire import Cable, Fate

#: How long after its session a connection may be closed.
_CLOSING_S = 2.5


class Disagreement(msgspec.Struct, frozen=True):
    """A packet that `creditor` holds for fulfilled and `debtor` does not."""

    debtor: str
    creditor: str
    packet_id: bytes
    amount: int
    reason: str


class Packet(msgspec.Struct):
    """A packet as one node's journal tells of it."""

    incoming: str
    outgoing: str
    amount_in: int
    fee: int
    amount_out: int
    #: Whether anything came after PREPARED.
    has_ended: bool = False
    #: Posted without ever having been in doubt.
    is_fulfilled: bool = False
    incoming_side: Side = Side.CLEAR
    outgoing_side: Side = Side.CLEAR


#: A packet that a node never wrote down owes nothing.
_UNKNOWN = Packet("", "", 0, 0, 0)


def packets_of(log: Iterable[tuple[Any, ...]]) -> dict[bytes, Packet]:
    """What became of each packet, read independently of the book."""
    names: list[str] = []
    numbers: dict[int, bytes] = {}
    found: dict[bytes, Packet] = {}
    for entry in log:
        kind, number = entry[0], entry[1]
        if kind == entries.OPENED:
            names.append(entry[3])
        elif kind == entries.PREPARED:
            _, _, _, packet_id, incoming, outgoing, amount_in, fee, amount_out = entry
            assert packet_id not in found, "a packet is taken once"
            numbers[number] = packet_id
            found[packet_id] = Packet(names[incoming], names[outgoing], amount_in, fee, amount_out)
        else:
            _end(found[numbers[number]], entry)
    return found


def _end(packet: Packet, entry: tuple[Any, ...]) -> None:
    kind = entry[0]
    if kind in (entries.FULFILLED, entries.REJECTED, entries.DOUBTED):
        assert not packet.has_ended, "a packet ends once"
        packet.has_ended = True
    if kind == entries.FULFILLED:
        packet.is_fulfilled = True
        packet.incoming_side = packet.outgoing_side = Side.OWED
    elif kind == entries.DOUBTED:
        packet.incoming_side, packet.outgoing_side = Side(entry[3]), Side(entry[4])
    elif kind == entries.UNRELAYED:
        assert packet.incoming_side is Side.OWED
        packet.incoming_side = Side.OPEN
    elif kind == entries.CLOSED:
        side = Side.OWED if entry[4] else Side.CLEAR
        if entry[3] == entries.INCOMING:
            packet.incoming_side = side
        else:
            packet.outgoing_side = side


class Judge:
    """Looks at a world in which everything has come to rest."""

    def __init__(
        self,
        machines: dict[str, Machine],
        payers: dict[str, Payer],
        shops: dict[str, Shop],
        sent: list[tuple[str, int, ilp.Prepare]],
        cables: list[Cable],
    ) -> None:
        self.machines = machines
        self.payers = payers
        self.shops = shops
        self.sent = sent
        self.cables = cables
        self.views = {name: packets_of(machine.entries) for name, machine in machines.items()}

    def judge(self, root: Path) -> list[Disagreement]:
        """Check everything; the disagreements that have an explanation."""
        for name, machine in self.machines.items():
            self._judge_node(machine)
            self._judge_payer(name)
            self._judge_shop(name)
            for packet_id, packet in self.views[name].items():
                if packet.incoming_side is Side.OWED:
                    has_left = any(
                        fate.fulfilled for _, fate in self._fates(packet.incoming, name, packet_id)
                    )
                    assert has_left, f"{name} counts on {packet_id.hex()} and never relayed its fulfill"
            for seen in machine.doubts:
                if not seen.after_crash:
                    for neighbour, _ in seen.sides:
                        self._link_was_lost(name, neighbour, seen.at_s)
        self.judge_books(root, set(NODES))
        found: list[Disagreement] = []
        for left, right in pairwise(NODES):
            found += self._compare(left, right)
        return found

    # --- one node ---

    def _judge_node(self, machine: Machine) -> None:
        forwarder = machine.node.forwarder
        assert forwarder.in_flight == 0, f"{machine.name} has packets in flight"
        for hop in forwarder.hops.values():
            assert not hop.sent, f"{machine.name} waits for {hop.name}"
            assert not hop.received, f"{machine.name} has not answered {hop.name}"
            assert not hop.relayed
            assert hop.held == 0
            assert hop.account.net <= hop.account.credit_limit
        assert not forwarder.book.pending
        for condition, times in machine.resolved.items():
            assert times == 1, f"{machine.name} resolved {condition.hex()} {times} times"

    def judge_books(self, root: Path, names: set[str]) -> None:
        """Book, journal, and ledger of those nodes are one."""
        for name in sorted(names):
            machine = self.machines[name]
            book = machine.node.book
            self._check_accounts(machine)
            life = machine.life
            assert life is not None
            journal, poster = life.journal, life.poster
            assert poster.posted == journal.appended == len(machine.entries), f"{name} has not posted all"
            assert poster._posting is not None
            assert snapshot.dump(poster._posting.book) == snapshot.dump(book)
            session = poster.ledger
            assert isinstance(session, Session)
            legs = poster._posting.legs
            check_balances(session.ledger, legs, list(book.accounts()), f"{name}'s book and ledger:")
            self._check_transfers(machine, session)
            copy = root / f"{name}-copy-{random.getrandbits(64):x}"
            disk.leave(life.state_dir, copy)
            store = Store(copy, book_address(name), "always")
            again = recover(store, 0)
            store.close()
            assert again.doubts == 0, f"{name}: a start would find {again.doubts} packets in doubt"
            assert snapshot.dump(again.book) == snapshot.dump(book)

    def _check_accounts(self, machine: Machine) -> None:
        """The accounts have what the packets come to."""
        for hop in machine.node.forwarder.hops.values():
            net = incoming = outgoing = 0
            for packet in self.views[machine.name].values():
                if packet.incoming == hop.name:
                    net += _value(packet.incoming_side, Side.OWED, packet.amount_in)
                    incoming += _value(packet.incoming_side, Side.OPEN, packet.amount_in)
                if packet.outgoing == hop.name:
                    net -= _value(packet.outgoing_side, Side.OWED, packet.amount_out)
                    outgoing += _value(packet.outgoing_side, Side.OPEN, packet.amount_out)
            account = hop.account
            have = (account.net, account.debits_pending, account.credits_pending)
            assert have == (net, incoming, outgoing), f"{machine.name} {account}"

    def _check_transfers(self, machine: Machine, session: Session) -> None:
        """In the ledger each packet was posted once, if it was fulfilled, and pending legs have one end."""
        posted: dict[bytes, int] = {}
        open_legs: dict[int, int] = {}
        for transfer in all_transfers(session.ledger):
            packet_id = transfer.user_data_128.to_bytes(16, "little")
            if transfer.flags & PENDING:
                open_legs[transfer.id] = transfer.amount
            elif transfer.flags & (POST_PENDING | VOID_PENDING):
                assert open_legs.pop(transfer.pending_id) == transfer.amount
            if transfer.code == Code.PACKET and not transfer.flags & (PENDING | VOID_PENDING):
                assert packet_id not in posted, f"{machine.name} posted {packet_id.hex()} twice"
                posted[packet_id] = transfer.amount
        view = self.views[machine.name]
        assert posted == {each: packet.amount_out for each, packet in view.items() if packet.is_fulfilled}
        doubts = machine.node.book.doubts.values()
        open_sides = sum((doubt.incoming_side, doubt.outgoing_side).count(Side.OPEN) for doubt in doubts)
        assert len(open_legs) == open_sides

    def nothing_is_open(self) -> None:
        """After people have closed what was in doubt."""
        for name, machine in self.machines.items():
            assert not machine.node.book.doubts, name
            for account in machine.node.book.accounts():
                assert account.debits_pending == account.credits_pending == account.doubts == 0, name
        for left, right in pairwise(NODES):
            for debtor, creditor in ((left, right), (right, left)):
                self._packets(debtor, creditor)

    # --- the payer and the shop, whose links only fail with the node ---

    def _judge_payer(self, name: str) -> None:
        payer = self.payers[name]
        for who, request_id, prepare in self.sent:
            if who != name:
                continue
            replies = payer.replies[request_id]
            if not replies and request_id in payer.lost:
                continue
            assert len(replies) == 1, f"{name}'s packet {request_id} has {len(replies)} replies"
            packet_id = prepare.condition[:16]
            side = self.views[name].get(packet_id, _UNKNOWN).incoming_side
            if isinstance(replies[0], ilp.Fulfill):
                assert sha256(replies[0].fulfillment).digest() == prepare.condition
                assert not prepare.amount or side is not Side.CLEAR, "relayed and not booked"
            else:
                assert side is not Side.OWED, "rejected and booked"

    def _judge_shop(self, name: str) -> None:
        shop = self.shops[name]
        sold = {condition[:16]: condition for condition, amount in shop.sold.items() if amount}
        for packet_id, packet in self.views[name].items():
            if packet.outgoing != "shop":
                continue
            condition = sold.get(packet_id)
            if packet.outgoing_side is Side.OWED:
                assert condition is not None, "booked and never sold"
            if packet.outgoing_side is Side.CLEAR and condition is not None:
                # A Fulfill in time counts; this one came at or after the expiry.
                assert shop.sold_ms[condition] >= self.machines[name].deadlines_ms[packet_id]
            if condition is not None:
                assert shop.sold[condition] == packet.amount_out

    # --- two nodes ---

    def _compare(self, left: str, right: str) -> list[Disagreement]:
        """What two neighbours hold for owed differs by what is in doubt and what is explained."""
        found: list[Disagreement] = []
        difference = 0
        for debtor, creditor in ((left, right), (right, left)):
            disagreements, differs = self._packets(debtor, creditor)
            found += disagreements
            difference += differs
        here = self._account(left, right)
        there = self._account(right, left)
        assert here.net + there.net == difference, f"{left} and {right} differ"
        return found

    def _account(self, name: str, neighbour: str) -> Account:
        return self.machines[name].node.forwarder.hops[neighbour].account

    def _packets(self, debtor: str, creditor: str) -> tuple[list[Disagreement], int]:
        """Packets that `debtor` sent to `creditor`, and by how much the creditor holds more for owed."""
        found: list[Disagreement] = []
        difference = 0
        for packet_id, there in self.views[creditor].items():
            if there.incoming != debtor:
                continue
            here = self.views[debtor].get(packet_id)
            assert here is not None, f"{debtor} sent {packet_id.hex()} and did not write it down"
            assert (here.outgoing, here.amount_out) == (creditor, there.amount_in)
            owed = _value(here.outgoing_side, Side.OWED, here.amount_out)
            claimed = _value(there.incoming_side, Side.OWED, there.amount_in)
            difference += claimed - owed
            if owed == claimed or Side.OPEN in (here.outgoing_side, there.incoming_side):
                continue
            assert not owed, f"{packet_id.hex()}: fulfilled at {debtor}, not at {creditor}"
            reason = self._explain(debtor, creditor, packet_id)
            found.append(Disagreement(debtor, creditor, packet_id, claimed, reason))
        for packet_id, here in self.views[debtor].items():
            # Never arrived: nothing is owed, whatever the debtor fears.
            if here.outgoing == creditor and packet_id not in self.views[creditor]:
                assert here.outgoing_side is not Side.OWED, f"{packet_id.hex()}: fulfilled, never arrived"
        return found, difference

    def is_owed(self, name: str, doubt: Doubt, side: int) -> bool:
        """What people find out about a side in doubt: what the neighbour holds, if it knows."""
        account = doubt.incoming if side == entries.INCOMING else doubt.outgoing
        assert account is not None
        if account.name not in self.machines:
            return doubt.number % 2 == 0
        there = self.views[account.name].get(doubt.packet_id, _UNKNOWN)
        theirs = there.outgoing_side if side == entries.INCOMING else there.incoming_side
        # When neither knows, both take the packet's word, so to speak.
        return doubt.packet_id[0] % 2 == 0 if theirs is Side.OPEN else theirs is Side.OWED

    # --- reasons ---

    def _fates(self, asker: str, answerer: str, packet_id: bytes) -> Iterable[tuple[Cable, Fate]]:
        for cable in self.cables:
            if set(cable.ends) == {asker, answerer}:
                for (end, _), fate in cable.fates.items():
                    if end == asker and fate.condition[:16] == packet_id:
                        yield cable, fate

    def _explain(self, debtor: str, creditor: str, packet_id: bytes) -> str:
        """Why the Fulfill that `creditor` sent did not count; fails if nothing explains it."""
        deadline_ms = self.machines[debtor].deadlines_ms[packet_id]
        for cable, fate in self._fates(debtor, creditor, packet_id):
            if not fate.fulfilled:
                continue
            if fate.dropped:
                return "dropped"
            if fate.read_s is not None and fate.read_s * 1000 >= deadline_ms:
                return "late"
            # Had the debtor heard of the connection's end before the expiry, it would be in doubt.
            gone_s = cable.end_of(debtor).gone_s
            if fate.read_s is None and gone_s is not None and gone_s * 1000 >= deadline_ms:
                return "late, and under way when the connection ended"
        raise AssertionError(f"{debtor} got a good Fulfill from {creditor} in time and did not book it")

    def _link_was_lost(self, name: str, neighbour: str, by_s: float) -> None:
        """A connection between them had ended by then."""
        assert any(
            set(cable.ends) == {name, neighbour}
            and cable.ended_s is not None
            and cable.ended_s <= by_s + _CLOSING_S
            for cable in self.cables
        ), f"{name} has a packet in doubt with {neighbour}, and no link was lost"


def _value(side: Side, counted: Side, amount: int) -> int:
    return amount if side is counted else 0


def book_address(name: str) -> str:
    """Whose books a node's journal holds."""
    return f"test.{name}"
