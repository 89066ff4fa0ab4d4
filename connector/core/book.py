"""The book: every balance of this node, in double entry, true while it runs.

An account is seen from our side: debits are what its holder owes us for,
credits what we owe the holder for; `net = debits - credits` is positive when
the holder owes us.

A packet of `amount_in` that leaves as `amount_out` after our `fee`:

    same asset       debit incoming amount_in
                     credit outgoing amount_out, fees fee
    another asset    debit incoming amount_in        debit exchange' amount_out
                     credit exchange amount_in - fee,   credit outgoing' amount_out
                     fees fee

A packet back to where it came from goes over the exchange account, too: no
transfer has one account on both sides.

It is pending from `reserve` until `commit` posts it or `void` takes it back. A
packet whose end nobody knows is in doubt (`doubt`, `unrelayed`): each side that
is open or owed stands against `losses` until `close` decides it.

Every change is also an entry in `log`, for the journal; `apply` makes the same
change from the entry (`replay` those of a batch). So the book can always be
made again, and a second one can follow at a distance.

Invariants: per asset, debits equal credits, posted and pending alike; a
reservation is refused if it would bring `net + pending debits` of the incoming
account over its credit limit; pending sums never go below zero.
"""

from collections.abc import Iterator

from connector.core import entries
from connector.core.accounts import NEVER, Account, AssetAccounts, Doubt, Reservation, Totals
from connector.core.chart import Kind
from connector.core.entries import Side
from connector.core.rates import Asset
from connector.limits import SETTLEMENTS_REMEMBERED_MAX

__all__ = ["Account", "Book", "Doubt", "Reservation", "Settled", "Totals"]

# On the path of every packet.
_pack_prepared, _pack_end = entries.pack_prepared, entries.pack_end
_PREPARED, _FULFILLED = entries.PREPARED, entries.FULFILLED

#: What a settlement was: the account's number, the amount, and whether we paid.
Settled = tuple[int, int, bool]


