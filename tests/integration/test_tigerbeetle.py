"""TigerBeetle's adapter when things go wrong: outages, evictions, hang-ups, cancellation."""

import gc
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import trio
import trio.testing
from loguru import logger
from tigerbeetle.bindings import Operation, PacketStatus

from connector.core.transfers import Transfer, pack
from connector.errors import Unavailable
from connector.ledger import tb_client, tb_log
from connector.ledger.api import LedgerAccount
from connector.ledger.status import TransferStatus
from connector.ledger.tigerbeetle import TigerBeetle, open_tigerbeetle
from tests.contract.tigerbeetle_server import CLUSTER_ID, MISSING, TigerBeetleServer, find_server, free_port

pytestmark = [
    pytest.mark.tigerbeetle,
    pytest.mark.skipif(find_server() is None, reason=MISSING),
]

#: Sessions that a cluster remembers, and connections that a server with `--development` takes.
SESSIONS_MAX = 64
CONNECTIONS_MAX = 8
A, B = 1, 2


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TigerBeetleServer]:
    with TigerBeetleServer(tmp_path_factory.mktemp("tigerbeetle")) as server:
        yield server


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> float:
    """How long a request may take, so that tests need not wait for 10 s."""
    timeout_s = 2.0
    monkeypatch.setattr(tb_client, "LEDGER_REQUEST_TIMEOUT_S", timeout_s)
    return timeout_s


Open = Callable[[], Awaitable[TigerBeetle]]


@pytest.fixture
async def opened(server: TigerBeetleServer) -> AsyncIterator[Open]:
    """Opens sessions, which end with the test: a server takes few connections at a time."""
    ledgers = []

    async def open_one() -> TigerBeetle:
        ledger = await open_tigerbeetle(CLUSTER_ID, server.address)
        ledgers.append(ledger)
        await ledger.create_accounts([LedgerAccount(id=ident, ledger=1, code=1) for ident in (A, B)])
        return ledger

    yield open_one
    server.resume()
    for ledger in ledgers:
        await ledger.aclose()


async def debits(ledger: TigerBeetle) -> int:
    return (await ledger.lookup_accounts([A]))[0].debits_posted


async def come_and_go(server: TigerBeetleServer) -> None:
    await (await open_tigerbeetle(CLUSTER_ID, server.address)).aclose()


def transfers(first: int, count: int) -> bytes:
    return b"".join(
        pack(Transfer(id=ident, debit_account_id=A, credit_account_id=B, amount=1, ledger=1, code=1))
        for ident in range(first, first + count)
    )


async def test_nobody_listens(impatient: float) -> None:
    address = f"127.0.0.1:{free_port()}"
    started = trio.current_time()
    with pytest.raises(Unavailable) as caught:
        await open_tigerbeetle(CLUSTER_ID, address)
    assert impatient <= trio.current_time() - started < impatient + 1
    assert str(caught.value) == (
        f"TigerBeetle at {address}: no answer in 10 s; what was asked may still be done "
        f"(are its servers running, is {CLUSTER_ID} the id of their cluster, "
        "and are fewer clients connected than they take?)"
    ).replace("10 s", f"{impatient:g} s")


async def test_another_cluster(server: TigerBeetleServer, impatient: float) -> None:
    with pytest.raises(Unavailable, match="is 99 the id of their cluster,"):
        await open_tigerbeetle(99, f"localhost:{server.port}")


async def test_replicas_that_the_client_does_not_take(server: TigerBeetleServer) -> None:
    with pytest.raises(ValueError, match=r"HOST:PORT is expected, .*, not 'x:y:z'"):
        await open_tigerbeetle(CLUSTER_ID, "x:y:z")


