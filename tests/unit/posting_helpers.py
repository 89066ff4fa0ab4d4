"""An office: a cashier's entries, the journal on a disk, and a poster with a ledger that fails as told."""

import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import trio

from connector.core import snapshot
from connector.core.legs import Legs
from connector.core.transfers import unpack
from connector.errors import Unavailable
from connector.ledger.api import Ledger, LedgerAccount
from connector.ledger.attach import ForeignLedger
from connector.ledger.embedded import open_embedded
from connector.ledger.journal import Journal
from connector.ledger.outcome import LedgerRefusal
from connector.ledger.poster import Poster
from connector.ledger.store import Store
from tests.unit.books_helpers import NODE, Cashier, in_place


class Flaky:
    """A ledger in front of a good one: it fails before or after call number `fails_at`."""

    def __init__(self, ledger: Ledger, office: "Office") -> None:
        self._ledger = ledger
        self._office = office

    @property
    def batch_max(self) -> int:
        return self._office.batch_max

    async def create_transfers(self, events: bytes) -> Sequence[int]:
        office = self._office
        assert len(events) <= 128 * self.batch_max
        office.sent.append(events)
        statuses: Sequence[int] = await office.call(
            lambda: self._ledger.create_transfers(office.forge(events))
        )
        await office.on_request()
        return statuses

    async def aclose(self) -> None:
        await self._ledger.aclose()

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._ledger, name)
        return lambda *args, **named: self._office.call(lambda: method(*args, **named))


class Office:
    """One node's journal and ledger; `crash` and `start` are its lives."""

    def __init__(self, directory: Path, ledger: Path | None = None, *, fills_empty: bool = True) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self.ledger_path = ledger or directory / "ledger.sqlite3"
        self.cashier = Cashier()
        self.book = self.cashier.book
        self.batch_max = 8
        self.fills_empty = fills_empty
        #: Every request of transfers, answered or not.
        self.sent: list[bytes] = []
        self.calls = 0
        self.fails_at = -1
        self.fails_after = False
        self.outages = 0
        #: How often the ledger was found to be ours.
        self.recognised = 0
        self.forge: Callable[[bytes], bytes] = lambda events: events
        self.on_request: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
        self.start()

    def start(self) -> None:
        """A process begins."""
        self.store = Store(self.directory / "journal", NODE, "always")
        self.journal = Journal(
            self.store, self.store.last(), in_place, sync="always", snapshot=lambda: snapshot.dump(self.book)
        )

        def on_posting() -> None:
            self.recognised += 1

        self.poster = Poster(
            NODE,
            self.journal,
            self.open_ledger,
            in_place,
            fills_empty=self.fills_empty,
            on_posting=on_posting,
        )

    def crash(self) -> None:
        """A process ends."""
        self.store.close()

    async def open_ledger(self) -> Ledger:
        await self.call(trio.lowlevel.checkpoint)
        return Flaky(await open_embedded(self.ledger_path, run_blocking=in_place), self)  # type: ignore[return-value]

    async def call(self, function: Callable[[], Awaitable[Any]]) -> Any:
        """Have it done, unless this is the call that fails."""
        self.calls += 1
        if self.calls - 1 != self.fails_at:
            return await function()
        if self.fails_after:
            await function()
        raise Unavailable("the ledger went away")

    # --- what there is to post ---

    def packets(self, count: int, *, ends: str = "") -> None:
        """Packets between the first two, in flight or ended."""
        for _ in range(count):
            self.cashier.step("reserve", 3, 1, 40)
            if ends:
                self.cashier.step(ends, len(self.book.pending) - 1, 4, 0)

    def end_all(self, how: str) -> None:
        """End whatever is in flight."""
        for _ in range(len(self.book.pending)):
            self.cashier.step(how, 0, 4, 0)

    async def post(self, *, retries: bool = True, checkpoints: bool = False) -> None:
        """Run until all is posted; without `retries`, until an outage. Raises what stops the posting.

        `checkpoints`: run until a checkpoint holds it all, too.
        """
        stopped: list[Unavailable] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.journal.run)
            log = self.book.take_log()
            if log:
                self.journal.append(log, lambda: None)
                await self.journal.wait_durable(self.journal.appended)
            posted = trio.CancelScope()

            async def wait() -> None:
                while self.poster.unposted:
                    await self.poster.wait_posted(self.journal.appended)
                while checkpoints and self.journal._ledger_last < self.journal.appended:  # noqa: ASYNC110 - untold
                    await trio.sleep(0.01)
                posted.cancel()

            nursery.start_soon(wait)
            with posted:
                while True:
                    try:
                        await self.poster.run()
                    except (ForeignLedger, LedgerRefusal) as error:
                        stopped.append(error)
                        break
                    except Unavailable:
                        self.outages += 1
                        if not retries:
                            break
            nursery.cancel_scope.cancel()
        if stopped:
            raise stopped[0]

    # --- what must be so ---

    async def check(self) -> None:
        """The ledger holds the book, and what was sent again was sent as it was."""
        ledger = await open_embedded(self.ledger_path, run_blocking=in_place)
        legs = Legs(NODE, self.store.journal_id)
        accounts = list(self.book.accounts())
        ids = [legs.side(account).id for account in accounts]
        found: dict[int, LedgerAccount] = {each.id: each for each in await ledger.lookup_accounts(ids)}
        await ledger.aclose()
        for account, ident in zip(accounts, ids, strict=True):
            row = found[ident]
            there = (row.debits_posted, row.credits_posted, row.debits_pending, row.credits_pending)
            assert there == account.balance(), account
        seen: dict[int, bytes] = {}
        for request in self.sent:
            for transfer in unpack(request):
                assert seen.setdefault(transfer.id, request) == request

    def keep_copy(self) -> Path:
        """A backup of the ledger."""
        copy = self.directory / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        for file in self._files():
            shutil.copy(file, copy)
        return copy

    def restore(self, copy: Path) -> None:
        """Put a backup of the ledger in its place."""
        self.wipe()
        for file in copy.iterdir():
            shutil.copy(file, self.ledger_path.parent)

    def wipe(self) -> None:
        """Lose the ledger."""
        # What goes to a new one is told in another way.
        self.sent.clear()
        for file in self._files():
            file.unlink()

    def _files(self) -> list[Path]:
        return list(self.ledger_path.parent.glob(f"{self.ledger_path.name}*"))
