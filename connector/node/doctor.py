"""The doctor: examines the books of a running node, and changes nothing.

Posting pauses while ledger and book are compared, packets do not: whatever
takes long is done in slices. `repair` is the one operation that changes
something: it voids what is pending in the ledger and known to nobody.
"""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import trio
from loguru import logger

from connector.core import snapshot
from connector.core.accounts import Account
from connector.core.chart import Kind, account_id, node_number
from connector.core.posting import Posting
from connector.core.rates import Asset
from connector.core.transfers import Transfer, unpack
from connector.errors import Unavailable
from connector.ledger import orphans
from connector.ledger.api import Ledger, LedgerAccount
from connector.limits import BALANCE_SLICE_ACCOUNTS, BOOKING_TIMEOUT_S, DOCTOR_ENTRIES_MAX
from connector.node import diagnosis
from connector.node.books import Books
from connector.node.diagnosis import Check, PeerAnswer, Report, Standing

AskPeers = Callable[[], Awaitable[list[PeerAnswer]]]


class Orphan(msgspec.Struct, frozen=True):
    """A transfer that is pending in the ledger, and that nobody will end."""

    transfer: str
    packet: str
    amount: str
    debit: str
    credit: str
    time_ms: int


class Repaired(msgspec.Struct, frozen=True):
    """What a repair has voided."""

    voided: list[Orphan]


async def ask_nobody() -> list[PeerAnswer]:
    """For nodes whose peers cannot be asked."""
    return []