async def test_the_servers_say_how_much_they_take(opened: Open) -> None:
    ledger = await opened()
    assert ledger.batch_max == 253
    statuses = await ledger.create_transfers(transfers(10**6, 253))
    assert statuses == [TransferStatus.CREATED] * 253
    ledger._batch_max = 254
    with pytest.raises(Unavailable, match="its servers take fewer events a request than were sent: 254"):
        await ledger.create_transfers(transfers(2 * 10**6, 254))
    # Nothing was asked, and the session goes on.
    assert await ledger.create_transfers(transfers(10**6, 1)) == [TransferStatus.EXISTS]


async def test_a_server_that_is_killed_and_started_again_answers_the_request(
    server: TigerBeetleServer,
    opened: Open,
) -> None:
    ledger = await opened()
    before = await debits(ledger)
    statuses: list[int] = []

    async def ask() -> None:
        statuses.extend(await ledger.create_transfers(transfers(3 * 10**6, 253)))

    async with trio.open_nursery() as nursery:
        server.pause()
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        server.kill()
        await trio.to_thread.run_sync(server.start)
    assert statuses == [TransferStatus.CREATED] * 253
    assert await debits(ledger) == before + 253


async def test_a_request_given_up_is_applied_once_when_it_is_sent_again(
    server: TigerBeetleServer, opened: Open, impatient: float
) -> None:
    ledger = await opened()
    before = await debits(ledger)
    events = transfers(4 * 10**6, 100)
    server.pause()
    with pytest.raises(Unavailable, match="no answer in 2 s; what was asked may still be done"):
        await ledger.create_transfers(events)
    with pytest.raises(Unavailable, match="no answer in 2 s"):
        await ledger.lookup_accounts([A])
    server.resume()
    again = await opened()
    # The first request was in the server's socket, and may have been served.
    assert set(await again.create_transfers(events)) < {TransferStatus.CREATED, TransferStatus.EXISTS}
    assert set(await again.create_transfers(events)) == {TransferStatus.EXISTS}
    assert await debits(again) == before + 100


async def test_requests_are_made_in_the_order_they_were_asked(opened: Open) -> None:
    ledger = await opened()
    answered: list[int] = []

    async def ask(number: int) -> None:
        await ledger.create_transfers(transfers(5 * 10**6 + 100 * number, 100))
        answered.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(ask, number)
            await trio.testing.wait_all_tasks_blocked()
    assert answered == list(range(20))


async def test_a_cancelled_task_takes_nothing_with_it(server: TigerBeetleServer, opened: Open) -> None:
    ledger = await opened()
    before = await debits(ledger)
    async with trio.open_nursery() as nursery:
        server.pause()
        nursery.start_soon(ledger.create_transfers, transfers(6 * 10**6, 253))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert len(tb_client._in_flight) == 1
    server.resume()
    # It was sent, and what comes next waits for it.
    assert await debits(ledger) == before + 253
    assert tb_client._in_flight == {}


async def test_closing_ends_a_request_under_way(server: TigerBeetleServer, opened: Open) -> None:
    ledger = await opened()
    server.pause()

    async def ask() -> None:
        with pytest.raises(Unavailable, match="the session was closed; what was asked may still be done"):
            await ledger.create_transfers(transfers(7 * 10**6, 1))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        await ledger.aclose()
    server.resume()
    with pytest.raises(Unavailable, match="the session was closed"):
        await ledger.lookup_accounts([A])


async def test_a_session_too_many_ends_the_oldest_and_reopening_works(
    server: TigerBeetleServer, opened: Open
) -> None:
    first = await opened()
    # The cluster remembers the sessions of clients that are gone.
    for _ in range(0, SESSIONS_MAX, CONNECTIONS_MAX - 1):
        async with trio.open_nursery() as nursery:
            for _ in range(CONNECTIONS_MAX - 1):
                nursery.start_soon(come_and_go, server)
    with pytest.raises(Unavailable, match="the cluster ended this session, for it takes 64 clients"):
        await first.lookup_accounts([A])
    with pytest.raises(Unavailable, match="the cluster ended this session"):
        await first.lookup_accounts([A])
    again = await opened()
    assert len(await again.lookup_accounts([A, B])) == 2


