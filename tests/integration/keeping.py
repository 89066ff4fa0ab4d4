"""A node that keeps books in a directory, on a real HTTP port, with peers that pay through it."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import trio

from connector.config.schema import NodeConfig
from connector.core.chart import Kind, account_id
from connector.core.rates import Asset
from connector.node.node import Node
from connector.protocol import btp
from tests.integration.peers import FULFILL, Peer, World, child, node_config, prepare

ADMIN = {"x-connector-admin": "1"}


def keeping(
    directory: Path, *, open_empty: str = "always", spread_ppm: int = 0, **alice: object
) -> NodeConfig:
    """A node with two children, alice and bob, whose journal and ledger are in `directory`."""
    return node_config(
        child("alice", **alice),
        child("bob", settle_threshold=1_000),
        node={"name": "node", "address": "test.node", "state_dir": str(directory)},
        http={"listen": "127.0.0.1:0"},
        journal={"sync": "always"},
        ledger={"open_empty": open_empty},
        fees={"spread_ppm": spread_ppm},
    )


class Shop(World):
    """The running node, and questions to it."""

    web: httpx.AsyncClient

    async def get(self, path: str, status: int = 200, /, **query: str | int) -> Any:
        """What the node answers."""
        response = await self.web.get(path, params=query)
        assert response.status_code == status, response.text
        return response.json()

    async def post(self, path: str, body: object, status: int = 200) -> Any:
        """The same, for what changes something."""
        response = await self.web.post(path, json=body)
        assert response.status_code == status, response.text
        return response.json()

    async def net(self, name: str) -> int:
        """The net of an account."""
        return int((await self.get(f"/api/accounts/{name}"))["account"]["net"])

    async def checks(self, *, ok: bool) -> dict[str, str]:
        """What the doctor finds: results by the names of checks; peers here know no connector-balance."""
        report = await self.get("/api/doctor")
        assert report["ok"] is ok, report
        found = {check["name"]: check["result"] for check in report["checks"]}
        return {name: result for name, result in found.items() if not name.startswith("peer ")}

    async def explanation(self, name: str) -> str:
        """What the doctor says of one check."""
        report = await self.get("/api/doctor")
        return str(next(check["explanation"] for check in report["checks"] if check["name"] == name))

    async def pay(self, *amounts: int) -> None:
        """Packets from alice to bob, each fulfilled."""
        alice, bob = await self.peer("alice"), await self.peer("bob")
        for request_id, amount in enumerate(amounts, start=10):
            await alice.ask(prepare(amount=amount), request_id)
            frame = await bob.receive()
            assert isinstance(frame, btp.Message)
            await bob.reply(frame.request_id, FULFILL)
            assert await alice.receive() == btp.decode(btp.ilp_response(request_id, FULFILL))
        await self._part(alice, bob)

    async def _part(self, *peers: Peer) -> None:
        """Nobody is left whom the doctor would wait for."""
        links = self.node.registry.links()
        for peer in peers:
            await peer.ws.aclose()
        for link in links:
            await link.gone.wait()

    async def leave_open(self, amount: int) -> None:
        """A packet from alice that bob has and does not answer; it stays in flight until it expires."""
        alice, bob = await self.peer("alice"), await self.peer("bob")
        await alice.ask(prepare(amount=amount), 10)
        await bob.receive()
        await self._part(alice, bob)

    async def posted(self) -> None:
        """Wait until the ledger has everything."""
        books = self.node.books
        assert books.journal is not None
        assert books.poster is not None
        with trio.fail_after(20):
            await books.poster.wait_posted(books.journal.appended)


@asynccontextmanager
async def open_shop(config: NodeConfig, *, crash: bool = False) -> AsyncIterator[Shop]:
    """The node, which drains at the end unless it is to `crash`."""
    ended = trio.Event()

    async def run(node: Node, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await node.run(task_status=task_status)
        ended.set()

    async with trio.open_nursery() as nursery:
        node = Node(config)
        await nursery.start(run, node)
        shop = Shop(node, nursery)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{node.http_port}", timeout=20) as shop.web:
            with trio.fail_after(20):
                while node.books.poster is not None and "ledger" not in _up(node):
                    await trio.sleep(0.01)
                    if node.books.poster.alarm:
                        break
            yield shop
        if not crash:
            node.stop()
            with trio.fail_after(20):
                await ended.wait()
        nursery.cancel_scope.cancel()


def _up(node: Node) -> set[str]:
    return {component.name for component in node.health.components.values() if component.up}


def lose(directory: Path, what: str) -> None:
    """Somebody removes the ledger's or the journal's file."""
    for file in directory.glob(f"{what}.sqlite3*"):
        file.unlink()


async def pages(shop: Shop, name: str, **query: str | int) -> list[dict[str, Any]]:
    """The whole history, two rows at a time."""
    rows: list[dict[str, Any]] = []
    cursor = "0"
    while True:
        page = await shop.get(f"/api/accounts/{name}/history", limit=2, cursor=cursor, **query)
        assert len(page["lines"]) <= 2
        rows += page["lines"]
        if page["cursor"] is None:
            return rows
        cursor = page["cursor"]


def tamper(directory: Path, name: str, debits: int) -> None:
    """Somebody writes other debits into the ledger's file."""
    key = account_id("test.node", Kind.PEER, name, Asset("USD", 6)).to_bytes(16, "big")
    with sqlite3.connect(directory / "ledger.sqlite3") as database:
        (record,) = database.execute("SELECT record FROM account WHERE id = ?", (key,)).fetchone()
        record = record[:32] + debits.to_bytes(16, "little") + record[48:]
        database.execute("UPDATE account SET record = ? WHERE id = ?", (record, key))
    database.close()
