"""A node's books: the book in memory, its journal on disk, and the ledger behind it.

Opening recovers the book, and never waits for the ledger. While the ledger is
away nothing changes but the distance between journal and ledger; past one of
the configured bounds new Prepares are refused, and what is in flight resolves.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import trio
from loguru import logger

from connector.config.check import parse_cluster_id
from connector.config.schema import NodeConfig
from connector.core import entries, snapshot
from connector.core.admission import Refusal
from connector.core.book import Book
from connector.core.events import LedgerState, LedgerStatus
from connector.core.forwarding import Forwarder
from connector.core.health import Health
from connector.core.instant import Instant
from connector.ledger.api import Ledger
from connector.ledger.blocking import RunBlocking, in_thread
from connector.ledger.embedded import open_embedded
from connector.ledger.journal import Journal
from connector.ledger.poster import Poster
from connector.ledger.recovery import recover
from connector.ledger.store import Store
from connector.limits import LAG_SAMPLES_MAX, LAG_WATCH_INTERVAL_S
from connector.node.supervisor import supervise

if TYPE_CHECKING:
    from loguru import Logger

OpenLedger = Callable[[], Awaitable[Ledger]]
LEDGER_FILE = "ledger.sqlite3"
LEDGER = "ledger"
#: Who refuses new Prepares; see `Forwarder.closed_by`.
_UNKNOWN = "unknown ledger"
JOURNAL = "journal"


class Lag(msgspec.Struct, frozen=True):
    """How far the ledger is behind the journal."""

    entries: int
    octets: int
    #: How old the oldest entry is that the ledger lacks.
    age_ms: int


class Books:
    """The books of one node; `run` keeps them."""

    def __init__(
        self,
        config: NodeConfig,
        health: Health,
        now: Callable[[], Instant],
        *,
        run_blocking: Callable[[], RunBlocking] = in_thread,
        open_ledger: OpenLedger | None = None,
    ) -> None:
        """Open or make them, blocking. Raises Unavailable when the journal cannot be used.

        `open_ledger` overrides the ledger that `config` names.
        """
        self.config = config
        self.journal: Journal | None = None
        self.poster: Poster | None = None
        #: What the ledger is, for people.
        self.ledger_name = ""
        #: Told when the ledger goes, comes, falls too far behind or catches up.
        self.on_ledger_change: Callable[[], None] = lambda: None
        self._health = health
        self._now = now
        #: By what the ledger is too far behind; empty when it is not.
        self.too_far = ""
        #: Entry numbers and when they were the newest, oldest first: how old a lag is.
        self._samples: deque[tuple[int, int]] = deque()
        if config.journal.sync == "off":
            self.book = Book()
            logger.bind(node=config.node.name).warning(
                "journal.sync is off: balances end with this process; never do this with money"
            )
            return
        assert config.node.state_dir is not None, "the loader fills it in"
        directory = Path(config.node.state_dir)
        store = Store(directory, config.node.address, config.journal.sync)
        try:
            recovered = recover(store, now().wall_ms)
            self.book = recovered.book
            self.journal = Journal(
                store,
                recovered.last,
                run_blocking(),
                sync=config.journal.sync,
                snapshot=self._snapshot,
                checkpointed=recovered.last - recovered.replayed,
            )
            if open_ledger is None:
                self.ledger_name, open_ledger = ledger_of(config)
            self.poster = Poster(
                config.node.address,
                self.journal,
                open_ledger,
                run_blocking(),
                fills_empty=config.ledger.open_empty == "always",
                on_posting=self._on_posting,
            )
            self.poster.load()
            self._remember_lag(self.poster, store)
        except BaseException:
            store.close()
            raise
        health.declare(JOURNAL, now().wall_ms)
        health.declare(LEDGER, now().wall_ms)
        health.up(JOURNAL, now().wall_ms)
        logger.bind(node=config.node.name).info(
            "books in {}: {} entries read again, {} packets in doubt ({} new), {} entries to post to {}",
            store.path,
            recovered.replayed,
            len(self.book.doubts),
            recovered.doubts,
            self.poster.unposted,
            self.ledger_name or "the ledger",
        )

    def _remember_lag(self, poster: Poster, store: Store) -> None:
        """A ledger that was behind before this start has been so since its oldest entry that it lacks."""
        now = self._now()
        for batch in store.read_all(poster.posted):
            for entry in entries.decode(batch.entries):
                if entry[0] != entries.OPENED:
                    # Every other kind has its time there.
                    age_ms = max(0, now.wall_ms - entry[2])
                    self._samples.append((poster.posted, now.mono_ms - age_ms))
                    return

    def _snapshot(self) -> bytes:
        assert not self.book.log, "what is in the book has been given to the journal"
        return snapshot.dump(self.book)

    # --- running ---

    async def run(self, forwarder: Forwarder) -> None:
        """Write the journal and post it; never returns."""
        if self.journal is None or self.poster is None:
            await trio.sleep_forever()
        assert self.journal is not None
        assert self.poster is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervise, JOURNAL, self._run_journal, self._on_outage)
            nursery.start_soon(supervise, LEDGER, self.poster.run, self._on_outage)
            nursery.start_soon(self._watch_lag, forwarder)

    async def _run_journal(self) -> None:
        assert self.journal is not None
        self.journal.on_recovery = lambda: self._on_up(JOURNAL)
        await self.journal.run()

    def _on_outage(self, name: str, reason: str) -> None:
        """A line for each change of state, not for each attempt."""
        component = self._health.components[name]
        news = component.up or component.reason != reason
        self._health.down(name, reason, self._now().wall_ms)
        if not news:
            return
        if name == JOURNAL:
            bound = logger.bind(node=self.config.node.name)
            bound.error("new packets are refused, since the journal cannot be written: {}", reason)
        else:
            alarm = self.poster is not None and self.poster.alarm == reason
            what = "nothing is posted to the ledger" if alarm else "the ledger is away, packets keep flowing"
            self._ledger_line().warning("{}; entries that wait: {}; {}", what, self.lag().entries, reason)
            self.on_ledger_change()

    def _on_up(self, name: str) -> None:
        if self._health.up(name, self._now().wall_ms):
            logger.bind(node=self.config.node.name).info("the {} works again", name)

    def _on_posting(self) -> None:
        assert self.poster is not None
        # What a person confirmed was for this once.
        self.poster.fills_empty = self.config.ledger.open_empty == "always"
        if self._health.up(LEDGER, self._now().wall_ms):
            self._ledger_line().info(
                "posting to {}, {} entries wait", self.ledger_name or "the ledger", self.lag().entries
            )
            self.on_ledger_change()

    def _ledger_line(self) -> "Logger":
        """A log line with the ledger's status as its fields."""
        fields = msgspec.structs.asdict(self.ledger_status())
        return logger.bind(node=self.config.node.name, **fields)

    async def finish(self) -> None:
        """Wait until everything is written, and what left is known to have left."""
        if self.journal is not None:
            await self.journal.wait_committed()

    async def close(self) -> None:
        """Close the journal; nothing may be appended any more."""
        if self.journal is not None:
            with trio.CancelScope(shield=True):
                await self.journal.close()

    # --- how far behind ---

    def ledger_status(self) -> LedgerStatus:
        """How the ledger does."""
        lag = self.lag()
        component = self._health.components.get(LEDGER)
        state: LedgerState = "healthy"
        reason = ""
        if component is not None and not component.up:
            state, reason = "degraded", component.reason
        if self.poster is not None and self.poster.is_unknown:
            state = "refusing"
        if self.too_far:
            state, reason = "refusing", f"{self.too_far} behind the journal" + (reason and f": {reason}")
        return LedgerStatus(
            state=state, entries=lag.entries, octets=lag.octets, age_ms=lag.age_ms, reason=reason
        )

    def lag(self) -> Lag:
        """How far the ledger is behind."""
        if self.poster is None or self.journal is None or not self.poster.unposted:
            return Lag(0, 0, 0)
        while len(self._samples) > 1 and self._samples[1][0] <= self.poster.posted:
            self._samples.popleft()
        since_ms = self._samples[0][1] if self._samples else self._now().mono_ms
        return Lag(
            self.poster.unposted,
            self.journal.octets_after(self.poster.posted),
            self._now().mono_ms - since_ms,
        )

    async def _watch_lag(self, forwarder: Forwarder) -> None:
        assert self.journal is not None
        bounds = self.config.ledger
        while True:
            self._sample(self.journal.appended)
            lag = self.lag()
            reason = ""
            if lag.entries > bounds.unposted_max:
                reason = f"{lag.entries} entries"
            elif lag.octets > bounds.unposted_max_bytes:
                reason = f"{lag.octets} octets of entries"
            elif lag.age_ms > bounds.unposted_age_max_s * 1000:
                reason = f"{lag.age_ms // 1000} s"
            self._refuse(forwarder, reason)
            self._refuse_unknown(forwarder)
            await trio.sleep(LAG_WATCH_INTERVAL_S)

    def _refuse_unknown(self, forwarder: Forwarder) -> None:
        """Take no new Prepares while the ledger holds balances that the journal does not know.

        Every peer would begin with its whole credit limit again.
        """
        assert self.poster is not None
        was_unknown = _UNKNOWN in forwarder.closed_by
        if self.poster.is_unknown:
            forwarder.closed_by[_UNKNOWN] = Refusal("T00", "this connector's books await a decision")
            if not was_unknown:
                self._ledger_line().error("new packets are refused: {}", self.poster.alarm)
        elif was_unknown:
            del forwarder.closed_by[_UNKNOWN]
            self._ledger_line().info("new packets are taken again: the ledger is ours")
        if self.poster.is_unknown != was_unknown:
            self._health.refusing = next((each.reason for each in forwarder.closed_by.values()), "")

    def _refuse(self, forwarder: Forwarder, reason: str) -> None:
        """Take no new Prepares while the ledger is too far behind."""
        was_too_far, self.too_far = self.too_far, reason
        if reason:
            refusal = Refusal("T00", f"this connector's ledger is {reason} behind its journal")
            forwarder.closed_by[LEDGER] = refusal
        else:
            forwarder.closed_by.pop(LEDGER, None)
        self._health.refusing = next((refusal.reason for refusal in forwarder.closed_by.values()), "")
        if bool(reason) == bool(was_too_far):
            return
        if reason:
            self._ledger_line().error("new packets are refused: the ledger is {} behind the journal", reason)
        else:
            self._ledger_line().info("new packets are taken again: the ledger has caught up")
        self.on_ledger_change()

    def _sample(self, appended: int) -> None:
        samples = self._samples
        if self.poster is not None and not self.poster.unposted:
            # What comes from now on is younger than this.
            samples.clear()
        if not samples or samples[-1][0] < appended:
            samples.append((appended, self._now().mono_ms))
        if len(samples) > LAG_SAMPLES_MAX:
            # Every other one: an old lag needs no exact age.
            self._samples = deque([sample for index, sample in enumerate(samples) if not index % 2])


def ledger_of(config: NodeConfig) -> tuple[str, OpenLedger]:
    """What the configured ledger is, for people, and how it is opened."""
    settings = config.ledger
    replicas = settings.replicas
    if replicas is None:
        assert config.node.state_dir is not None, "the loader fills it in"
        path = Path(config.node.state_dir) / LEDGER_FILE

        async def open_file() -> Ledger:
            return await open_embedded(path)

        return f"the embedded ledger in {path}", open_file
    cluster_id = parse_cluster_id(settings.cluster_id or "0")

    async def open_cluster() -> Ledger:
        # ctypes and the C library: only for those who use them.
        from connector.ledger.tigerbeetle import open_tigerbeetle

        return await open_tigerbeetle(cluster_id, replicas)

    return f"TigerBeetle cluster {cluster_id} at {replicas}", open_cluster
