"""How many transfers a second each ledger posts, in full requests: `just bench-ledger`.

Measured are the adapter together with what its caller has to do (make ids and
pack two legs a packet, while the request before is under way), TigerBeetle's
client by itself with what was packed before, and the embedded ledger, packing
included; and the node's own poster, from a journal full of packets, which also
reads, keeps a book, records its requests and looks at every answer (its
accounts are with history). The server is a fresh one with production's limits, on this machine,
so that client and server share its cores.
"""

import argparse
import ctypes
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import trio
from loguru import logger
from tigerbeetle import bindings
from tigerbeetle.lib import c_uint128

from connector.core.transfers import LAYOUT, LINKED
from connector.ledger.api import Ledger, LedgerAccount
from connector.ledger.embedded import open_embedded
from connector.ledger.layouts import HISTORY, octets
from connector.ledger.status import AccountStatus, TransferStatus
from connector.ledger.tigerbeetle import open_tigerbeetle
from tests.bench.backlog import measure_backlog
from tests.contract.tigerbeetle_server import CLUSTER_ID, MISSING, TigerBeetleServer, find_server

ACCOUNTS = 100
#: Two legs a packet: the most whole packets of a request.
PACKETS = 8_189 // 2
LEGS = 2 * PACKETS
CREATED = int(TransferStatus.CREATED)

_next_id = time.time_ns() // 1_000_000 << 80


def packed(accounts: Sequence[bytes]) -> bytes:
    """A full request: linked pairs of legs, from one account over a second to a third."""
    global _next_id
    first = _next_id
    _next_id += LEGS
    pack = LAYOUT.pack
    nothing = bytes(16)
    legs = []
    for number in range(PACKETS):
        ident = first + 2 * number
        payer, payee = accounts[number % ACCOUNTS], accounts[(number + 1) % ACCOUNTS]
        fees = accounts[(number + 2) % ACCOUNTS]
        packet = octets(ident)
        legs.append(pack(packet, payer, payee, 1000, 0, nothing, packet, 7, 0, 0, 1, 1, LINKED, 0))
        legs.append(pack(octets(ident + 1), payer, fees, 1, 0, nothing, packet, 7, 0, 0, 1, 1, 0, 0))
    return b"".join(legs)


async def opened_accounts(ledger: Ledger, history: bool) -> list[bytes]:
    """The ids of new accounts."""
    global _next_id
    first = _next_id
    _next_id += ACCOUNTS
    flags = HISTORY if history else 0
    made = [LedgerAccount(id=first + n, ledger=1, code=1, flags=flags) for n in range(ACCOUNTS)]
    assert set(await ledger.create_accounts(made)) == {AccountStatus.CREATED}
    return [octets(account.id) for account in made]


async def post_while_packing(ledger: Ledger, accounts: list[bytes], requests: int) -> None:
    """Pack each request while the one before is under way."""

    async def post(events: bytes) -> None:
        assert set(await ledger.create_transfers(events)) == {CREATED}

    events = packed(accounts)
    for number in range(requests):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(post, events)
            # The request has left when this task has its turn again.
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            if number + 1 < requests:
                events = packed(accounts)


class BareClient:
    """TigerBeetle's client as it is, blocking: the most that any adapter can reach."""

    def __init__(self, address: str) -> None:
        self._done = threading.Event()
        self._status = -1
        self._client = bindings.CClient()
        self._callback = bindings.OnCompletion(self._completed)
        cluster = c_uint128.from_param(CLUSTER_ID)
        encoded = address.encode()
        status = bindings.tb_client_init(
            ctypes.byref(self._client),
            ctypes.cast(ctypes.byref(cluster), ctypes.POINTER(ctypes.c_uint8 * 16)),
            encoded,
            len(encoded),
            1,
            self._callback,
        )
        assert status == bindings.InitStatus.SUCCESS

    def _completed(self, _context: Any, packet: Any, _timestamp: int, _result: Any, _size: int) -> None:
        self._status = packet.contents.status
        self._done.set()

    def post(self, events: bytes) -> None:
        """Post one request, and wait for its answer."""
        packet = bindings.CPacket(
            user_data=1,
            data=ctypes.cast(ctypes.c_char_p(events), ctypes.c_void_p),
            data_size=len(events),
            operation=bindings.Operation.CREATE_TRANSFERS,
        )
        self._done.clear()
        bindings.tb_client_submit(ctypes.byref(self._client), ctypes.byref(packet))
        self._done.wait()
        assert self._status == bindings.PacketStatus.OK

    def close(self) -> None:
        """End the session."""
        bindings.tb_client_deinit(ctypes.byref(self._client))


