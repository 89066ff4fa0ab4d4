"""A node whose journal and ledger can be held back, broken and taken away, on mock time."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import trio
from trio.testing import memory_stream_pair

from connector.errors import Unavailable
from connector.ledger.api import Ledger
from connector.ledger.blocking import RunBlocking
from connector.ledger.embedded import open_embedded
from connector.ledger.journal import Journal
from connector.ledger.poster import Poster
from connector.ledger.store import Batch, Statement
from connector.node.node import Node
from tests.integration.peers import World, child, mock_instant, node_config
from tests.unit.books_helpers import in_place

T = TypeVar("T")


class Disk:
    """Where the node's blocking calls are made: in place, unless they are held."""

    def __init__(self) -> None:
        self._free = trio.Event()
        self._free.set()
        #: Why each commit fails; empty when it does not.
        self.failure = ""
        self.failed = 0

    def hold(self) -> None:
        """What is asked from now on waits for `let_go`."""
        self._free = trio.Event()

    def let_go(self) -> None:
        self._free.set()

    def __call__(self) -> RunBlocking:
        async def run(call: Callable[[], T], /) -> T:
            await self._free.wait()
            return await in_place(call)

        return run


class Booked(World):
    """The running node, its disk and its ledger."""

    def __init__(self, node: Node, nursery: trio.Nursery, disk: Disk) -> None:
        super().__init__(node, nursery)
        self.disk = disk
        #: The node's ends of the connections, newest last.
        self.ends: list[trio.StapledStream[trio.abc.SendStream, trio.abc.ReceiveStream]] = []

    @property
    def journal(self) -> Journal:
        journal = self.node.books.journal
        assert journal is not None
        return journal

    @property
    def poster(self) -> Poster:
        poster = self.node.books.poster
        assert poster is not None
        return poster

    def stream(self) -> trio.abc.Stream:
        ours, theirs = memory_stream_pair()
        self.ends.append(theirs)  # type: ignore[arg-type]
        self._nursery.start_soon(self.node.listener.accept, theirs)
        return ours

    def component(self, name: str) -> tuple[bool, str]:
        component = self.node.health.components[name]
        return component.up, component.reason


class LedgerSwitch:
    """Opens the embedded ledger, while it is there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.is_there = True

    async def __call__(self) -> Ledger:
        await trio.lowlevel.checkpoint()
        if not self.is_there:
            raise Unavailable("no ledger answers")
        return await open_embedded(self._path, run_blocking=in_place)


@asynccontextmanager
async def booked(
    directory: Path,
    *peers: dict[str, object],
    ledger: LedgerSwitch | None = None,
    unposted_max: int = 10**6,
) -> AsyncIterator[Booked]:
    """A node with alice, bob and others, whose books are in `directory`."""
    disk = Disk()
    config = node_config(
        *(peers or (child("alice"), child("bob"))),
        node={"name": "node", "address": "test.node", "state_dir": str(directory)},
        journal={"sync": "always"},
        ledger={"open_empty": "always", "unposted_max": unposted_max},
    )
    async with trio.open_nursery() as nursery:
        node = Node(
            config,
            now=mock_instant,
            run_blocking=disk,
            open_ledger=ledger or LedgerSwitch(directory / "ledger.sqlite3"),
        )
        world = Booked(node, nursery, disk)
        store = world.journal.store
        commit = store.commit

        def may_fail(batch: Batch | None, statements: Sequence[Statement] = (), unneeded: int = 0) -> int:
            if disk.failure:
                disk.failed += 1
                raise Unavailable(disk.failure)
            return commit(batch, statements, unneeded)

        store.commit = may_fail  # type: ignore[method-assign]
        await nursery.start(node.run)
        try:
            yield world
        finally:
            # A node that ends waits for its disk.
            disk.let_go()
        nursery.cancel_scope.cancel()
