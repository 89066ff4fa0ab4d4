"""The poster: what the journal holds is posted to the ledger, in order, each transfer once.

    journal (durable) --read--> entries --Posting--> transfers --request--> ledger
                                    the run is recorded in the journal before it leaves

One request at a time, as full as the ledger takes them. A request that was not
answered is sent again, octet for octet, before anything later, by this process
or the next. Every status is looked at: made, there already and equal, or an
alarm, which stops the posting until somebody has seen to it, and nothing else.

The poster is a task that Unavailable ends and its supervisor runs again.
"""

import zlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec
import trio
from loguru import logger

from connector.core import entries, snapshot
from connector.core.book import Book
from connector.core.entries import CorruptEntry
from connector.core.posting import Posting, Run
from connector.core.transfers import TRANSFER_BYTES
from connector.errors import Unavailable
from connector.ledger import recovery
from connector.ledger.api import Ledger
from connector.ledger.attach import EmptyLedger, ForeignLedger, UnknownBooks, agree, attach, make_accounts
from connector.ledger.blocking import RunBlocking
from connector.ledger.journal import Journal
from connector.ledger.outcome import LedgerRefusal, check
from connector.ledger.store import Checkpoint, Statement, Store, set_checkpoint, set_meta
from connector.limits import (
    CHECKPOINT_ENTRIES,
    LEDGER_CLOSE_TIMEOUT_S,
    POSTER_PAUSE_S,
    POSTER_READ_ENTRIES_MAX,
    POSTER_SLICE_ENTRIES,
)

_REQUEST = "request"


class Recorded(msgspec.Struct, frozen=True):
    """A request as the journal records it: entries after `after` up to `last`, and what they come to."""

    after: int
    last: int
    octets: int
    checksum: int
    #: The last transfer of the newest request before it that was answered; "" when there is none.
    newest: str = ""


class _Request(msgspec.Struct):
    recorded: Recorded
    events: bytes
    opened: list[Any]


