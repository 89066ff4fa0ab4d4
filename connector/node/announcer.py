"""What happens in the books, as events and log lines."""

from collections.abc import Callable

import trio
from loguru import logger

from connector.core import entries
from connector.core.accounts import NEVER, Account, Doubt, Reservation
from connector.core.book import Book
from connector.core.chart import Kind
from connector.core.entries import Side
from connector.core.events import (
    AccountBalance,
    AssetName,
    LedgerStatus,
    PacketInDoubt,
    SettlementTriggered,
)
from connector.core.evidence import evidence
from connector.core.rates import Asset
from connector.limits import BALANCE_INTERVAL_S, BALANCE_SLICE_ACCOUNTS, DOUBTS_LOGGED_MAX
from connector.telemetry.events import Events


class Announcer:
    """Speaks for one node's books."""

    def __init__(
        self, node: str, book: Book, ledger_status: Callable[[], LedgerStatus], events: Events
    ) -> None:
        self._node = node
        self._book = book
        self._ledger_status = ledger_status
        self._events = events

    def reached(self, account: Account, held: Reservation | None) -> None:
        """We owe the holder of `account` so much that it is time to pay; `held` is the packet that did it."""
        event = SettlementTriggered(
            peer=account.name,
            asset=_asset(account.asset),
            debits=str(account.debits_posted),
            credits=str(account.credits_posted),
            net=str(account.net),
            threshold=str(account.threshold),
            trigger=None if held is None else held.packet_id.hex(),
        )
        bound = logger.bind(
            node=self._node,
            peer=account.name,
            packet=event.trigger,
            asset=str(account.asset),
            debits=event.debits,
            credits=event.credits,
            net=event.net,
            threshold=event.threshold,
        )
        bound.info("settlement is due: we owe {} units of {}", -account.net, account.asset)
        self._events.emit(event)

    def doubted(self, doubts: list[Doubt]) -> None:
        """Packets came to be in doubt."""
        # Thousands may come at once: what nobody hears is not made.
        for index, doubt in enumerate(doubts if self._events else doubts[:DOUBTS_LOGGED_MAX]):
            for event in in_doubt(doubt):
                if index < DOUBTS_LOGGED_MAX:
                    bound = logger.bind(
                        node=self._node,
                        peer=event.peer,
                        packet=event.packet,
                        side=event.side,
                        amount=event.amount,
                        asset=f"{event.asset.code}/{event.asset.scale}",
                        since_ms=event.since_ms,
                    )
                    bound.warning("packet {} in doubt, {} side: {}", doubt.number, event.side, event.evidence)
                self._events.emit(event)
        if len(doubts) > DOUBTS_LOGGED_MAX:
            logger.bind(node=self._node).warning(
                "{} packets more in doubt: 'connector accounts in-doubt' lists them",
                len(doubts) - DOUBTS_LOGGED_MAX,
            )

    def ledger_changed(self) -> None:
        """The ledger went, came, fell too far behind or caught up; `Books` has logged it."""
        if self._events:
            self._events.emit(self._ledger_status())

    async def run(self) -> None:
        """Tell of balances that changed, while somebody listens; never returns."""
        while True:
            await self._events.wait_subscribed()
            # Whoever listens first has a snapshot of balances from elsewhere, or asks for one.
            told = {account: account.balance() for account in self._book.accounts()}
            while self._events:
                await trio.sleep(BALANCE_INTERVAL_S)
                for index, account in enumerate(list(self._book.accounts())):
                    if index % BALANCE_SLICE_ACCOUNTS == 0:
                        await trio.lowlevel.checkpoint()
                    balance = account.balance()
                    if told.get(account) != balance:
                        told[account] = balance
                        if account.kind in (Kind.PEER, Kind.LOCAL):
                            self._events.emit(account_balance(account))


def account_balance(account: Account) -> AccountBalance:
    """The balance of a holder's account as it is now."""
    return AccountBalance(
        peer=account.name,
        kind="peer" if account.kind is Kind.PEER else "local",
        asset=_asset(account.asset),
        debits=str(account.debits_posted),
        credits=str(account.credits_posted),
        debits_pending=str(account.debits_pending),
        credits_pending=str(account.credits_pending),
        net=str(account.net),
        credit_limit=str(account.credit_limit),
        settle_threshold=None if account.threshold == NEVER else str(account.threshold),
        settlement="due" if account.is_due else "none",
    )


def in_doubt(doubt: Doubt) -> list[PacketInDoubt]:
    """An event for each side that is open."""
    sides = []
    for side, account, amount in (
        (entries.INCOMING, doubt.incoming, doubt.amount_in),
        (entries.OUTGOING, doubt.outgoing, doubt.amount_out),
    ):
        if account is not None and doubt.side(side) is Side.OPEN:
            sides.append(
                PacketInDoubt(
                    packet=doubt.packet_id.hex(),
                    peer=account.name,
                    side="incoming" if side == entries.INCOMING else "outgoing",
                    amount=str(amount),
                    asset=_asset(account.asset),
                    since_ms=doubt.since_ms,
                    evidence=evidence(doubt),
                )
            )
    return sides


def _asset(asset: Asset) -> AssetName:
    return AssetName(asset.code, asset.scale)
