"""Legs: the transfers that a ledger gets for what happens to a packet.

A transfer's id is (time, journal, number, slot): ordered by time as
TigerBeetle likes it, never made twice, and known again when its packet ends.
`user_data_128` is the packet's id, `user_data_64` the event's own time (wall,
ms), `user_data_32` the low bits of the id of the account that the packet went
to. The legs of a packet are linked: all or none.
"""

from struct import Struct
from typing import Final

from connector.core import entries
from connector.core.accounts import Account, Doubt, Reservation
from connector.core.chart import WITH_HISTORY, Code, account_id, ledger_number
from connector.core.entries import Side
from connector.core.transfers import LINKED, PENDING, POST_PENDING, TRANSFER_BYTES, VOID_PENDING
from connector.limits import PAIRS_REMEMBERED_MAX, U64_MAX

#: TigerBeetle's transfer with ids as pairs of words: id low, id high, debit, credit, amount low, amount
#: high, pending id low, high, user_data_128, _64, _32, timeout, ledger, code, flags, timestamp.
_LAYOUT: Final = Struct("<QQ16s16sQQQQ16sQIIIHHQ")
assert _LAYOUT.size == TRANSFER_BYTES
_pack = _LAYOUT.pack

#: As much of a packet's number as an id holds: with its time, more than enough.
_NUMBER = (1 << 40) - 1

# Slots: which of a packet's transfers an id names. The low two bits are a leg's index, 0 to 2.
_PENDING = 0
_END = 4
_DIRECT = 8
_DOUBT = 12  # and 13 for the outgoing side
_DECISION = 14  # and 15
_CORRECTION = 16
_SETTLEMENT = 17


class LedgerSide:
    """What a ledger knows of an account."""

    __slots__ = ("code", "has_history", "id", "ledger", "octets", "tag")

    def __init__(self, node: str, account: Account) -> None:
        self.id = account_id(node, account.kind, account.name, account.asset)
        self.octets = self.id.to_bytes(16, "little")
        self.ledger = ledger_number(account.asset)
        self.code = int(account.kind)
        self.tag = self.id & 0xFFFF_FFFF
        self.has_history = account.kind in WITH_HISTORY


class Legs:
    """Makes transfers, in octets, for one node and journal."""

    def __init__(self, node: str, journal_id: int) -> None:
        self.node = node
        #: The journal's part of ids.
        self.high = (journal_id >> 16) & 0xFFFF
        self.low = (journal_id & 0xFFFF) << 48
        self._sides: dict[Account, LedgerSide] = {}
        self._pairs: dict[tuple[Account, Account], Pair] = {}

    def side(self, account: Account) -> LedgerSide:
        """What the ledger knows of `account`."""
        side = self._sides.get(account)
        if side is None:
            side = self._sides[account] = LedgerSide(self.node, account)
        return side

    def _transfer(
        self,
        time_ms: int,
        number: int,
        slot: int,
        debit: Account,
        credit: Account,
        amount: int,
        code: int,
        flags: int,
        event_ms: int,
        packet_id: bytes,
        tag: int,
        ends: int = -1,
    ) -> bytes:
        """One transfer; `ends` is the slot of the pending one that it posts or voids."""
        high = time_ms << 16 | self.high
        low = self.low | (number & _NUMBER) << 8
        debited = self.side(debit)
        return _pack(
            low | slot,
            high,
            debited.octets,
            self.side(credit).octets,
            amount & U64_MAX,
            amount >> 64,
            0 if ends < 0 else low | ends,
            0 if ends < 0 else high,
            packet_id,
            event_ms,
            tag,
            0,
            debited.ledger,
            code,
            flags,
            0,
        )

    def pair(self, incoming: Account, outgoing: Account) -> "Pair":
        """What all packets from `incoming` to `outgoing` have in common."""
        key = (incoming, outgoing)
        pair = self._pairs.get(key)
        if pair is None:
            if len(self._pairs) >= PAIRS_REMEMBERED_MAX:
                self._pairs.clear()
            pair = self._pairs[key] = Pair(self, incoming, outgoing)
        return pair

    def pending(self, out: list[bytes], held: Reservation) -> None:
        """A packet is on its way: its legs are pending."""
        self._packet(out, held, held.time_ms, _PENDING, PENDING)

    def end(self, out: list[bytes], held: Reservation, event_ms: int, *, post: bool) -> None:
        """Post or void the pending legs of a packet."""
        self._packet(out, held, event_ms, _END, POST_PENDING if post else VOID_PENDING)

    def _packet(self, out: list[bytes], held: Reservation, event_ms: int, slot: int, flags: int) -> None:
        self.pair(held.incoming, held.outgoing).legs(
            out,
            held.number,
            held.time_ms,
            held.packet_id,
            (held.amount_in, held.fee, held.amount_out),
            event_ms,
            slot,
            flags,
        )

    def doubted(
        self, out: list[bytes], held: Reservation, incoming: Side, outgoing: Side, time_ms: int
    ) -> None:
        """A packet is over, and its sides are in doubt or owed; its legs have been voided."""
        doubt = Doubt.of(held, incoming, outgoing, time_ms)
        for side, known in ((entries.INCOMING, incoming), (entries.OUTGOING, outgoing)):
            if known is not Side.CLEAR:
                self.stand(out, doubt, side, time_ms, is_open=known is Side.OPEN)

    def unrelayed(self, out: list[bytes], doubt: Doubt) -> None:
        """Take back what was posted for the incoming side, and hold it pending; both or none."""
        account = doubt.incoming
        out.append(
            self._transfer(
                doubt.time_ms,
                doubt.number,
                _CORRECTION,
                account.losses,
                account,
                doubt.amount_in,
                Code.DOUBT,
                LINKED,
                doubt.since_ms,
                doubt.packet_id,
                self.side(account).tag,
            )
        )
        self.stand(out, doubt, entries.INCOMING, doubt.since_ms, is_open=True)

    def stand(self, out: list[bytes], doubt: Doubt, side: int, event_ms: int, *, is_open: bool) -> None:
        """A side in doubt stands against losses: pending while it is open, posted when it is owed."""
        self._against_losses(out, doubt, side, _DOUBT + side, PENDING if is_open else 0, event_ms)

    def closed(self, out: list[bytes], doubt: Doubt, time_ms: int, side: int, *, owed: bool) -> None:
        """An open side was decided."""
        flags = POST_PENDING if owed else VOID_PENDING
        self._against_losses(out, doubt, side, _DECISION + side, flags, time_ms, _DOUBT + side)

    def _against_losses(
        self, out: list[bytes], doubt: Doubt, side: int, slot: int, flags: int, event_ms: int, ends: int = -1
    ) -> None:
        if side == entries.INCOMING:
            account, amount = doubt.incoming, doubt.amount_in
            debit, credit = account, account.losses
        else:
            assert doubt.outgoing is not None
            account, amount = doubt.outgoing, doubt.amount_out
            debit, credit = account.losses, account
        tag = self.side(account).tag
        number, packet_id = doubt.number, doubt.packet_id
        out.append(
            self._transfer(
                doubt.time_ms,
                number,
                slot,
                debit,
                credit,
                amount,
                Code.DOUBT,
                flags,
                event_ms,
                packet_id,
                tag,
                ends,
            )
        )

    def settled(
        self,
        out: list[bytes],
        account: Account,
        number: int,
        time_ms: int,
        key: bytes,
        amount: int,
        *,
        by_us: bool,
    ) -> None:
        """A debt was paid by other means."""
        debit, credit = (account, account.settlement) if by_us else (account.settlement, account)
        tag = self.side(account).tag
        out.append(
            self._transfer(
                time_ms,
                number,
                _SETTLEMENT,
                debit,
                credit,
                amount,
                Code.SETTLEMENT,
                0,
                time_ms,
                key,
                tag,
            )
        )


