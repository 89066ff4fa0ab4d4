"""Five nodes on one TigerBeetle cluster that goes and comes; packets flow from end to end all the while.

    payer ──> peer1 ──> peer2 ──> peer3 ──> peer4 ──> peer5 ──> shop

The configurations are those of infra/five-peer. At the end the nodes are
stopped, and each journal is compared with what TigerBeetle holds.
"""

import random
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest
import trio

from connector.core.chart import node_number
from connector.ledger.tigerbeetle import TigerBeetle, open_tigerbeetle
from tests.contract.tigerbeetle_server import CLUSTER_ID, MISSING, TigerBeetleServer, find_server
from tests.crash import audit
from tests.crash.audit import Audit, Kill, read_books
from tests.crash.load import FULFILLED, Payer, Shop
from tests.crash.processes import ROOT, NodeProcess, ask, copy_state, shown_on_failure, wait_caught_up
from tests.interop.five_peers import PEERS, free_ports

pytestmark = [
    pytest.mark.tigerbeetle,
    pytest.mark.skipif(find_server() is None, reason=MISSING),
]

OUTAGES = 20
#: So many sessions a cluster remembers, and so many clients at a time find room beside a node.
SESSIONS_MAX, SESSIONS_AT_ONCE = 64, 6
_POLL_S = 0.02


