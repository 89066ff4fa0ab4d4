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
from connector.limits import U64_MAX

#: TigerBeetle's transfer with ids as pairs of words: id low, id high, debit, credit, amount low, amount
#: high, pending id low, high, user_data_128, _64, _32, timeout, ledger, code, flags, timestamp.
_LAYOUT: Final = Struct("<QQ16s16sQQQQ16sQIIIHHQ")
assert _LAYOUT.size == TRANSFER_BYTES

# Slots: which of a packet's transfers an id names. A leg adds its index, 0 to 2.
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
        self._high = (journal_id >> 16) & 0xFFFF
        self._low = (journal_id & 0xFFFF) << 48
        self._sides: dict[Account, LedgerSide] = {}

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
        high = time_ms << 16 | self._high
        low = self._low | (number & 0xFF_FFFF_FFFF) << 8
        debited = self.side(debit)
        return _LAYOUT.pack(
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

    def pending(self, out: list[bytes], held: Reservation) -> None:
        """A packet is on its way: its legs are pending."""
        self._packet(out, held, held.time_ms, _PENDING, PENDING)

    def direct(self, out: list[bytes], held: Reservation, event_ms: int) -> None:
        """A packet was fulfilled before the ledger heard of it: its legs are posted at once."""
        self._packet(out, held, event_ms, _DIRECT, 0)

    def end(self, out: list[bytes], held: Reservation, event_ms: int, *, post: bool) -> None:
        """Post or void the pending legs of a packet."""
        self._packet(out, held, event_ms, _END, POST_PENDING if post else VOID_PENDING, ends=True)

    def _packet(
        self,
        out: list[bytes],
        held: Reservation,
        event_ms: int,
        slot: int,
        flags: int,
        *,
        ends: bool = False,
    ) -> None:
        """The legs of a packet; those that end others name them."""
        legs = _amounts(held)
        tag = self.side(held.outgoing).tag
        last = len(legs) - 1
        for index, (debit, credit, amount, code) in enumerate(legs):
            out.append(
                self._transfer(
                    held.time_ms,
                    held.number,
                    slot + index,
                    debit,
                    credit,
                    amount,
                    code,
                    flags | LINKED if index < last else flags,
                    event_ms,
                    held.packet_id,
                    tag,
                    _PENDING + index if ends else -1,
                )
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


def legs_of(held: Reservation) -> int:
    """How many legs a packet has."""
    crosses = held.incoming.exchange is not held.outgoing.exchange
    return 1 + crosses + (held.fee > 0)


def _amounts(held: Reservation) -> list[tuple[Account, Account, int, Code]]:
    """The legs of a packet: debit, credit, amount, code."""
    incoming, outgoing = held.incoming, held.outgoing
    if incoming.exchange is outgoing.exchange:
        legs = [(incoming, outgoing, held.amount_out, Code.PACKET)]
    else:
        legs = [
            (incoming, incoming.exchange, held.amount_in - held.fee, Code.EXCHANGE),
            (outgoing.exchange, outgoing, held.amount_out, Code.PACKET),
        ]
    if held.fee:
        legs.append((incoming, incoming.fees, held.fee, Code.FEE))
    return legs
