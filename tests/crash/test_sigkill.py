"""A payer, two nodes and a shop; the nodes are killed at random moments, and their books stay right.

    payer ──> node a ──> node b ──> shop

Kills: 25 by default, or as many as `--crash-kills 100` says (about 1 s each;
`pytest tests/crash --crash-kills 100 -s` shows what happened). Each kill is
followed by a look into a copy of the dead node's directory, before it is
started again on the original.
"""

import random
import shutil
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from connector.core.entries import Side
from connector.core.rates import fee
from connector.ledger.embedded import open_embedded
from connector.limits import ILP_DATA_MAX_BYTES
from tests.crash import audit
from tests.crash.audit import Audit, Kill, read_books
from tests.crash.load import FULFILLED, Payer, Shop
from tests.crash.processes import NodeProcess, ask, copy_state, shown_on_failure, wait_caught_up
from tests.interop.five_peers import free_ports

SPREAD_PPM = 1_000
CONFIG = """
[node]
name = "{name}"
address = "test.{name}"
state_dir = "{state_dir}"
[btp]
listen = "127.0.0.1:{btp}"
[http]
listen = "127.0.0.1:{http}"
[fees]
spread_ppm = {spread_ppm}
[limits]
expiry_margin_ms = 200
[journal]
sync = "always"
[ledger]
open_empty = "always"
[[peers]]
name = "{child}"
relation = "child"
token = "{child}-secret-token"
asset = {{ code = "USD", scale = 6 }}
credit_limit = 1_000_000_000_000_000
[[peers]]
name = "{peer}"
relation = "peer"
address = "test.{peer}"
url = "ws://127.0.0.1:{peer_btp}"
token = "between-a-and-b"
asset = {{ code = "USD", scale = 6 }}
credit_limit = 1_000_000_000_000_000
"""


class Chain:
    """The two nodes and the two people."""

    def __init__(self, directory: Path, seed: int, **shop: Any) -> None:
        self.directory = directory
        self.ports = free_ports(4)
        self.nodes = {"a": self._node("a", "payer", "b", 0), "b": self._node("b", "shop", "a", 1)}
        self.payer = Payer(self.ports[0], "payer-secret-token", "test.b.shop.till", seed)
        self.shop = Shop(self.ports[1], "shop-secret-token", seed, **shop)
        self.kills: list[Kill] = []
        self.found: Counter[str] = Counter()

    def _node(self, name: str, child: str, peer: str, index: int) -> NodeProcess:
        config = self.directory / f"{name}.toml"
        text = CONFIG.format(
            name=name,
            child=child,
            peer=peer,
            state_dir=self.state_dir(name),
            btp=self.ports[index],
            http=self.ports[index + 2],
            peer_btp=self.ports[1 - index],
            spread_ppm=SPREAD_PPM,
        )
        config.write_text(text)
        return NodeProcess(name, [config], self.directory / f"{name}.log", {})

    def state_dir(self, name: str) -> Path:
        """Where a node keeps its books."""
        return self.directory / f"state-{name}"

    async def start(self, names: str) -> None:
        """Start nodes."""
        for name in names:
            await self.nodes[name].start()

    async def kill(self, names: str) -> None:
        """Kill nodes, and wait until all that they had sent was seen."""
        for name in names:
            # From then on nothing of what a node wrote may have arrived.
            since_s = min(time.monotonic(), self.payer.unread_since_s)
            await self.nodes[name].kill()
            self.kills.append(Kill(since_s, time.monotonic()))
        self.payer.forgive()
        self.payer.go_on_reading()
        for name, person in (("a", self.payer), ("b", self.shop)):
            if name in names:
                await person.wait(lambda person=person: person.connection is None)  # type: ignore[misc]

    def look(self, names: str, *, at_end: bool = False) -> Callable[[], dict[str, Audit]]:
        """Copy the books of nodes that do not run; what reads and checks the copies, at leisure."""
        copies = {name: self.directory / f"copy-{name}-{len(self.kills)}" for name in names}
        for name, copy in copies.items():
            if self.state_dir(name).exists():
                copy_state(self.state_dir(name), copy, with_ledger=at_end)
        sent, seen, kills = dict(self.payer.packets), dict(self.shop.packets), list(self.kills)

        def check() -> dict[str, Audit]:
            audits = {name: read_books(copy, f"test.{name}") for name, copy in copies.items()}
            for each in audits.values():
                audit.check_in_flight(each, sent, kills)
                self._check_amounts(each)
            if "a" in audits:
                audit.check_payer(audits["a"], sent, "payer")
            if "b" in audits:
                audit.check_shop(audits["b"], seen, "shop")
                audit.check_arrived(audits["b"], seen)
            if len(audits) == 2:
                audit.check_neighbours(audits["a"], audits["b"], ("b", "a"))
            if not at_end:
                for name, copy in copies.items():
                    self.found[f"found in doubt at {name}"] += audits[name].doubts_found
                    shutil.rmtree(copy)
            return audits

        return check

    @staticmethod
    def _check_amounts(books: Audit) -> None:
        for packet in books.packets.values():
            assert packet.fee == fee(packet.amount_in, SPREAD_PPM)
            assert packet.amount_out == packet.amount_in - packet.fee


async def wait_nothing_pending(port: int, name: str) -> None:
    """Wait until the node at `port` has decided all packets of the account `name`."""
    with trio.fail_after(10):
        while True:
            answer = await ask(port, f"/api/accounts/{name}")
            if answer["account"]["debits_pending"] == "0":
                return
            await trio.sleep(0.02)