class Poster:
    """Posts one node's journal to one ledger."""

    def __init__(
        self,
        node: str,
        journal: Journal,
        open_ledger: Callable[[], Awaitable[Ledger]],
        run_blocking: RunBlocking,
        *,
        fills_empty: bool,
        on_posting: Callable[[], None],
    ) -> None:
        """`fills_empty`: whether a ledger that holds nothing is filled without asking.

        `on_posting()` is told when the ledger is reached and recognised.
        """
        self.node = node
        self.fills_empty = fills_empty
        #: The ledger while it is reached and recognised.
        self.ledger: Ledger | None = None
        #: Every entry up to this one is in the ledger.
        self.posted = 0
        #: Why posting stopped for somebody to look at it; empty when it did not.
        self.alarm = ""
        #: Whether it is that the ledger is empty and waits for a yes, or that it holds what we do not know.
        self.is_empty = self.is_unknown = False
        #: Requests and transfers that were answered since the start.
        self.requests = 0
        self.transfers = 0
        self._journal = journal
        self._store: Store = journal.store
        self._open_ledger = open_ledger
        self._run_blocking = run_blocking
        self._on_posting = on_posting
        self._posting: Posting | None = None
        #: Entries up to this one are in requests, answered or not.
        self._taken = 0
        #: Made and not answered, oldest first: one with the ledger, and one that is next.
        self._requests: list[_Request] = []
        #: Decoded entries after those.
        self._ahead: list[tuple] = []  # type: ignore[type-arg]
        self._newest = ""
        self._checkpointed = 0
        self._still = trio.Lock()
        self._moved = trio.Event()

    @property
    def unposted(self) -> int:
        """How many entries the journal holds that the ledger does not."""
        return self._journal.appended - self.posted

    @property
    def taken(self) -> int:
        """Entries up to this one are in requests, answered or not, and in the book of what is posted."""
        return self._taken

    def load(self) -> None:
        """Find out where the last process was. Blocking. Raises Unavailable."""
        store = self._store
        checkpoint = store.checkpoint(recovery.LEDGER) or Checkpoint(0, b"")
        text = store.meta(_REQUEST)
        recorded = None if not text else msgspec.json.decode(text, type=Recorded)
        self._taken = self.posted = max(checkpoint.last, recorded.after if recorded else 0)
        self._checkpointed = checkpoint.last
        self._newest = recorded.newest if recorded else ""
        self._journal.needed_by_ledger(checkpoint.last)
        try:
            book = snapshot.load(checkpoint.state) if checkpoint.state else Book()
            number = checkpoint.last
            if self._taken > number:
                for batch in store.read_all(number):
                    for entry in self._decode(batch.first, batch.entries, number, self._taken):
                        book.apply(entry)
                        number += 1
                    if number == self._taken:
                        break
        except CorruptEntry as error:
            raise Unavailable(f"{store.path}: {error}") from error
        self._posting = Posting(self.node, store.journal_id, book)
        if recorded is not None and recorded.last > self._taken:
            self._rebuild(recorded)

    def _rebuild(self, recorded: Recorded) -> None:
        """Make the request that was on its way again. Raises Unavailable."""
        log: list[tuple] = []  # type: ignore[type-arg]
        for batch in self._store.read(recorded.after, recorded.last - recorded.after):
            log += self._decode(batch.first, batch.entries, recorded.after, recorded.last)
        run = Run()
        assert self._posting is not None
        for _ in self._posting.take(run, log, 1 << 62, 1 << 62):
            pass
        events = b"".join(run.transfers)
        if (len(events), zlib.crc32(events)) != (recorded.octets, recorded.checksum):
            raise Unavailable(
                f"{self._store.path}: the request of entries {recorded.after + 1} to {recorded.last} "
                "comes out otherwise than it was sent: run the version that sent it until it has posted all"
            )
        self._requests = [_Request(recorded, events, run.opened)]
        self._taken = recorded.last

    @staticmethod
    def _decode(first: int, octets: bytes, after: int, last: int) -> list[tuple]:  # type: ignore[type-arg]
        """Entries of a batch that begins with number `first`: those after `after` up to `last`."""
        log = list(entries.decode(octets))
        return log[max(0, after + 1 - first) : max(0, last + 1 - first)]

    # --- the task ---

    async def run(self) -> None:
        """Post what comes; never returns. Raises Unavailable."""
        if self._posting is None:
            await self._run_blocking(self.load)
        ledger = await self._open_ledger()
        try:
            async with self._still:
                assert self._posting is not None
                await attach(
                    ledger,
                    self._posting,
                    self._journal,
                    self._newest,
                    fills_empty=self.fills_empty,
                    begin=self._begin_anew,
                )
                # What may have been sent before is answered before anybody counts on the ledger.
                while self._requests:
                    await self._send(ledger, self._requests[0])
                    del self._requests[0]
                await agree(ledger, self._posting)
                # Also what a new ledger was given as balances.
                self.posted = self._taken
                self._tell_moved()
            self.ledger = ledger
            self.alarm = ""
            self.is_unknown = False
            self._on_posting()
            while True:
                await self._journal.wait_durable(self._taken + 1)
                async with self._still:
                    await self._post(ledger)
                # What comes meanwhile shares a request, and many packets end before they are sent.
                await trio.sleep(POSTER_PAUSE_S)
        except (ForeignLedger, LedgerRefusal) as error:
            self.alarm = str(error)
            self.is_empty = isinstance(error, EmptyLedger)
            self.is_unknown = isinstance(error, UnknownBooks)
            raise
        except Unavailable:
            self.is_empty = False
            raise
        finally:
            self.ledger = None
            with trio.move_on_after(LEDGER_CLOSE_TIMEOUT_S, shield=True):
                await ledger.aclose()

    async def wait_posted(self, number: int) -> None:
        """Wait until the ledger has entry `number`."""
        while self.posted < number:
            await self._moved.wait()

    async def _begin_anew(self, statement: Statement) -> None:
        """A new ledger gets everything up to here as balances: nothing of it is to be sent as transfers."""
        assert self._posting is not None
        here = Checkpoint(self._taken, snapshot.dump(self._posting.book))
        await self._journal.execute(statement, set_checkpoint(recovery.LEDGER, here), set_meta(_REQUEST, ""))
        self._requests = []
        self._newest = ""
        self._checkpointed = self._taken
        self._journal.needed_by_ledger(self._taken)

    async def _post(self, ledger: Ledger) -> None:
        """Post until nothing durable is left, or somebody wants to compare.

        The next request is made while one is answered.
        """
        while self._requests or self._may_prepare():
            if not self._requests:
                await self._prepare(ledger.batch_max)
            await self._send_and_prepare(ledger)
            del self._requests[0]
            if not self._requests and self._is_checkpoint_due:
                await self._checkpoint()

    async def _send_and_prepare(self, ledger: Ledger) -> None:
        """Have the oldest request answered, and make the next one meanwhile."""
        outages: list[Unavailable] = []

        async def send() -> None:
            # Not let out of the nursery, which would make a group of it.
            try:
                await self._send(ledger, self._requests[0])
            except Unavailable as outage:
                outages.append(outage)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            try:
                if len(self._requests) == 1 and not self._is_checkpoint_due and self._may_prepare():
                    await self._prepare(ledger.batch_max)
            except Unavailable as outage:
                outages.append(outage)
        if outages:
            raise outages[0]

    async def _read(self, after: int, last: int) -> list[tuple]:  # type: ignore[type-arg]
        """Some entries after number `after`, none after `last`. Raises Unavailable."""
        log: list[tuple] = []  # type: ignore[type-arg]
        for batch in await self._run_blocking(lambda: self._store.read(after, POSTER_READ_ENTRIES_MAX)):
            log += self._decode(batch.first, batch.entries, after, last)
            await trio.lowlevel.checkpoint()
        return log

    @property
    def _is_checkpoint_due(self) -> bool:
        """Whether nothing is to be taken before a checkpoint, which needs a moment between requests."""
        return self._taken - self._checkpointed >= CHECKPOINT_ENTRIES

    def _may_prepare(self) -> bool:
        return self._taken < self._journal.durable and not self._still.statistics().tasks_waiting

    async def _prepare(self, transfers_max: int) -> None:
        """Make the next request."""
        after = self._taken
        log = self._ahead or await self._read(after, self._journal.durable)
        if not log:
            raise Unavailable(
                f"{self._store.path}: entries after {after} are gone, although they were written"
            )
        run = Run()
        assert self._posting is not None
        with trio.CancelScope(shield=True):
            # Once begun, the book and what was taken must agree.
            for _ in self._posting.take(run, log, transfers_max, POSTER_SLICE_ENTRIES):
                await trio.lowlevel.checkpoint()
            self._ahead = log[run.taken :]
            self._taken = after + run.taken
            events = b"".join(run.transfers)
            recorded = Recorded(after, self._taken, len(events), zlib.crc32(events))
            self._requests.append(_Request(recorded, events, run.opened))

    async def _send(self, ledger: Ledger, request: _Request) -> None:
        """Record a request, have it answered, and look at the answers."""
        assert self._posting is not None
        recorded = msgspec.structs.replace(request.recorded, newest=self._newest)
        if request.events:
            await self._journal.execute(set_meta(_REQUEST, msgspec.json.encode(recorded).decode()))
        if request.opened:
            await make_accounts(ledger, self._posting.legs, request.opened)
        if request.events:
            statuses = await ledger.create_transfers(request.events)
            await check(ledger, request.events, statuses)
            self._newest = request.events[-TRANSFER_BYTES : 16 - TRANSFER_BYTES].hex()
            self.requests += 1
            self.transfers += len(statuses)
        self.posted = recorded.last
        self._tell_moved()

    def _tell_moved(self) -> None:
        self._moved.set()
        self._moved = trio.Event()

    async def _checkpoint(self) -> None:
        assert self._posting is not None
        self._checkpointed = self.posted
        # The request on record was answered: the next process is to look for its last transfer.
        answered = Recorded(self.posted, self.posted, 0, 0, self._newest)
        await self._journal.checkpoint_ledger(
            Checkpoint(self.posted, snapshot.dump(self._posting.book)),
            set_meta(_REQUEST, msgspec.json.encode(answered).decode()),
        )
        logger.debug("checkpoint of the ledger at entry {}", self.posted)

    # --- for those who compare ---

    async def compare(self, look: Callable[[Ledger | None, Posting], Awaitable[None]]) -> None:
        """Call `look` with the ledger and what it should hold, while nothing is being posted."""
        async with self._still:
            if self._posting is None:
                raise Unavailable("the ledger has not been reached since the start")
            await look(None if self._requests else self.ledger, self._posting)

    async def replay(self, book: Book, after: int, last: int) -> None:
        """Make the changes of the committed entries after number `after` up to `last` in `book`.

        Only within `compare`. Raises Unavailable.
        """
        store = self._store
        while after < last:
            start = after
            for batch in await self._run_blocking(partial(store.read, start, POSTER_READ_ENTRIES_MAX)):
                for entry in self._decode(batch.first, batch.entries, start, last):
                    try:
                        book.apply(entry)
                    except CorruptEntry as error:
                        raise Unavailable(f"{store.path}: {error}") from error
                    after += 1
                await trio.lowlevel.checkpoint()
            if after == start:
                raise Unavailable(f"{store.path}: nothing stands after entry {after}, {last} were written")