class Doctor:
    """Examines one node."""

    def __init__(self, name: str, address: str, books: Books, now_ms: Callable[[], int], ask_peers: AskPeers):
        self.name = name
        self.address = address
        self._books = books
        self._now_ms = now_ms
        self._ask_peers = ask_peers

    async def examine(self) -> Report:
        """Look at everything."""
        books = self._books
        checks = [diagnosis.totals(books.book), *await self._compare(), *await self._journal()]
        checks.append(diagnosis.doubts(books.book.doubts.values()))
        checks += await self._peers()
        return Report(self.name, all(check.result != "error" for check in checks), checks)

    # --- journal and ledger ---

    async def _compare(self) -> list[Check]:
        poster = self._books.poster
        if poster is None:
            return []
        checks: list[Check] = []

        async def look(ledger: Ledger | None, posting: Posting) -> None:
            checks.append(await self._replayed(posting))
            if ledger is not None:
                checks.extend(await self._ledger(ledger, posting))

        try:
            await poster.compare(look)
        except Unavailable as error:
            checks.append(self._away(str(error)))
        else:
            if len(checks) == 1:
                checks.append(self._away(self._books.ledger_status().reason or "it has not answered yet"))
        return checks

    def _away(self, reason: str) -> Check:
        poster = self._books.poster
        assert poster is not None
        if poster.alarm:
            advice = "Nothing is posted until this is seen to; packets flow, under the configured bounds."
            return Check("ledger", "error", poster.alarm, advice)
        advice = f"Everything is posted when it returns; {poster.unposted} entries wait."
        return Check("ledger", "warning", f"cannot be compared: {reason}", advice)

    async def _replayed(self, posting: Posting) -> Check:
        """The book as the journal tells it."""
        name = "book equals ledger and journal"
        poster, journal, book = self._books.poster, self._books.journal, self._books.book
        assert poster is not None
        assert journal is not None
        # One moment: nothing is awaited between these.
        assert not book.log, "what is in the book has been given to the journal"
        taken, appended = poster.taken, journal.appended
        live = [(account, account.balance()) for account in book.accounts()]
        held = set(book.pending), set(book.doubts)
        if appended - taken > DOCTOR_ENTRIES_MAX:
            explanation = f"{appended - taken} entries wait for the ledger, too many to replay"
            return Check(name, "warning", explanation, "Look again when the ledger has caught up.")
        with trio.move_on_after(BOOKING_TIMEOUT_S) as scope:
            await journal.wait_durable(appended)
        if scope.cancelled_caught:
            return Check(name, "warning", "the journal is not written at the moment", "See its own check.")
        # With many accounts this takes a while. Nothing is posted meanwhile, so that the book stays as it is.
        replayed = await trio.to_thread.run_sync(lambda: snapshot.load(snapshot.dump(posting.book)))
        await poster.replay(replayed, taken, appended)
        unposted = appended - poster.posted
        return await trio.to_thread.run_sync(diagnosis.journal_equals, live, replayed, held, unposted)

    async def _ledger(self, ledger: Ledger, posting: Posting) -> list[Check]:
        accounts = list(posting.book.accounts())
        rows = await self._rows(ledger, posting, accounts)
        unknown = [
            row
            for row in await ledger.query_accounts(
                user_data_128=node_number(self.address), code=0, limit=ledger.batch_max
            )
            if row.id not in rows and row.code != Kind.JOURNAL
        ]
        pairs = [(account, rows.get(posting.legs.side(account).id)) for account in accounts]
        checks = [
            diagnosis.ledger_equals(pairs),
            diagnosis.ledger_balances(rows.values(), unknown),
        ]
        differing = [row for account, row in pairs if row is not None and _pending_differs(account, row)]
        if differing:
            checks.append(await self._orphans(ledger, posting, differing))
        return checks

    async def _rows(
        self, ledger: Ledger, posting: Posting, accounts: list[Account]
    ) -> dict[int, LedgerAccount]:
        """The ledger's accounts that we know of, by id."""
        ids = []
        for index, account in enumerate(accounts):
            ids.append(posting.legs.side(account).id)
            if index % BALANCE_SLICE_ACCOUNTS == 0:
                await trio.lowlevel.checkpoint()
        ids += [
            account_id(self.address, Kind.OPENING, "opening", asset)
            for asset in {account.asset for account in accounts}
        ]
        return {row.id: row for row in await ledger.lookup_accounts(ids)}

    async def _orphans(self, ledger: Ledger, posting: Posting, rows: list[LedgerAccount]) -> Check:
        search = await orphans.find(ledger, rows, _known(posting))
        if not search.orphans:
            return Check("orphans", "ok", "nothing is pending that no book knows")
        shown = "; ".join(
            f"packet {each.packet}: {each.amount}, {each.debit} to {each.credit}"
            for each in describe_orphans(posting, search.orphans[:5])
        )
        more = "" if search.is_complete else ", and perhaps more"
        return Check(
            "orphans",
            "error",
            f"{len(search.orphans)} transfers are pending in the ledger that no book knows{more}: {shown}",
            "Void them: 'connector ledger repair'.",
        )

    async def repair(self) -> Repaired:
        """Void every orphan. Raises Unavailable."""
        poster = self._books.poster
        if poster is None:
            raise Unavailable("this node keeps no ledger (journal.sync is off)")
        voided: list[Orphan] = []

        async def look(ledger: Ledger | None, posting: Posting) -> None:
            if ledger is None:
                raise Unavailable(f"the ledger is away: {self._books.ledger_status().reason}")
            accounts = list(posting.book.accounts())
            rows = await self._rows(ledger, posting, accounts)
            pairs = [(account, rows.get(posting.legs.side(account).id)) for account in accounts]
            differing = [row for account, row in pairs if row is not None and _pending_differs(account, row)]
            search = await orphans.find(ledger, differing, _known(posting))
            await orphans.void(ledger, search.orphans, self._now_ms())
            voided.extend(describe_orphans(posting, search.orphans))

        await poster.compare(look)
        if voided:
            logger.bind(node=self.name).warning("{} orphans were voided in the ledger", len(voided))
        return Repaired(voided)

    # --- the rest ---

    async def _journal(self) -> list[Check]:
        journal = self._books.journal
        if journal is None:
            advice = 'Set journal.sync = "always": this is for measuring, never for money.'
            return [Check("journal", "warning", "is off: balances end with this process", advice)]
        path = journal.store.path
        size, free = await trio.to_thread.run_sync(_room, path)
        return diagnosis.journal_health(self._books.config.journal.sync, journal.failure, size, free)

    async def _peers(self) -> list[Check]:
        before = self._standings()
        answers = await self._ask_peers()
        after = self._standings()
        checks = []
        for answer in answers:
            key = (answer.peer, answer.asset)
            if key not in after:
                explanation = f"keeps {answer.asset} with us, and we no account in that with it"
                advice = "Both sides of a link configure the same asset."
                checks.append(Check(f"peer {answer.peer}", "error", answer.error or explanation, advice))
            else:
                checks.append(diagnosis.peer_agrees(answer, before.get(key, after[key]), after[key]))
        return checks

    def _standings(self) -> dict[tuple[str, Asset], Standing]:
        return {
            (account.name, account.asset): Standing(account.balance())
            for account in self._books.book.accounts()
            if account.kind is Kind.PEER
        }


def _known(posting: Posting) -> set[int]:
    """The ids of all that is pending by right."""
    return {transfer.id for transfer in unpack(b"".join(posting.held()))}


def _pending_differs(account: Account, row: LedgerAccount) -> bool:
    return (account.debits_pending, account.credits_pending) != (row.debits_pending, row.credits_pending)


def describe_orphans(posting: Posting, found: list[Transfer]) -> list[Orphan]:
    """Orphans with the names of their accounts."""
    names = {
        posting.legs.side(account).id: (
            f"{account.kind.word} {account.name}" if account.kind in (Kind.PEER, Kind.LOCAL) else account.name
        )
        for account in posting.book.accounts()
    }
    return [
        Orphan(
            f"{each.id:032x}",
            each.user_data_128.to_bytes(16, "little").hex(),
            str(each.amount),
            names.get(each.debit_account_id, f"{each.debit_account_id:032x}"),
            names.get(each.credit_account_id, f"{each.credit_account_id:032x}"),
            each.user_data_64,
        )
        for each in found
    ]


def _room(path: Path) -> tuple[int, int]:
    """The size of the journal, and the room beside it. Blocking."""
    size = 0
    for suffix in ("", "-wal"):
        try:
            size += Path(f"{path}{suffix}").stat().st_size
        except FileNotFoundError:
            pass
    there = os.statvfs(path.parent)
    return size, there.f_bavail * there.f_frsize