async def kill_again_and_again(chain: Chain, count: int, choose: random.Random) -> None:
    """`count` kills: of either node or of both, under load or while one starts."""
    while len(chain.kills) < count:
        victims = choose.choice(["a", "b", "ab", "ba"] if len(chain.kills) < count - 1 else ["a", "b"])
        if choose.random() < 0.15:
            await trio.sleep(choose.uniform(0.1, 1.2))
            chain.found["kills during a start"] += chain.payer.connection is None
        else:
            await chain.payer.fulfilled(choose.randrange(1, 50))
            await trio.sleep(choose.uniform(0, 0.2))
        await chain.kill(victims)
        check = chain.look(victims)
        await chain.start(victims)
        await trio.to_thread.run_sync(check)


async def come_to_rest(chain: Chain) -> None:
    """No packets in flight, everything posted, both nodes stopped as an operator stops them."""
    await chain.payer.fulfilled(10)
    chain.payer.is_sending = False
    await chain.payer.wait(lambda: not chain.payer.outstanding)
    for port in chain.ports[2:]:
        await wait_caught_up(port)
    for node in chain.nodes.values():
        await node.stop()


async def judge(chain: Chain) -> dict[str, Audit]:
    """Everything, at the end."""
    audits = await trio.to_thread.run_sync(chain.look("ab", at_end=True))
    for name, books in audits.items():
        assert books.doubts_found == 0, "a clean stop leaves nothing new in doubt"
        ledger = await open_embedded(chain.directory / f"copy-{name}-{len(chain.kills)}" / "ledger.sqlite3")
        chain.found[f"transfers of {name}"] = await audit.check_ledger(books, ledger)
        await ledger.aclose()
    return audits


async def run_chain(chain: Chain, disturb: Callable[[], Awaitable[None]]) -> dict[str, Audit]:
    """Start, disturb under load, come to rest, and judge."""
    nodes = chain.nodes.values()
    with shown_on_failure(nodes):
        try:
            async with trio.open_nursery() as nursery:
                await chain.start("ab")
                nursery.start_soon(chain.payer.run)
                nursery.start_soon(chain.shop.run)
                await chain.payer.fulfilled(1)
                await disturb()
                await come_to_rest(chain)
                nursery.cancel_scope.cancel()
            return await judge(chain)
        finally:
            for node in nodes:
                await node.end()


async def test_nodes_killed_at_random_moments_keep_right_books(
    tmp_path: Path, crash_kills: int, crash_seed: int
) -> None:
    chain = Chain(tmp_path, crash_seed)
    started_s = time.monotonic()
    audits = await run_chain(
        chain, partial(kill_again_and_again, chain, crash_kills, random.Random(crash_seed))
    )
    assert len(chain.kills) == crash_kills
    for name, books in audits.items():
        doubts = books.book.doubts.values()
        sides = Counter((each.incoming_side.name, each.outgoing_side.name) for each in doubts)
        in_doubt = sum(each.amount_in for each in doubts if each.incoming_side is Side.OPEN)
        print(f"{name}: {len(books.packets)} packets, in doubt {dict(sides)}, {in_doubt} of incoming value")
    print(f"payer: {dict(chain.payer.outcomes)}, {len(chain.payer.packets)} sent; {dict(chain.found)}")
    print(f"{crash_kills} kills in {time.monotonic() - started_s:.1f} s, seed {crash_seed}")
    assert chain.payer.outcomes[FULFILLED] >= crash_kills


@pytest.mark.parametrize("victim", ["a", "b"])
async def test_nothing_is_in_doubt_when_a_node_is_killed_at_rest(tmp_path: Path, victim: str) -> None:
    chain = Chain(tmp_path, 0)

    async def kill_at_rest() -> None:
        await chain.payer.fulfilled(50)
        chain.payer.is_sending = False
        await chain.payer.wait(lambda: not chain.payer.outstanding)
        await trio.sleep(2 * audit.GRACE_S)  # What was answered is recorded by then.
        await chain.kill(victim)
        (books,) = chain.look(victim)().values()
        assert not books.book.doubts
        await chain.start(victim)
        chain.payer.is_sending = True

    audits = await run_chain(chain, kill_at_rest)
    assert not any(books.book.doubts for books in audits.values())


async def test_fulfills_that_a_payer_did_not_read_are_in_doubt(tmp_path: Path) -> None:
    # So large that few of them fill what the kernel holds for a payer who does not read.
    chain = Chain(tmp_path, 0, is_moody=False, data=bytes(ILP_DATA_MAX_BYTES))
    waiting: list[int] = []

    def has_come(count: int) -> bool:
        return len(chain.shop.packets) >= count

    async def kill_while_fulfills_wait() -> None:
        await chain.payer.fulfilled(10)
        chain.payer.stop_reading()
        # More than the kernel holds, less than the node closes a link for: 140 packets, and a window more.
        enough = len(chain.shop.packets) + 140
        while len(chain.shop.packets) < enough:
            chain.payer.forgive()
            await chain.shop.wait(partial(has_come, len(chain.shop.packets) + 10))
        chain.payer.is_sending = False
        await wait_nothing_pending(chain.ports[2], "payer")
        await chain.kill("a")
        (books,) = chain.look("a")().values()
        waiting.append(sum(each.outgoing is None for each in books.book.doubts.values()))
        await chain.start("a")
        chain.payer.is_sending = True

    await run_chain(chain, kill_while_fulfills_wait)
    print(f"{waiting} Fulfills had been recorded and had not left")
    assert waiting[0] > 0
