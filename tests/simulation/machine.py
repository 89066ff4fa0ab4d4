"""A machine that a simulated node runs on: its disk, its crashes, and what it has seen.

When a node is killed, what its disk holds is copied first, and the next life
begins on the copy. A machine remembers every entry that was committed, so that
it knows what a start must find.
"""

import random
from math import inf
from pathlib import Path
from typing import Any

import msgspec
import trio

from connector.core import entries
from connector.core.accounts import Doubt
from connector.core.book import Book
from connector.core.instant import Instant
from connector.ledger.store import Batch
from connector.links.dialer import OpenTransport
from connector.node.node import Node
from tests.simulation import disk, network
from tests.simulation.ledgers import LedgerServer
from tests.simulation.life import Around, Life
from tests.simulation.network import EPOCH_MS, NODES, Script

_DOWN_MAX_S = 6.0
#: How long after its Fulfill has left a packet may still count as not relayed.
_MARK_MAX_S = 3.0


class DoubtSeen(msgspec.Struct, frozen=True):
    """A packet that came to be in doubt, as the node's book said so."""

    node: str
    packet_id: bytes
    at_s: float
    #: With whom it is open, and how much.
    sides: tuple[tuple[str, int], ...]
    after_crash: bool


class Machine:
    """Runs one node, life after life."""

    def __init__(
        self,
        name: str,
        plan: Script,
        rng: random.Random,
        root: Path,
        around: Around,
        open_transport: OpenTransport,
        ledger: LedgerServer,
    ) -> None:
        self.name = name
        self.random = rng
        self.ledger = ledger
        self.wall_offset_ms = 0
        self.lives = 0
        self.life: Life | None = None
        #: Every entry that is in the journal, from number 1 on.
        self.entries: list[tuple[Any, ...]] = []
        #: The packets among them that were prepared.
        self.prepared: set[bytes] = set()
        #: How many of them the node was told to be on disk.
        self.reported = 0
        self.doubts: list[DoubtSeen] = []
        #: By condition, over all lives: how often each packet was resolved, and until when it could be.
        self.resolved: dict[bytes, int] = {}
        self.deadlines_ms: dict[bytes, int] = {}
        #: By packet id: when it was resolved.
        self.ended_s: dict[bytes, float] = {}
        #: Packets that were in flight when the last life ended.
        self.in_flight: set[bytes] = set()
        #: The disk takes nothing between these.
        self.sick_since_s = inf
        self.sick_until_s = 0.0
        self.crashed_s = 0.0
        self._plan = plan
        self._root = root
        self._around = around
        self._open_transport = open_transport

    def now(self) -> Instant:
        elapsed_ms = int(trio.current_time() * 1000)
        return Instant(EPOCH_MS + elapsed_ms + self.wall_offset_ms, elapsed_ms)

    @property
    def state_dir(self) -> Path:
        return self._root / f"{self.name}-{self.lives}"

    @property
    def node(self) -> Node:
        """The node of the present or the last life."""
        assert self.life is not None
        return self.life.node

    @property
    def is_up(self) -> bool:
        """Whether connections can be made to it."""
        return self.life is not None and self.life.is_up

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Live for ever, again and again."""
        while True:
            life = self.life = Life(self, self._plan, self._around)
            self._after_start(life)
            await life.run(self._around, task_status if self.lives == 0 else trio.TASK_STATUS_IGNORED)
            directory = self.state_dir
            self.lives += 1
            if life.left is None:
                directory.rename(self.state_dir)
            await trio.sleep(self.random.random() * _DOWN_MAX_S)

    def make(self, life: Life) -> Node:
        """A node on the present state directory."""
        config = network.config(NODES.index(self.name), self.state_dir, self._plan)
        return Node(
            config,
            now=self.now,
            open_transport=self._open_transport,
            run_blocking=life.run_blocking,
            open_ledger=life.open_ledger,
        )

    def leave(self) -> Path:
        """What a process that is killed now leaves behind."""
        copy = self._root / f"{self.name}-{self.lives + 1}"
        disk.leave(self.state_dir, copy)
        return copy

    def commit(self, batch: Batch) -> None:
        """Entries are in the journal."""
        assert batch.first == len(self.entries) + 1, "entries are written in order, and once"
        self._enter(list(entries.decode(batch.entries)))
        assert batch.last == len(self.entries)

    def _enter(self, log: list[tuple[Any, ...]]) -> None:
        self.entries += log
        self.prepared |= {entry[3] for entry in log if entry[0] == entries.PREPARED}

    # --- a start ---

    def _after_start(self, life: Life) -> None:
        """What the journal kept is what was committed, and exactly what was open is in doubt."""
        last = life.journal.committed
        assert self.reported <= last <= len(self.entries), (
            f"{self.name}: {self.reported} entries were reported to be on disk, {last} are there"
        )
        kept, self.entries = self.entries[:last], []
        self.prepared.clear()
        self._enter(kept)
        if self.lives == 0:
            return
        before = Book()
        for entry in self.entries:
            before.apply(entry)
        for number, held in before.pending.items():
            doubt = life.book.doubts[number]
            assert (doubt.packet_id, doubt.incoming_side, doubt.outgoing_side, doubt.amount_in) == (
                held.packet_id,
                entries.Side.OPEN,
                entries.Side.OPEN,
                held.amount_in,
            )
            self._check_recent(held.packet_id)
        for number in life.book.doubts.keys() - before.doubts.keys():
            doubt = life.book.doubts[number]
            self._check_recent(doubt.packet_id)
            self.see_doubt(doubt, after_crash=True)

    def _check_recent(self, packet_id: bytes) -> None:
        """A packet in doubt after a crash was in flight, or had just been resolved."""
        if packet_id not in self.in_flight:
            since_s = max(self.crashed_s - _MARK_MAX_S, 0.0)
            assert self.ended_s[packet_id] >= min(since_s, self.sick_since_s), "it had ended long before"

    def see_doubt(self, doubt: Doubt, *, after_crash: bool) -> None:
        """A packet is in doubt."""
        sides = []
        if doubt.incoming_side is entries.Side.OPEN:
            sides.append((doubt.incoming.name, doubt.amount_in))
        if doubt.outgoing_side is entries.Side.OPEN and doubt.outgoing is not None:
            sides.append((doubt.outgoing.name, doubt.amount_out))
        at_s = self.ended_s[doubt.packet_id] = trio.current_time()
        self.doubts.append(DoubtSeen(self.name, doubt.packet_id, at_s, tuple(sides), after_crash))
        self._around.tell("doubt", self.name, f"{doubt.packet_id.hex()} {sides}")