class Book:
    """The accounts of one node, one per (kind, name, asset), and fees and the like per asset."""

    def __init__(self) -> None:
        #: Entries since the last `take_log`, oldest first.
        self.log: list[bytes] = []
        #: Accounts that reached their settlement threshold, and by which packet; for the caller to take.
        self.reached: list[tuple[Account, Reservation | None]] = []
        #: Packets that came to be in doubt; for the caller to take.
        self.doubted: list[Doubt] = []
        #: Packets on their way, by number.
        self.pending: dict[int, Reservation] = {}
        #: Packets with a side in doubt, by number.
        self.doubts: dict[int, Doubt] = {}
        #: The number of the next packet or settlement.
        self.next_number = 1
        #: Keys of the newest settlements, so that none is booked twice.
        self.settled: dict[bytes, Settled] = {}
        self._accounts: dict[tuple[Kind, str, Asset], Account] = {}
        self._numbered: list[Account] = []
        self._assets: dict[Asset, AssetAccounts] = {}

    def take_log(self) -> list[bytes]:
        """The entries since the last call."""
        log = self.log
        self.log = []
        return log

    # --- accounts ---

    def open(
        self, kind: Kind, name: str, asset: Asset, credit_limit: int = 0, threshold: int | None = None
    ) -> Account:
        """The account of that kind, name and asset, made when it is not there, under these terms."""
        account = self._accounts.get((kind, name, asset))
        if account is None:
            account = self._open(len(self._numbered), kind, name, asset)
            self.log.append(entries.pack_opened(account.number, kind, name, asset))
        account.credit_limit = credit_limit
        account.threshold = NEVER if threshold is None else threshold
        account.arm()
        if account.is_due:
            self.reached.append((account, None))
        return account

    def _open(self, number: int, kind: Kind, name: str, asset: Asset) -> Account:
        if number != len(self._numbered):
            raise entries.CorruptEntry(f"account {number} cannot be opened, {len(self._numbered)} is next")
        own = self._assets.get(asset)
        if own is None:
            own = self._assets[asset] = AssetAccounts(asset)
        account = Account(number, kind, name, asset)
        account.fees, account.exchange = own.fees, own.exchange
        account.settlement, account.losses = own.settlement, own.losses
        self._accounts[kind, name, asset] = account
        self._numbered.append(account)
        return account

    def numbered(self, number: int) -> Account:
        """The holder's account with that number. Raises IndexError."""
        return self._numbered[number]

    def find(self, kind: Kind, name: str) -> list[Account]:
        """Accounts of that kind and name, one for each asset that it was ever kept in."""
        return [account for account in self._numbered if (account.kind, account.name) == (kind, name)]

    def accounts(self) -> Iterator[Account]:
        """Every account: holders' first, then those of each asset."""
        yield from self._numbered
        for own in self._assets.values():
            yield from own

    def totals(self) -> dict[Asset, Totals]:
        """The sums per asset, for the invariant and for people."""
        sums: dict[Asset, list[int]] = {}
        for account in self.accounts():
            row = sums.setdefault(account.asset, [0, 0, 0, 0])
            for index, amount in enumerate(account.balance()):
                row[index] += amount
        return {asset: Totals(*row) for asset, row in sums.items()}

    # --- packets ---

    def reserve(
        self,
        incoming: Account,
        outgoing: Account,
        amount_in: int,
        fee: int,
        amount_out: int,
        packet_id: bytes,
        now_ms: int,
    ) -> Reservation | None:
        """Make a packet's entries pending; None when the credit limit forbids it."""
        held = incoming.debits_pending + amount_in
        if incoming.debits_posted - incoming.credits_posted + held > incoming.credit_limit:
            return None
        assert incoming.exchange is not outgoing.exchange or amount_in == fee + amount_out
        number = self.next_number
        self.log.append(
            _pack_prepared(
                _PREPARED,
                number,
                now_ms,
                packet_id,
                incoming.number,
                outgoing.number,
                amount_in,
                fee,
                amount_out,
            )
        )
        reservation = Reservation(number, now_ms, packet_id, incoming, outgoing, amount_in, fee, amount_out)
        self._reserve(reservation)
        return reservation

    def _reserve(self, reservation: Reservation) -> None:
        number = reservation.number
        self.pending[number] = reservation
        # A book that follows another one may hear of packets in another order.
        if number >= self.next_number:
            self.next_number = number + 1
        incoming, outgoing = reservation.incoming, reservation.outgoing
        amount_in, fee, amount_out = reservation.amount_in, reservation.fee, reservation.amount_out
        incoming.debits_pending += amount_in
        outgoing.credits_pending += amount_out
        incoming.fees.credits_pending += fee
        if incoming.exchange is not outgoing.exchange or incoming is outgoing:
            incoming.exchange.credits_pending += amount_in - fee
            outgoing.exchange.debits_pending += amount_out

    def commit(self, reservation: Reservation, now_ms: int) -> None:
        """Post what was pending: the packet is fulfilled."""
        self.log.append(_pack_end(_FULFILLED, reservation.number, now_ms))
        self._commit(reservation)
        outgoing = reservation.outgoing
        if outgoing.credits_posted - outgoing.debits_posted >= outgoing.trigger:
            self._watch(outgoing, reservation)
        if reservation.incoming.was_reached:
            reservation.incoming.arm()

    def _watch(self, account: Account, reservation: Reservation | None) -> None:
        """We owe more on `account`: tell of it when it reached the threshold."""
        if account.credits_posted - account.debits_posted >= account.trigger:
            account.trigger = NEVER
            account.was_reached = True
            self.reached.append((account, reservation))

    def _commit(self, reservation: Reservation) -> None:
        held = self.pending.pop(reservation.number, None)
        assert held is not None, "a packet ends once"
        incoming, outgoing = reservation.incoming, reservation.outgoing
        amount_in, fee, amount_out = reservation.amount_in, reservation.fee, reservation.amount_out
        assert incoming.debits_pending >= amount_in
        assert outgoing.credits_pending >= amount_out
        incoming.debits_pending -= amount_in
        incoming.debits_posted += amount_in
        outgoing.credits_pending -= amount_out
        outgoing.credits_posted += amount_out
        fees = incoming.fees
        fees.credits_pending -= fee
        fees.credits_posted += fee
        if incoming.exchange is not outgoing.exchange or incoming is outgoing:
            incoming.exchange.credits_pending -= amount_in - fee
            incoming.exchange.credits_posted += amount_in - fee
            outgoing.exchange.debits_pending -= amount_out
            outgoing.exchange.debits_posted += amount_out

    @staticmethod
    def post(incoming: Account, outgoing: Account, amount_in: int, fee: int, amount_out: int) -> None:
        """Post a packet's amounts, with no entry; for books that follow another one."""
        incoming.debits_posted += amount_in
        outgoing.credits_posted += amount_out
        incoming.fees.credits_posted += fee
        if incoming.exchange is not outgoing.exchange or incoming is outgoing:
            incoming.exchange.credits_posted += amount_in - fee
            outgoing.exchange.debits_posted += amount_out

    def void(self, reservation: Reservation, now_ms: int) -> None:
        """Take back what was pending: the packet is rejected or has expired."""
        self.log.append(entries.pack_end(entries.REJECTED, reservation.number, now_ms))
        self._void(reservation)

    def _void(self, reservation: Reservation) -> None:
        held = self.pending.pop(reservation.number, None)
        assert held is not None, "a packet ends once"
        incoming, outgoing = reservation.incoming, reservation.outgoing
        amount_in, fee, amount_out = reservation.amount_in, reservation.fee, reservation.amount_out
        assert incoming.debits_pending >= amount_in
        assert outgoing.credits_pending >= amount_out
        incoming.debits_pending -= amount_in
        outgoing.credits_pending -= amount_out
        incoming.fees.credits_pending -= fee
        if incoming.exchange is not outgoing.exchange or incoming is outgoing:
            incoming.exchange.credits_pending -= amount_in - fee
            outgoing.exchange.debits_pending -= amount_out

    # --- what is in doubt ---

    def doubt(self, reservation: Reservation, incoming: Side, outgoing: Side, now_ms: int) -> None:
        """The packet is over, and a side of it is not known: what is pending stands against losses."""
        self.log.append(entries.pack(entries.DOUBTED, reservation.number, now_ms, incoming, outgoing))
        self.doubted.append(self._doubt(reservation, incoming, outgoing, now_ms))
        self._watch(reservation.outgoing, reservation)

    def _doubt(self, reservation: Reservation, incoming: Side, outgoing: Side, now_ms: int) -> Doubt:
        self._void(reservation)
        doubt = Doubt.of(reservation, incoming, outgoing, now_ms)
        doubt.hold()
        self._keep(doubt)
        return doubt

    def unrelayed(self, reservation: Reservation, now_ms: int) -> None:
        """A Fulfill was booked and did not leave: take the incoming side back, and hold it in doubt."""
        account, amount = reservation.incoming, reservation.amount_in
        self.log.append(
            entries.pack(
                entries.UNRELAYED,
                reservation.number,
                now_ms,
                reservation.packet_id,
                account.number,
                amount,
            )
        )
        doubt = self._unrelayed(reservation.number, now_ms, reservation.packet_id, account, amount)
        self.doubted.append(doubt)

    def _unrelayed(self, number: int, now_ms: int, packet_id: bytes, account: Account, amount: int) -> Doubt:
        account.credits_posted += amount
        account.losses.debits_posted += amount
        doubt = Doubt(number, now_ms, now_ms, packet_id, account, None, amount, 0, Side.OPEN, Side.CLEAR)
        doubt.hold()
        self._keep(doubt)
        return doubt

    def _keep(self, doubt: Doubt) -> None:
        if doubt.is_open:
            self.doubts[doubt.number] = doubt
            doubt.count(1)

    def close(self, number: int, side: int, *, owed: bool, now_ms: int) -> None:
        """Decide an open side (entries.INCOMING or OUTGOING) of what is in doubt. Raises KeyError."""
        doubt = self.doubts[number]
        if doubt.side(side) is not Side.OPEN:
            raise KeyError(number)
        self.log.append(entries.pack(entries.CLOSED, number, now_ms, side, owed))
        self._close(number, side, owed=owed)
        if side == entries.OUTGOING and doubt.outgoing is not None:
            self._watch(doubt.outgoing, None)

    def _close(self, number: int, side: int, *, owed: bool) -> None:
        doubt = self.doubts[number]
        doubt.count(-1)
        doubt.decide(side, owed=owed)
        if doubt.is_open:
            doubt.count(1)
        else:
            del self.doubts[number]

    # --- settlement ---

    def settle(self, account: Account, amount: int, key: bytes, *, by_us: bool, now_ms: int) -> bool:
        """A debt was paid, by us or to us; False when `key` (16 octets) has been booked already."""
        if key in self.settled:
            return False
        number = self.next_number
        self.log.append(entries.pack(entries.SETTLED, number, now_ms, key, account.number, amount, by_us))
        self._settle(number, key, account, amount, by_us=by_us)
        if by_us:
            account.arm()
        else:
            self._watch(account, None)
        return True

    def _settle(self, number: int, key: bytes, account: Account, amount: int, *, by_us: bool) -> None:
        self.next_number = max(self.next_number, number + 1)
        if len(self.settled) >= SETTLEMENTS_REMEMBERED_MAX:
            del self.settled[next(iter(self.settled))]
        self.settled[key] = (account.number, amount, by_us)
        if by_us:
            account.debits_posted += amount
            account.settlement.credits_posted += amount
        else:
            account.credits_posted += amount
            account.settlement.debits_posted += amount

    # --- from entries ---

    def replay(self, octets: bytes) -> None:
        """Make the changes that a batch of entries tells of. Raises CorruptEntry."""
        for entry in entries.decode(octets):
            self.apply(entry)

    def apply(self, entry: tuple) -> Reservation | None:  # type: ignore[type-arg]  # see entries.decode
        """Make the change that an entry tells of; for FULFILLED, what was fulfilled. Raises CorruptEntry."""
        try:
            return self._apply(entry)
        except (LookupError, ValueError, AssertionError) as error:
            raise entries.CorruptEntry(f"entry {entry!r} does not follow from those before it") from error

    def _apply(self, entry: tuple) -> Reservation | None:  # type: ignore[type-arg]
        kind = entry[0]
        if kind == entries.PREPARED:
            _, number, time_ms, packet_id, incoming, outgoing, amount_in, fee, amount_out = entry
            accounts = self._numbered
            self._reserve(
                Reservation(
                    number,
                    time_ms,
                    packet_id,
                    accounts[incoming],
                    accounts[outgoing],
                    amount_in,
                    fee,
                    amount_out,
                )
            )
        elif kind == entries.FULFILLED:
            reservation = self.pending[entry[1]]
            self._commit(reservation)
            return reservation
        elif kind == entries.REJECTED:
            self._void(self.pending[entry[1]])
        elif kind == entries.OPENED:
            self._open(*entry[1:])
        elif kind == entries.DOUBTED:
            _, number, time_ms, incoming, outgoing = entry
            self._doubt(self.pending[number], Side(incoming), Side(outgoing), time_ms)
        elif kind == entries.UNRELAYED:
            _, number, time_ms, packet_id, account, amount = entry
            self._unrelayed(number, time_ms, packet_id, self._numbered[account], amount)
        elif kind == entries.CLOSED:
            self._close(entry[1], entry[3], owed=bool(entry[4]))
        else:
            _, number, _, key, account, amount, by_us = entry
            self._settle(number, key, self._numbered[account], amount, by_us=bool(by_us))
        return None