class Pair:
    """Packets from one account to another: what is the same for all of them, worked out once."""

    __slots__ = ("_crosses", "_high", "_legs", "_low", "_tag", "incoming", "outgoing")

    def __init__(self, legs: Legs, incoming: Account, outgoing: Account) -> None:
        self.incoming = incoming
        self.outgoing = outgoing
        self._high, self._low = legs.high, legs.low
        self._tag = legs.side(outgoing).tag
        # A ledger takes no transfer from an account to itself.
        self._crosses = incoming.exchange is not outgoing.exchange or incoming is outgoing
        main = [(incoming, outgoing, Code.PACKET)]
        if self._crosses:
            main = [(incoming, incoming.exchange, Code.EXCHANGE), (outgoing.exchange, outgoing, Code.PACKET)]
        #: Debit, credit, ledger and code of each leg; the fee's is the last.
        self._legs = [
            (legs.side(debit).octets, legs.side(credit).octets, legs.side(debit).ledger, int(code))
            for debit, credit, code in (*main, (incoming, incoming.fees, Code.FEE))
        ]

    def count(self, fee: int) -> int:
        """How many legs a packet has."""
        return len(self._legs) - (not fee)

    def direct(self, out: list[bytes], entry: tuple, event_ms: int) -> None:  # type: ignore[type-arg]
        """A packet was fulfilled before the ledger heard of it: its legs are posted at once.

        `entry` is the PREPARED entry.
        """
        _, number, time_ms, packet_id, _, _, amount_in, fee, amount_out = entry
        self.legs(out, number, time_ms, packet_id, (amount_in, fee, amount_out), event_ms, _DIRECT, 0)

    def legs(
        self,
        out: list[bytes],
        number: int,
        time_ms: int,
        packet_id: bytes,
        amounts: tuple[int, int, int],
        event_ms: int,
        slot: int,
        flags: int,
    ) -> None:
        """The legs of a packet, linked. `amounts`: in, fee, out. Those that end others name them."""
        amount_in, fee, amount_out = amounts
        each = (amount_in - fee, amount_out, fee) if self._crosses else (amount_out, fee)
        last = len(each) - 1 if fee else len(each) - 2
        high = time_ms << 16 | self._high
        low = self._low | (number & _NUMBER) << 8
        ends = flags & (POST_PENDING | VOID_PENDING)
        for index, (debit, credit, ledger, code) in enumerate(self._legs):
            out.append(
                _pack(
                    low | slot + index,
                    high,
                    debit,
                    credit,
                    each[index],
                    0,
                    low | _PENDING + index if ends else 0,
                    high if ends else 0,
                    packet_id,
                    event_ms,
                    self._tag,
                    0,
                    ledger,
                    code,
                    flags | LINKED if index < last else flags,
                    0,
                )
            )
            if index == last:
                return