async def test_fifty_outages_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch, opened: Open) -> None:
    monkeypatch.setattr(tb_client, "LEDGER_REQUEST_TIMEOUT_S", 0.02)
    address = f"127.0.0.1:{free_port()}"
    limiter = trio.to_thread.current_default_thread_limiter()
    handles = len(tb_client._handles)

    async def outage() -> None:
        with pytest.raises(Unavailable, match="no answer in"):
            await open_tigerbeetle(CLUSTER_ID, address)

    await outage()
    native, known = native_threads(), threading.active_count()
    for _ in range(50):
        await outage()
    # Trio keeps a few idle threads at hand.
    assert native_threads() < native + 10
    assert threading.active_count() < known + 10
    assert limiter.borrowed_tokens == 0
    assert tb_client._in_flight == {}
    assert len(tb_client._handles) == handles
    monkeypatch.undo()
    ledger = await opened()
    assert len(await ledger.lookup_accounts([A])) == 1


def native_threads() -> int:
    """Those of the library too, which Python does not know."""
    return len(list(Path("/proc/self/task").iterdir()))


async def test_memory_that_the_library_still_has_is_kept(server: TigerBeetleServer, opened: Open) -> None:
    ledger = await opened()
    server.pause()
    for number in range(20):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ledger.create_transfers, transfers(8 * 10**6 + 100 * number, 100))
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
    gc.collect()
    (request,) = tb_client._in_flight.values()
    assert request.events == transfers(8 * 10**6, 100)
    server.resume()
    await ledger.lookup_accounts([A])
    # Those that waited for their turn were never sent.
    found = await ledger.lookup_transfers([8 * 10**6 + 100 * number for number in range(20)])
    assert [transfer.id for transfer in found] == [8 * 10**6]


async def test_what_the_client_says_is_a_log_line_and_nothing_else(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, impatient: float
) -> None:
    logger.remove()
    for level in tb_log._levels.values():
        monkeypatch.setattr(level, "_allowance", 3.0)
    lines: list[str] = []
    sink = logger.add(lines.append, level="DEBUG", format="{level} {message}")
    with pytest.raises(Unavailable):
        await open_tigerbeetle(CLUSTER_ID, f"127.0.0.1:{free_port()}")
    logger.remove(sink)
    assert len(lines) == 3
    assert all(line.startswith("DEBUG TigerBeetle's client: ") for line in lines)
    assert "ConnectionRefused" in lines[0]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("CLIENT_RELEASE_TOO_LOW", "no longer speak with clients of version .*: update the connector"),
        ("CLIENT_RELEASE_TOO_HIGH", "are older than this client, version .*: update all of them"),
    ],
)
async def test_versions_that_do_not_fit(
    opened: Open, monkeypatch: pytest.MonkeyPatch, status: str, reason: str
) -> None:
    ledger = await opened()
    answer = tb_client.Client._answer

    def mismatch(client: tb_client.Client, request: tb_client._Request) -> bytes:
        request.status = PacketStatus[status].value
        return answer(client, request)

    with monkeypatch.context() as patched:
        patched.setattr(tb_client.Client, "_answer", mismatch)
        with pytest.raises(Unavailable, match=reason):
            await ledger.lookup_accounts([A])
    with pytest.raises(Unavailable, match=reason):
        await ledger.lookup_accounts([A])


async def test_what_the_library_calls_invalid_is_a_bug(opened: Open) -> None:
    ledger = await opened()
    with pytest.raises(AssertionError, match="INVALID_DATA_SIZE"):
        await ledger._client.request(Operation.LOOKUP_ACCOUNTS, b"x")
    with pytest.raises(AssertionError, match="INVALID_OPERATION"):
        await ledger._client.request(Operation.PULSE, b"")
