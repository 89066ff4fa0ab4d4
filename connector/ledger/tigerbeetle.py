"""The ledger in a TigerBeetle cluster: one session, after an outage a new one.

Answers are TigerBeetle's own, and transfers go out as they come in: packed.
After any Unavailable but that of `TooMuchData`, close and open again.
"""

import sys
from collections.abc import Iterator, Sequence
from typing import Final

from tigerbeetle.bindings import Operation

from connector.core.transfers import TRANSFER_BYTES, Transfer, unpack
from connector.errors import Unavailable
from connector.ledger import layouts
from connector.ledger.api import AccountQuery, Balance, LedgerAccount, TooMuchData
from connector.ledger.replicas import parse_replicas
from connector.ledger.resolve import resolve
from connector.ledger.tb_client import Client, open_client
from connector.limits import LEDGER_BATCH_MAX

assert sys.byteorder == "little", "TigerBeetle runs on little-endian machines only"

_ID_BYTES: Final = 16
_RESULT_WORDS: Final = 4  # timestamp (two), status, reserved
#: An id that no account of ours has, to ask for when only the answer matters.
_NOBODY: Final = layouts.octets(1 << 127)


class TigerBeetle:
    """`Ledger` on a cluster; use `open_tigerbeetle`."""

    def __init__(self, client: Client, batch_max: int) -> None:
        self._client = client
        self._batch_max = batch_max

    @property
    def batch_max(self) -> int:
        """The most events, ids or rows of one request."""
        return self._batch_max

    async def create_accounts(self, accounts: Sequence[LedgerAccount]) -> list[int]:
        """A status for each. Linked chains are sent whole, and must fit a request."""
        statuses: list[int] = []
        for batch in layouts.requests(accounts, self._batch_max):
            events = b"".join(map(layouts.pack_account, batch))
            statuses += _statuses(await self._ask(Operation.CREATE_ACCOUNTS, events, len(batch)))
        return statuses

    async def create_transfers(self, events: bytes) -> Sequence[int]:
        """A status for each; at most `batch_max`, for only callers know where a batch may be cut."""
        count, rest = divmod(len(events), TRANSFER_BYTES)
        assert rest == 0
        if count > self._batch_max:
            # A request that was recorded when the servers took more.
            raise TooMuchData(
                f"a request of {count} transfers waits, and TigerBeetle takes {self._batch_max} now: "
                "start it with the limits that it had, until all is posted"
            )
        statuses = _statuses(await self._ask(Operation.CREATE_TRANSFERS, events, count))
        assert len(statuses) == count
        return statuses

    async def lookup_accounts(self, ids: Sequence[int]) -> list[LedgerAccount]:
        """Those that exist, in the order of `ids`, which may be any number."""
        found: list[LedgerAccount] = []
        for part in self._parts(ids):
            found += layouts.unpack_accounts(await self._ask(Operation.LOOKUP_ACCOUNTS, *part))
        return found

    async def lookup_transfers(self, ids: Sequence[int]) -> list[Transfer]:
        """Those that exist, in the order of `ids`, which may be any number."""
        found: list[Transfer] = []
        for part in self._parts(ids):
            found += unpack(await self._ask(Operation.LOOKUP_TRANSFERS, *part))
        return found

    async def query_accounts(
        self, *, user_data_128: int, code: int, limit: int, reversed: bool = False
    ) -> list[LedgerAccount]:
        """Accounts with that user data and code (0: any), in the order they were made."""
        assert limit <= self._batch_max
        filter_ = layouts.pack_query_filter(
            user_data_128=user_data_128, code=code, limit=limit, reversed=reversed
        )
        return layouts.unpack_accounts(await self._ask(Operation.QUERY_ACCOUNTS, filter_, limit))

    async def account_transfers(self, query: AccountQuery) -> list[Transfer]:
        """Transfers of an account, in the order they were posted."""
        assert query.limit <= self._batch_max
        filter_ = layouts.pack_account_filter(query)
        return unpack(await self._ask(Operation.GET_ACCOUNT_TRANSFERS, filter_, query.limit))

    async def account_balances(self, query: AccountQuery) -> list[Balance]:
        """Balances over time of an account made with the history flag; empty for others."""
        assert query.limit <= self._batch_max
        filter_ = layouts.pack_account_filter(query)
        return layouts.unpack_balances(await self._ask(Operation.GET_ACCOUNT_BALANCES, filter_, query.limit))

    async def aclose(self) -> None:
        """End the session, in at most 2 s. Requests under way end in Unavailable."""
        await self._client.aclose()

    async def _ask(self, operation: Operation, events: bytes, count: int) -> bytes:
        try:
            return await self._client.request(operation, events)
        except TooMuchData as error:
            raise TooMuchData(
                f"{error}: {count}; give every server the same --limit-request (1 MiB is the default), "
                "or restart the connector when they were restarted with less"
            ) from None

    def _parts(self, ids: Sequence[int]) -> Iterator[tuple[bytes, int]]:
        for start in range(0, len(ids), self._batch_max):
            part = ids[start : start + self._batch_max]
            yield layouts.pack_ids(part), len(part)


def _statuses(results: bytes) -> list[int]:
    """The status in each result of 16 octets, without a step of Python for each."""
    return memoryview(results).cast("I")[2::_RESULT_WORDS].tolist()


async def open_tigerbeetle(cluster_id: int, replicas: str, batch_max: int = LEDGER_BATCH_MAX) -> TigerBeetle:
    """A session with the cluster whose `replicas` are at host:port, separated by commas.

    Resolves host names anew, and waits until the cluster has answered once,
    which takes 0.6 s. `batch_max` becomes less when the servers take less, as
    with `--development`. Raises Unavailable when a name cannot be resolved or
    no answer comes in 10 s, ValueError when `replicas` cannot be read.
    """
    addresses = await resolve(parse_replicas(replicas))
    name = f"TigerBeetle at {addresses}"
    client = await open_client(cluster_id, addresses, name)
    try:
        return TigerBeetle(client, await _accepted(client, batch_max))
    except Unavailable as error:
        await client.aclose()
        raise Unavailable(
            f"{error} (are its servers running, is {cluster_id} the id of their cluster, "
            "and are fewer clients connected than they take?)"
        ) from error
    except BaseException:
        await client.aclose()
        raise


async def _accepted(client: Client, batch_max: int) -> int:
    """How many events the servers take, `batch_max` at most.

    Only the library knows the octets of a request, and refuses more by itself.
    A lookup that is refused tells: each id has 16. Servers that take lookups of
    `batch_max` ids but not as many transfers, eight times as long, stay undetected
    here: set `batch_max` for those.
    """
    fits, refused = 0, batch_max + 1
    probe = batch_max
    while refused - fits > 1:
        try:
            await client.request(Operation.LOOKUP_ACCOUNTS, _NOBODY * probe)
            fits = probe
        except TooMuchData:
            refused = probe
        probe = (fits + refused) // 2
    if fits == batch_max:
        return batch_max
    # A request ends with a trailer of at least one event's size.
    return ((fits + 1) * _ID_BYTES - TRANSFER_BYTES) // TRANSFER_BYTES