class Line:
    """Some of the five nodes, in one process or several, between a payer and a shop."""

    def __init__(
        self, directory: Path, server: TigerBeetleServer, *groups: Sequence[int], cluster_id: int = CLUSTER_ID
    ) -> None:
        self.directory = directory
        self.server = server
        self.peers = sorted(peer for group in groups for peer in group)
        ports = iter(free_ports(2 * len(PEERS)))
        self.btp = {peer: next(ports) for peer in PEERS}
        self.http = {peer: next(ports) for peer in PEERS}
        environment = {
            "TIGERBEETLE_REPLICAS": server.address,
            "TIGERBEETLE_CLUSTER_ID": str(cluster_id),
        }
        for peer in PEERS:
            environment[f"PEER{peer}_BTP_PORT"] = str(self.btp[peer])
            environment[f"PEER{peer}_HTTP_PORT"] = str(self.http[peer])
            environment[f"PEER{peer}_STATE_DIR"] = str(self.state_dir(peer))
        self.processes = [
            NodeProcess(
                "peers " + ", ".join(map(str, group)),
                [ROOT / f"infra/five-peer/peer{peer}.toml" for peer in group],
                directory / f"process-{index}.log",
                environment,
            )
            for index, group in enumerate(groups)
        ]
        first, last = self.peers[0], self.peers[-1]
        self.payer = Payer(
            self.btp[first],
            f"dev-wallet-{first}",
            f"test.peer{last}.child.till",
            seed=0,
            burst=3,
            amount_max=50_000,
            expiry_ms=8_000,
        )
        self.shop = Shop(self.btp[last], f"dev-child-{last}", seed=0, is_moody=False)
        self.kills: list[Kill] = []
        self._before: Counter[str] = Counter()

    def state_dir(self, peer: int) -> Path:
        """Where a node keeps its journal."""
        return self.directory / f"state-{peer}"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Nodes, payer and shop; at the end all is posted, and the nodes are stopped."""
        with shown_on_failure(self.processes):
            try:
                async with trio.open_nursery() as nursery:
                    for process in self.processes:
                        await process.start()
                    for person in (self.shop, self.payer):
                        nursery.start_soon(person.run)
                    # Until all links are up, packets come back.
                    await self.payer.fulfilled(1)
                    self._before = Counter(self.payer.outcomes)
                    yield
                    await self.come_to_rest()
                    nursery.cancel_scope.cancel()
            finally:
                for process in self.processes:
                    await process.end()

    async def come_to_rest(self) -> None:
        """Nothing in flight, everything posted, all nodes stopped."""
        self.payer.is_sending = False
        await self.payer.wait(lambda: not self.payer.outstanding)
        for peer in self.peers:
            await wait_caught_up(self.http[peer])
        for process in self.processes:
            await process.stop()

    async def kill(self, process: NodeProcess) -> None:
        """Kill a process."""
        since_s = time.monotonic()
        await process.kill()
        self.kills.append(Kill(since_s, time.monotonic()))
        self.payer.forgive()

    def check_only_fulfilled(self) -> None:
        """No packet came back."""
        outcomes = self.payer.outcomes - self._before
        assert outcomes.keys() == {FULFILLED}, outcomes

    async def judge(self) -> dict[int, int]:
        """Journals, TigerBeetle, payer and shop agree; the number of transfers of each node."""
        books = await trio.to_thread.run_sync(self._read)
        first, last = self.peers[0], self.peers[-1]
        audit.check_payer(books[first], self.payer.packets, "wallet")
        audit.check_shop(books[last], self.shop.packets, "child")
        for each in books.values():
            audit.check_in_flight(each, self.payer.packets, self.kills)
        for debtor, creditor in pairwise(self.peers):
            names = f"peer{creditor}", f"peer{debtor}"
            audit.check_neighbours(books[debtor], books[creditor], names)
        ledger = await open_tigerbeetle(CLUSTER_ID, self.server.address)
        try:
            counts = {peer: await audit.check_ledger(each, ledger) for peer, each in books.items()}
            await check_double_entry(ledger, books.values())
        finally:
            await ledger.aclose()
        return counts

    def _read(self) -> dict[int, Audit]:
        books = {}
        for peer in self.peers:
            copy = self.directory / f"copy-{peer}"
            copy_state(self.state_dir(peer), copy)
            books[peer] = read_books(copy, f"test.peer{peer}")
            assert books[peer].doubts_found == 0, "a clean stop leaves nothing new in doubt"
        return books


async def check_double_entry(ledger: TigerBeetle, books: Iterable[Audit]) -> None:
    """Per ledger number, debits are credits, over all nodes and all their accounts."""
    sums: defaultdict[int, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for each in books:
        found = await ledger.query_accounts(
            user_data_128=node_number(each.address), code=0, limit=ledger.batch_max
        )
        assert len(found) > len(list(each.book.accounts())), "those of the book, openings, and the marker"
        for account in found:
            row = sums[account.ledger]
            row[0] += account.debits_posted
            row[1] += account.credits_posted
            row[2] += account.debits_pending
            row[3] += account.credits_pending
    for number, row in sums.items():
        assert (row[0], row[2]) == (row[1], row[3]), f"ledger {number}: {row}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TigerBeetleServer]:
    """A server that the test starts."""
    server = TigerBeetleServer(tmp_path)
    yield server
    server.__exit__()


async def posted(port: int) -> int:
    """How many entries the node at `port` has posted."""
    answer = await ask(port, "/api/ledger")
    return int(answer["posted"])


async def wait_posting(port: int) -> None:
    """Wait until the node at `port` has posted something more."""
    before = await posted(port)
    with trio.fail_after(30):
        while True:
            await trio.sleep(_POLL_S)
            if await posted(port) > before:
                return


async def wait_ledger(port: int, *, up: bool, words: str = "") -> None:
    """Wait until the node says that its ledger is up, or down for a reason with `words` in it."""
    component = None
    with trio.move_on_after(30):
        while True:
            answer = await ask(port, "/readyz")
            if answer is not None:
                (component,) = (each for each in answer["components"] if each["name"] == "ledger")
                if component["up"] == up and words in component["reason"]:
                    return
            await trio.sleep(_POLL_S)
    raise AssertionError(f"the ledger: {component}")


async def test_a_server_killed_again_and_again_loses_and_doubles_nothing(
    server: TigerBeetleServer, tmp_path: Path, crash_seed: int
) -> None:
    choose = random.Random(crash_seed)
    line = Line(tmp_path, server, PEERS)
    await trio.to_thread.run_sync(server.start)
    started_s = time.monotonic()
    async with line.running():
        for _ in range(OUTAGES):
            if choose.random() < 0.5:
                await wait_posting(line.http[choose.choice(line.peers)])
            await line.payer.fulfilled(choose.randrange(1, 40))
            server.kill()
            await line.payer.fulfilled(choose.randrange(1, 60))
            await trio.to_thread.run_sync(server.start)
        outages_s = time.monotonic() - started_s
    line.check_only_fulfilled()
    transfers = await line.judge()
    all_s = time.monotonic() - started_s
    print(f"{OUTAGES} outages in {outages_s:.1f} s, all in {all_s:.1f} s, seed {crash_seed}")
    print(f"{dict(line.payer.outcomes)}; transfers by node {transfers}")


async def test_a_server_that_hangs_is_waited_for_also_by_a_node_killed_meanwhile(
    server: TigerBeetleServer, tmp_path: Path
) -> None:
    line = Line(tmp_path, server, [1, 2, 4, 5], [3])
    (_, third) = line.processes
    await trio.to_thread.run_sync(server.start)
    async with line.running():
        await wait_posting(line.http[3])
        server.pause()
        await line.payer.fulfilled(100)
        line.check_only_fulfilled()
        # Its last request is with the server, and is answered to nobody.
        await line.kill(third)
        await third.start()
        await wait_ledger(line.http[4], up=False, words="no answer in 10 s")
        await line.payer.fulfilled(50)
        for peer in PEERS:
            answer = await ask(line.http[peer], "/readyz")
            assert (answer["http_status"], answer["status"]) == (200, "degraded")
        server.resume()
        await line.payer.fulfilled(50)
    assert line.payer.outcomes.keys() <= {FULFILLED, "R00", "T01"}, line.payer.outcomes
    await line.judge()


async def test_nodes_start_without_a_server_and_one_is_killed_before_it_comes(
    server: TigerBeetleServer, tmp_path: Path
) -> None:
    line = Line(tmp_path, server, [1, 2, 4, 5], [3])
    async with line.running():
        await line.payer.fulfilled(200)
        for peer in PEERS:
            answer = await ask(line.http[peer], "/readyz")
            assert (answer["http_status"], answer["status"]) == (200, "degraded")
        line.check_only_fulfilled()
        (_, third) = line.processes
        await line.kill(third)
        await third.start()
        await line.payer.fulfilled(100)
        await trio.to_thread.run_sync(server.start)
        await wait_ledger(line.http[3], up=True)
        await line.payer.fulfilled(100)
    assert line.payer.outcomes.keys() <= {FULFILLED, "R00", "T01"}, line.payer.outcomes
    await line.judge()


async def test_a_wrong_cluster_id_is_said_and_an_evicted_session_is_replaced(
    server: TigerBeetleServer, tmp_path: Path
) -> None:
    await trio.to_thread.run_sync(server.start)
    line = Line(tmp_path, server, [5])
    stray = Line(tmp_path / "stray", server, [1, 2], cluster_id=99)
    stray.directory.mkdir()
    (process,) = stray.processes
    async with line.running():
        await process.start()
        try:
            line.payer.is_sending = False
            await wait_caught_up(line.http[5])
            # The cluster remembers sessions of clients that are gone; the one that was idle for longest ends.
            for _ in range(0, SESSIONS_MAX, SESSIONS_AT_ONCE):
                async with trio.open_nursery() as nursery:
                    for _ in range(SESSIONS_AT_ONCE):
                        nursery.start_soon(come_and_go, server)
            line.payer.is_sending = True
            await wait_ledger(line.http[5], up=False, words="the cluster ended this session")
            await wait_ledger(line.http[5], up=True)
            await line.payer.fulfilled(50)
            await wait_ledger(stray.http[1], up=False, words="is 99 the id of their cluster")
            answer = await ask(stray.http[1], "/readyz")
            assert (answer["http_status"], answer["status"]) == (200, "degraded")
        finally:
            await process.end()
    line.check_only_fulfilled()
    await line.judge()


async def come_and_go(server: TigerBeetleServer) -> None:
    """Open a session, and leave it."""
    await (await open_tigerbeetle(CLUSTER_ID, server.address)).aclose()
