"""A node and its books: what leaves and when, what is in doubt, and what happens when they fail."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing
from loguru import logger

from connector.core.accounts import Account, Reservation
from connector.core.book import Book
from connector.core.entries import Side
from connector.limits import FULFILL_HOLD_MAX_MS
from connector.protocol import btp, ilp
from tests.integration.booked import Booked, LedgerSwitch, booked
from tests.integration.peers import FULFILL, Peer, child, prepare
from tests.unit.books_helpers import balances, check_balanced, picture

#: Longer than any pause between two attempts.
RETRIED_S = 40


async def hears_nothing(peer: Peer, seconds: float) -> bool:
    with trio.move_on_after(seconds):
        await peer.receive()
        return False
    return True


async def open_packet(alice: Peer, bob: Peer, request_id: int = 2, amount: int = 100) -> int:
    """A packet that bob has and does not answer yet; the request id that bob is to answer."""
    await alice.ask(prepare(amount=amount), request_id)
    frame = await bob.receive()
    assert isinstance(frame, btp.Message)
    return frame.request_id


async def pay(alice: Peer, bob: Peer, request_id: int, amount: int = 100) -> None:
    await bob.reply(await open_packet(alice, bob, request_id, amount), FULFILL)
    assert isinstance(await alice.answer(), ilp.Fulfill)


async def check_books(world: Booked) -> None:
    """Journal and ledger, once they have everything, hold the book."""
    await world.journal.wait_committed()
    await world.poster.wait_posted(world.journal.appended)
    check_balanced(world.node.book)
    written = Book()
    for batch in world.journal.store.read_all(0):
        written.replay(batch.entries)
    assert picture(written) == picture(world.node.book)

    async def look(ledger: object, posting: object) -> None:
        assert ledger is not None

    await world.poster.compare(look)
    assert world.poster._posting is not None
    assert balances(world.poster._posting.book) == balances(world.node.book)


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """Log lines, as `LEVEL message`."""
    found: list[str] = []
    handler = logger.add(lambda line: found.append(line.rstrip()), format="{level} {message}", level="INFO")
    yield found
    logger.remove(handler)


# --- when frames leave ---


async def test_a_prepare_leaves_when_its_entry_is_committed_and_never_before(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with booked(tmp_path) as world:
        alice, bob = await world.peer("alice"), await world.peer("bob")
        await trio.sleep(1)
        world.disk.hold()
        before = world.journal.committed
        await alice.ask(prepare(), 2)
        assert await hears_nothing(bob, 5)
        assert world.journal.committed == before < world.journal.appended
        world.disk.let_go()
        frame = await bob.receive()
        assert world.journal.committed == world.journal.appended
        assert isinstance(frame, btp.Message)
        await bob.reply(frame.request_id, FULFILL)
        assert isinstance(await alice.answer(), ilp.Fulfill)
        await check_books(world)


async def test_a_prepare_that_was_rejected_while_it_waited_never_leaves(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with booked(tmp_path) as world:
        alice, bob = await world.peer("alice"), await world.peer("bob")
        await trio.sleep(1)
        world.disk.hold()
        soon_ms = world.node._now().wall_ms + 1_500
        await alice.ask(prepare(expires_at_ms=soon_ms), 2)
        assert (await alice.rejection()).code == "R00"
        world.disk.let_go()
        assert await hears_nothing(bob, 5)
        assert world.hop("bob").account.balance() == (0, 0, 0, 0)
        await check_books(world)


async def test_a_fulfill_waits_for_its_commit_20_ms_at_most(tmp_path: Path, autojump_clock: object) -> None:
    async with booked(tmp_path) as world:
        alice, bob = await world.peer("alice"), await world.peer("bob")
        request_id = await open_packet(alice, bob)
        await trio.sleep(1)
        world.disk.hold()
        start = trio.current_time()
        await bob.reply(request_id, FULFILL)
        assert isinstance(await alice.answer(), ilp.Fulfill)
        assert trio.current_time() - start <= FULFILL_HOLD_MAX_MS / 1000 + 1e-6
        assert world.journal.committed < world.journal.appended
        world.disk.let_go()
        await check_books(world)
        assert world.node.book.doubts == {}


# --- a journal that fails ---


async def test_while_the_journal_fails_fulfills_pass_and_prepares_do_not(
    tmp_path: Path, autojump_clock: object, lines: list[str]
) -> None:
    async with booked(tmp_path) as world:
        alice, bob = await world.peer("alice"), await world.peer("bob")
        first = await open_packet(alice, bob)
        await trio.sleep(1)
        assert world.node.health.status == "ready"
        world.disk.failure = "the disk is full"
        await alice.ask(prepare(), 3)
        held = await alice.rejection()
        assert (held.code, held.message) == ("T00", "this connector cannot write its books now")
        await alice.ask(prepare(), 4)
        assert (await alice.rejection()).code == "T00"
        await bob.reply(first, FULFILL)
        assert isinstance(await alice.answer(), ilp.Fulfill)
        assert await hears_nothing(bob, 5)
        assert world.component("journal") == (False, "the disk is full")
        assert world.node.health.status == "unavailable"
        assert world.hop("alice").account.net == 100
        assert world.disk.failed > 1
        world.disk.failure = ""
        await trio.sleep(RETRIED_S)
        assert world.component("journal") == (True, "")
        assert world.node.health.status == "ready"
        await pay(alice, bob, 5)
        await check_books(world)
    said = [line for line in lines if "journal" in line and "WARNING" not in line and "books in" not in line]
    said = [line for line in said if "keeps up" not in line]
    assert said == [
        "ERROR new packets are refused, since the journal cannot be written: the disk is full",
        "INFO the journal works again",
    ]


# --- links that are lost ---


async def test_a_fulfill_that_had_not_left_its_lost_link_is_in_doubt(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with booked(tmp_path) as world:
        alice, bob = await world.peer("alice"), await world.peer("bob")
        alices_end = world.ends[0]
        request_id = await open_packet(alice, bob)
        await trio.sleep(1)
        alices_end.send_stream.send_all_hook = trio.sleep_forever  # type: ignore[attr-defined]
        await bob.reply(request_id, FULFILL)
        await trio.testing.wait_all_tasks_blocked()
        await world.journal.wait_durable(world.journal.appended)
        assert world.hop("alice").account.net == 100
        assert world.node.book.doubts == {}
        assert world.node.pipeline.gate.departed() < world.journal.committed
        await trio.aclose_forcefully(alice.stream)
        await trio.sleep(10)
        [doubt] = world.node.book.doubts.values()
        assert (doubt.incoming, doubt.outgoing) == (world.hop("alice").account, None)
        assert world.hop("alice").account.balance() == (100, 100, 100, 0)
        assert world.hop("bob").account.net == -100
        await check_books(world)


async def test_upstream_that_is_gone_before_the_fulfill_may_owe_and_downstream_is_owed(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with booked(tmp_path) as world:
        alice, bob = await world.peer("alice"), await world.peer("bob")
        request_id = await open_packet(alice, bob)
        await trio.aclose_forcefully(alice.stream)
        await trio.sleep(5)
        await bob.reply(request_id, FULFILL)
        await trio.sleep(1)
        [doubt] = world.node.book.doubts.values()
        assert (doubt.incoming_side, doubt.outgoing_side) == (Side.OPEN, Side.OWED)
        assert world.hop("alice").account.balance() == (0, 0, 100, 0)
        assert world.hop("bob").account.balance() == (0, 100, 0, 0)
        await check_books(world)


async def test_downstream_that_is_gone_may_be_owed_from_the_expiry_on(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with booked(tmp_path) as world:
        alice, bob = await world.peer("alice"), await world.peer("bob")
        await open_packet(alice, bob)
        await trio.aclose_forcefully(bob.stream)
        await trio.sleep(5)
        assert world.node.book.doubts == {}
        reject = await alice.rejection()
        assert (reject.code, reject.message) == ("R00", "the link to bob was lost, and with it any answer")
        [doubt] = world.node.book.doubts.values()
        assert (doubt.incoming_side, doubt.outgoing_side) == (Side.CLEAR, Side.OPEN)
        assert world.hop("alice").account.balance() == (0, 0, 0, 0)
        assert world.hop("bob").account.balance() == (0, 0, 0, 100)
        await check_books(world)


async def test_links_lost_while_the_journal_hangs_end_nothing(tmp_path: Path, autojump_clock: object) -> None:
    """What is let go then goes nowhere, and has to be entered anew while it is gone through."""
    async with booked(tmp_path) as world:
        alice, bob = await world.peer("alice"), await world.peer("bob")
        request_id = await open_packet(alice, bob)
        await trio.sleep(1)
        world.disk.hold()
        await bob.reply(request_id, FULFILL)
        for end in (alice, bob):
            await trio.aclose_forcefully(end.stream)
        await trio.sleep(5)
        world.disk.let_go()
        await trio.sleep(5)
        [doubt] = world.node.book.doubts.values()
        assert doubt.incoming_side is Side.OPEN
        await check_books(world)
        await pay(await world.peer("alice"), await world.peer("bob"), 7)
        await check_books(world)


# --- a ledger that is away ---


async def test_without_a_ledger_the_node_starts_and_packets_flow(
    tmp_path: Path, autojump_clock: object, lines: list[str]
) -> None:
    ledger = LedgerSwitch(tmp_path / "ledger.sqlite3")
    ledger.is_there = False
    async with booked(tmp_path, ledger=ledger) as world:
        alice, bob = await world.peer("alice"), await world.peer("bob")
        for request_id in range(2, 7):
            await pay(alice, bob, request_id)
        await trio.sleep(200)
        assert world.component("ledger") == (False, "no ledger answers")
        assert world.node.health.status == "degraded"
        assert world.node.books.ledger_status().state == "degraded"
        assert world.poster.unposted == world.journal.appended > 10
        ledger.is_there = True
        await trio.sleep(RETRIED_S)
        assert world.node.health.status == "ready"
        assert world.node.books.ledger_status().state == "healthy"
        await check_books(world)
    said = [line.partition(":")[0].partition(",")[0] for line in lines if "ledger" in line]
    assert said[-2:] == ["WARNING the ledger is away", "INFO posting to the ledger"]
    assert sum("away" in line for line in said) == 1


async def test_a_ledger_too_far_behind_stops_new_packets_until_it_has_caught_up(
    tmp_path: Path, autojump_clock: object
) -> None:
    ledger = LedgerSwitch(tmp_path / "ledger.sqlite3")
    ledger.is_there = False
    async with booked(tmp_path, ledger=ledger, unposted_max=10) as world:
        alice, bob = await world.peer("alice"), await world.peer("bob")
        late = await open_packet(alice, bob)
        for request_id in range(3, 9):
            await pay(alice, bob, request_id)
        await trio.sleep(2)
        await alice.ask(prepare(), 20)
        reject = await alice.rejection()
        entries = world.poster.unposted
        assert reject.code == "T00"
        assert reject.message == f"this connector's ledger is {entries} entries behind its journal"
        assert world.node.health.status == "unavailable"
        assert world.node.books.ledger_status().state == "refusing"
        # What is in flight still resolves.
        await bob.reply(late, FULFILL)
        assert isinstance(await alice.answer(), ilp.Fulfill)
        ledger.is_there = True
        await trio.sleep(RETRIED_S)
        assert world.node.health.status == "ready"
        await pay(alice, bob, 21)
        await check_books(world)


async def test_a_lag_is_as_old_as_its_oldest_entry_however_long_nothing_came(
    tmp_path: Path, autojump_clock: object
) -> None:
    ledger = LedgerSwitch(tmp_path / "ledger.sqlite3")
    async with booked(tmp_path, ledger=ledger) as world:
        alice, bob = await world.peer("alice"), await world.peer("bob")
        await pay(alice, bob, 2)
        await trio.sleep(5)
        assert world.poster.unposted == 0
        await trio.sleep(3_600)
        world.disk.hold()
        await alice.ask(prepare(), 3)
        await trio.sleep(3)
        assert world.poster.unposted == 1
        assert 2_000 <= world.node.books.lag().age_ms <= 4_100
        world.disk.let_go()


async def test_a_lag_is_as_old_as_its_oldest_entry_also_after_a_restart(
    tmp_path: Path, autojump_clock: object
) -> None:
    ledger = LedgerSwitch(tmp_path / "ledger.sqlite3")
    ledger.is_there = False
    async with booked(tmp_path, ledger=ledger) as world:
        alice, bob = await world.peer("alice"), await world.peer("bob")
        await pay(alice, bob, 2)
    await trio.sleep(3_600)
    async with booked(tmp_path, ledger=ledger) as world:
        assert 3_600_000 <= world.node.books.lag().age_ms <= 3_700_000


async def test_a_node_that_lost_its_journal_takes_no_packets_on_top_of_balances_it_does_not_know(
    tmp_path: Path, autojump_clock: object
) -> None:
    ledger = LedgerSwitch(tmp_path / "ledger.sqlite3")
    async with booked(tmp_path / "before", ledger=ledger) as world:
        alice, bob = await world.peer("alice"), await world.peer("bob")
        await pay(alice, bob, 2)
        await trio.sleep(5)
    async with booked(tmp_path / "after", ledger=ledger) as world:
        alice, bob = await world.peer("alice"), await world.peer("bob")
        await trio.sleep(5)
        await alice.ask(prepare(), 2)
        rejection = await alice.rejection()
        assert (rejection.code, rejection.message) == ("T00", "this connector's books await a decision")
        assert not world.node.health.can_forward


# --- terms ---


async def test_limits_and_thresholds_of_the_configuration_are_those_of_the_account(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with booked(
        tmp_path, child("alice", credit_limit=300), child("bob", settle_threshold=250)
    ) as world:
        alice, bob = await world.peer("alice"), await world.peer("bob")
        assert world.hop("alice").account.credit_limit == 300
        owed = world.hop("bob").account
        assert (owed.threshold, owed.trigger) == (250, 250)
        for request_id in (2, 3, 4):
            await pay(alice, bob, request_id)
        await alice.ask(prepare(amount=1), 5)
        assert (await alice.rejection()).code == "T04"


async def test_a_threshold_is_told_once_and_again_after_a_settlement(
    tmp_path: Path, autojump_clock: object
) -> None:
    told: list[tuple[str, int]] = []

    def reached(account: Account, packet: Reservation | None) -> None:
        assert packet is not None
        told.append((account.name, account.net))

    async with booked(tmp_path, child("alice"), child("bob", settle_threshold=150)) as world:
        world.node.pipeline.on_reached = reached
        alice, bob = await world.peer("alice"), await world.peer("bob")
        for request_id in (2, 3, 4):
            await pay(alice, bob, request_id)
        assert told == [("bob", -200)]
        book, account = world.node.book, world.hop("bob").account
        assert book.settle(account, 290, bytes(16), by_us=True, now_ms=1)
        world.node.pipeline.release()
        await pay(alice, bob, 5)
        assert told == [("bob", -200)], "10 and 100 are below it"
        await pay(alice, bob, 6)
        assert told == [("bob", -200), ("bob", -210)]
        await check_books(world)