async def timed(run: Callable[[], Awaitable[None]], requests: int) -> float:
    """Transfers a second."""
    started = time.perf_counter()
    await run()
    return requests * LEGS / (time.perf_counter() - started)


async def measure_tigerbeetle(address: str, rounds: int, requests: int) -> dict[str, float]:
    """The adapter and the bare client in turns, so that both meet the same server."""
    results: dict[str, float] = {}
    ledger = await open_tigerbeetle(CLUSTER_ID, address)
    bare = BareClient(address)
    for history in (False, True):
        accounts = await opened_accounts(ledger, history)
        await post_while_packing(ledger, accounts, 2)
        bare.post(packed(accounts))
        adapter, client = [], []
        for _ in range(rounds):
            adapter.append(await timed(partial(post_while_packing, ledger, accounts, requests), requests))
            made = [packed(accounts) for _ in range(requests)]

            async def post_made(made: list[bytes] = made) -> None:
                for events in made:
                    bare.post(events)

            client.append(await timed(post_made, requests))
        name = "with history" if history else "without history"
        results[f"adapter, {name}"] = statistics.median(adapter)
        results[f"bare client, {name}"] = statistics.median(client)
    bare.close()
    await ledger.aclose()

    async def reopen() -> Ledger:
        return await open_tigerbeetle(CLUSTER_ID, address)

    packets = requests * PACKETS
    results["poster, from the journal"] = statistics.median(
        [await measure_backlog(reopen, packets) for _ in range(rounds)]
    )
    return results


async def measure_embedded(directory: Path, rounds: int, requests: int) -> dict[str, float]:
    """The embedded ledger, in a file in `directory`."""
    results: dict[str, float] = {}
    for history in (False, True):
        ledger = await open_embedded(directory / f"ledger-{history}.db")
        accounts = await opened_accounts(ledger, history)
        speeds = [
            await timed(partial(post_while_packing, ledger, accounts, requests), requests)
            for _ in range(rounds)
        ]
        results[f"embedded, {'with' if history else 'without'} history"] = statistics.median(speeds)
        await ledger.aclose()

    async def reopen() -> Ledger:
        return await open_embedded(directory / "poster.db")

    results["poster to embedded"] = statistics.median(
        [await measure_backlog(reopen, requests * PACKETS // 2) for _ in range(rounds)]
    )
    return results


def main() -> None:
    """Measure what was asked for, and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured; the median counts")
    parser.add_argument("--requests", type=int, default=20, help="full requests a round")
    parser.add_argument("--cache-grid", default="512MiB", help="the server's cache")
    parser.add_argument("--directory", type=Path, help="where the files are; a temporary directory")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    logger.remove()
    results: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        directory = Path(name)
        if find_server() is None:
            print(f"TigerBeetle is not measured: {MISSING}.", file=sys.stderr)
        else:
            with TigerBeetleServer(directory, development=False, cache_grid=options.cache_grid) as server:
                results |= trio.run(measure_tigerbeetle, server.address, options.rounds, options.requests)
        results |= trio.run(measure_embedded, directory, options.rounds, options.requests)
    if options.json:
        print(json.dumps({"unit": "transfers/s", "cores": os.cpu_count(), "results": results}))
        return
    for what, speed in results.items():
        bare = results.get(
            "bare client, with history" if "poster, from" in what else what.replace("adapter", "bare client")
        )
        compared = bare and what.startswith(("adapter", "poster, from"))
        share = f"  {speed / bare:4.0%} of the bare client" if bare and compared else ""
        print(f"{what:<30}{speed:>12,.0f} transfers/s{share}")


if __name__ == "__main__":
    main()
