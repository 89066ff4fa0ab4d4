"""A node's ledger, with faults: away, slow, lost in the middle of a request, late.

Behind it is the embedded ledger, on a file, called in place. A far ledger is
another machine: it survives its node, and may do what it was asked after the
node has given it up. A near one ends with its node.
"""

import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import trio

from connector.core.accounts import Account
from connector.core.legs import Legs
from connector.core.transfers import Transfer, unpack
from connector.errors import Unavailable
from connector.ledger.api import AccountQuery, Balance, LedgerAccount
from connector.ledger.embedded import EmbeddedLedger, open_embedded
from tests.simulation.network import Script

T = TypeVar("T")
_LATE_MAX_S = 8.0


class Client(Protocol):
    """The process that a session belongs to."""

    @property
    def is_alive(self) -> bool:
        """Whether it has not been killed."""

    @property
    def state_dir(self) -> Path:
        """Where it keeps what is its own."""

    def step(self, name: str) -> None:
        """It is at that point; it may be killed there."""


class LedgerServer:
    """What stands at the other end of one node's sessions."""

    def __init__(self, plan: Script, rng: random.Random, directory: Path, nursery: trio.Nursery) -> None:
        self.plan = plan
        self.random = rng
        self.nursery = nursery
        self.is_away = False
        #: No more faults.
        self.is_calm = False
        self.outages = 0
        self._path = directory / "far.sqlite3"
        self._far: EmbeddedLedger | None = None

    async def open(self, client: Client) -> "Session":
        """A session, for a node."""
        await trio.lowlevel.checkpoint()
        if self.is_away or (not self.is_calm and self.random.random() < self.plan.ledger_loses):
            self.outages += 1
            raise Unavailable("no ledger at that address")
        if self.plan.ledger_is_near:
            return Session(self, client, await self._open(client.state_dir / "ledger.sqlite3"))
        if self._far is None:
            self._far = await self._open(self._path)
        return Session(self, client, self._far)

    @staticmethod
    async def _open(path: Path) -> EmbeddedLedger:
        return await open_embedded(
            path, run_blocking=_in_place, now_ns=lambda: int(trio.current_time() * 1e9) + 1
        )

    def do_later(self, call: Callable[[], Awaitable[object]]) -> None:
        """Do what was asked, though nobody waits for it any more."""
        self.nursery.start_soon(self._late, call)

    async def _late(self, call: Callable[[], Awaitable[object]]) -> None:
        await trio.sleep(self.random.random() * _LATE_MAX_S)
        with suppress(Unavailable):
            await call()

    async def aclose(self) -> None:
        """Close the file of a far ledger."""
        if self._far is not None:
            await self._far.aclose()


async def _in_place(call: Callable[[], T], /) -> T:
    await trio.lowlevel.checkpoint()
    return call()


class Session:
    """`Ledger`, for one node until something goes wrong."""

    def __init__(self, server: LedgerServer, client: Client, ledger: EmbeddedLedger) -> None:
        self.ledger = ledger
        self._server = server
        self._client = client
        self._is_over = False

    @property
    def batch_max(self) -> int:
        return self._server.plan.ledger_batch_max

    async def create_accounts(self, accounts: Sequence[LedgerAccount]) -> list[int]:
        return await self._ask(partial(self.ledger.create_accounts, accounts))

    async def create_transfers(self, events: bytes) -> Sequence[int]:
        assert len(events) <= 128 * self.batch_max, "a request is at most batch_max transfers"
        return await self._ask(partial(self.ledger.create_transfers, events))

    async def lookup_accounts(self, ids: Sequence[int]) -> list[LedgerAccount]:
        return await self._ask(partial(self.ledger.lookup_accounts, ids))

    async def lookup_transfers(self, ids: Sequence[int]) -> list[Transfer]:
        return await self._ask(partial(self.ledger.lookup_transfers, ids))

    async def query_accounts(
        self, *, user_data_128: int, code: int, limit: int, reversed: bool = False
    ) -> list[LedgerAccount]:
        query = partial(self.ledger.query_accounts, user_data_128=user_data_128, code=code)
        return await self._ask(partial(query, limit=limit, reversed=reversed))

    async def account_transfers(self, query: AccountQuery) -> list[Transfer]:
        return await self._ask(partial(self.ledger.account_transfers, query))

    async def account_balances(self, query: AccountQuery) -> list[Balance]:
        return await self._ask(partial(self.ledger.account_balances, query))

    async def aclose(self) -> None:
        self._is_over = True
        if self._server.plan.ledger_is_near:
            await self.ledger.aclose()

    async def _ask(self, call: Callable[[], Awaitable[T]]) -> T:
        server, plan = self._server, self._server.plan
        self._client.step("before a request")
        try:
            # Answers are quick or slow, seldom between.
            await trio.sleep(plan.ledger_delay_max_s * server.random.random() ** 3)
        except trio.Cancelled:
            if not plan.ledger_is_near and server.random.random() < 0.5:
                server.do_later(call)
            raise
        self._check()
        if not server.is_calm and server.random.random() < plan.ledger_loses:
            self._is_over = True
            server.outages += 1
            what = server.random.randrange(3)
            if what == 0:
                await call()
            elif what == 1 and not plan.ledger_is_near:
                server.do_later(call)
            raise Unavailable("the ledger's session was lost")
        answer = await call()
        self._client.step("after a request")
        self._check()
        return answer

    def _check(self) -> None:
        if self._is_over or self._server.is_away or not self._client.is_alive:
            self._is_over = True
            raise Unavailable("the ledger's session is over")


def check_balances(ledger: EmbeddedLedger, legs: Legs, accounts: Sequence[Account], whose: str) -> None:
    """The ledger has each of `accounts` as it is here."""
    ids = [legs.side(account).id for account in accounts]
    found = {row.id: row for row in ledger._store.lookup_accounts(ids)}
    for account, ident in zip(accounts, ids, strict=True):
        row = found.get(ident)
        there = (0, 0, 0, 0)
        if row is not None:
            there = (row.debits_posted, row.credits_posted, row.debits_pending, row.credits_pending)
        assert account.balance() == there, f"{whose} {account}: {account.balance()}, the ledger has {there}"


def all_transfers(ledger: EmbeddedLedger) -> list[Transfer]:
    """Every transfer in the ledger."""
    rows = ledger._store._db.execute("SELECT record FROM transfer ORDER BY timestamp")
    return unpack(b"".join(record for (record,) in rows))
