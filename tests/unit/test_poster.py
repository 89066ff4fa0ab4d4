"""The poster: everything is posted once and in order, whatever the ledger and the process do."""

from pathlib import Path

import pytest
import trio
import trio.testing

from connector.core.transfers import TRANSFER_BYTES, unpack
from connector.ledger import poster as poster_module
from connector.ledger import recovery
from connector.ledger.attach import ForeignLedger
from connector.ledger.outcome import LedgerRefusal
from tests.unit.posting_helpers import Office


async def day(office: Office, *, retries: bool = True) -> None:
    """Packets that end at once, later, and never; what cannot be is left out on a second try."""
    if not office.cashier.packets:
        office.packets(3, ends="commit")
        office.packets(5)
        office.packets(2, ends="doubt")
        office.cashier.step("settle", 1, 1, 7)
    await office.post(retries=retries)


async def evening(office: Office) -> None:
    office.end_all("commit")
    office.cashier.step("unrelayed", 0, 0, 0)
    office.packets(4, ends="void")
    office.cashier.step("close", 0, 1, 0)
    await office.post()


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path / "office")


async def test_everything_is_posted_in_order(office: Office, autojump_clock: object) -> None:
    office.batch_max = 1_000
    await day(office)
    await evening(office)
    await office.check()
    assert office.poster.posted == office.journal.appended == office.store.last()
    assert office.poster.unposted == 0
    assert office.poster.transfers == sum(map(len, office.sent)) // TRANSFER_BYTES
    numbers = [min(transfer.user_data_64 for transfer in unpack(request)) for request in office.sent]
    assert numbers == sorted(numbers)
    # What ends within one request is posted at once, or never heard of.
    voided = [t for request in office.sent for t in unpack(request) if t.flags & 0b1000]
    assert voided == []


@pytest.mark.parametrize("fails_after", [False, True])
@pytest.mark.parametrize("restarts", [False, True])
async def test_an_outage_at_any_step_loses_and_doubles_nothing(
    tmp_path: Path, fails_after: bool, restarts: bool, autojump_clock: object
) -> None:
    calm = Office(tmp_path / "calm")
    await day(calm)
    steps = calm.calls
    assert steps > 10
    for step in range(steps):
        office = Office(tmp_path / f"{step}")
        office.fails_at, office.fails_after = step, fails_after
        await day(office, retries=not restarts)
        if restarts:
            assert office.outages == 1
            before = list(office.sent)
            office.crash()
            office.start()
            await day(office)
            if before and step < steps - 1 and len(office.sent) > len(before):
                again = office.sent[len(before)]
                assert again in before or not set(_ids(again)) & {i for b in before for i in _ids(b)}
        assert office.outages == 1
        await office.check()
        await evening(office)
        await office.check()
        office.crash()


def _ids(request: bytes) -> list[int]:
    return [transfer.id for transfer in unpack(request)]


async def test_a_restart_resends_what_was_not_answered_octet_for_octet_before_anything_else(
    office: Office, autojump_clock: object
) -> None:
    office.packets(1, ends="commit")
    await office.post()
    office.packets(6)
    office.fails_at = office.calls + 5
    office.fails_after = True
    while not office.outages:
        office.fails_at = office.calls + 4
        await office.post(retries=False)
        office.packets(1)
    unanswered = office.sent[-1]
    office.crash()
    # In the next life they have ended: they are posted after they were pending, all the same.
    office.end_all("commit")
    office.start()
    sent = len(office.sent)
    await office.post()
    assert office.sent[sent] == unanswered
    await office.check()


# --- ledgers that are not ours ---


@pytest.mark.parametrize("restarts", [False, True])
async def test_a_wiped_ledger_is_not_filled_without_asking(
    office: Office, restarts: bool, autojump_clock: object
) -> None:
    await day(office)
    office.wipe()
    office.poster.fills_empty = office.fills_empty = False
    if restarts:
        office.crash()
        office.start()
    office.end_all("commit")
    with pytest.raises(ForeignLedger, match=r"the ledger is empty, and the journal has balances"):
        await office.post()
    assert "the ledger is empty" in office.poster.alarm
    assert office.poster.ledger is None
    # Somebody confirms.
    office.poster.fills_empty = True
    await office.post()
    assert office.poster.alarm == ""
    await office.check()
    await evening(office)
    await office.check()


@pytest.mark.parametrize("fails_after", [False, True])
async def test_an_opening_that_was_cut_short_goes_on(
    office: Office, fails_after: bool, autojump_clock: object
) -> None:
    await day(office)
    for step in range(40):
        office.wipe()
        office.packets(1)
        office.fails_at, office.fails_after = office.calls + step, fails_after
        await office.post(retries=False)
        office.crash()
        office.start()
        office.packets(1, ends="commit")
        await office.post()
        await office.check()
        office.fails_at = -1


async def test_a_new_journal_does_not_open_a_ledger_with_nothing_in_it_twice(
    office: Office, autojump_clock: object
) -> None:
    office.fills_empty = office.poster.fills_empty = False
    await office.post()  # Nothing to bring: nobody is asked.
    office.packets(2, ends="commit")
    await office.post()
    await office.check()


async def test_another_journals_ledger_is_refused(
    office: Office, tmp_path: Path, autojump_clock: object
) -> None:
    await day(office)
    other = Office(tmp_path / "other", office.ledger_path)
    other.packets(1)
    with pytest.raises(ForeignLedger, match=r"holds the books of test\.node from another journal than"):
        await other.post()
    await office.check()


async def test_a_ledger_restored_from_an_older_copy_is_refused(
    office: Office, autojump_clock: object
) -> None:
    await day(office)
    copy = office.keep_copy()
    for _ in range(3):
        office.packets(1, ends="commit")
        await office.post()
    office.restore(copy)
    office.packets(1, ends="commit")
    with pytest.raises(ForeignLedger, match=r"lacks transfers that it had confirmed"):
        await office.post()


@pytest.mark.parametrize("checkpoint_entries", [10**6, 1])
async def test_it_is_found_out_by_the_next_process_too(
    office: Office, checkpoint_entries: int, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    monkeypatch.setattr(poster_module, "CHECKPOINT_ENTRIES", checkpoint_entries)
    await day(office)
    copy = office.keep_copy()
    for _ in range(3 if checkpoint_entries > 1 else 1):
        office.packets(1, ends="commit")
        await office.post(checkpoints=checkpoint_entries == 1)
    office.crash()
    office.restore(copy)
    office.start()
    office.packets(1, ends="commit")
    with pytest.raises(ForeignLedger, match=r"lacks transfers that it had confirmed"):
        await office.post()


async def test_a_copy_that_lacks_the_newest_request_alone_gets_it_again(
    office: Office, autojump_clock: object
) -> None:
    await day(office)
    copy = office.keep_copy()
    office.packets(1, ends="commit")
    await office.post()
    office.crash()
    office.restore(copy)
    office.start()
    office.packets(1, ends="commit")
    await office.post()
    await office.check()


async def test_a_refusal_names_what_was_sent_and_what_is_there(
    office: Office, autojump_clock: object
) -> None:
    await office.post()
    office.packets(1, ends="commit")

    def forge(events: bytes) -> bytes:
        office.forge = lambda events: events
        amount_at = 48
        return events[:amount_at] + (41).to_bytes(8, "little") + events[amount_at + 8 :]

    office.forge = forge

    async def answer_is_lost() -> None:
        office.on_request = trio.lowlevel.checkpoint
        office.fails_at = office.calls
        await office.call(trio.lowlevel.checkpoint)

    office.on_request = answer_is_lost
    with pytest.raises(LedgerRefusal) as caught:
        await office.post()
    message = str(caught.value)
    assert "exists_with_different_amount" in message
    sent, there = message.split("the ledger holds:")
    assert "amount=37" in sent or "amount=40" in sent
    assert "amount=41" in there
    assert office.poster.alarm == message
    assert office.outages == 1


# --- under load ---


async def test_load_that_never_ends_keeps_neither_news_nor_checkpoints_back(
    office: Office, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    monkeypatch.setattr(poster_module, "CHECKPOINT_ENTRIES", 12)
    told: list[int] = []

    async def more() -> None:
        """There is always something new before an answer comes."""
        told.append(office.recognised)
        if len(told) < 20:
            office.packets(2, ends="commit")
            office.journal.append(office.book.take_log(), lambda: None)
            await office.journal.wait_durable(office.journal.appended)

    office.on_request = more
    office.packets(2, ends="commit")
    await office.post()
    assert told[0] == 1, "it was recognised before anything was posted"
    await office.post()
    checkpoint = office.store.checkpoint(recovery.LEDGER)
    assert checkpoint is not None
    assert checkpoint.last > 30
    await office.check()


async def test_whoever_compares_is_let_in_between_two_requests(
    office: Office, autojump_clock: object
) -> None:
    seen: list[tuple[bool, int]] = []

    async def look(ledger: object, posting: object) -> None:
        seen.append((ledger is not None, office.poster.unposted))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(office.journal.run)
        nursery.start_soon(office.poster.run)
        await trio.sleep(1)

        async def ask() -> None:
            office.on_request = trio.lowlevel.checkpoint
            nursery.start_soon(office.poster.compare, look)
            await trio.testing.wait_all_tasks_blocked()

        office.on_request = ask
        office.packets(30)
        office.journal.append(office.book.take_log(), lambda: None)
        await office.poster.wait_posted(office.journal.appended)
        nursery.cancel_scope.cancel()
    assert len(seen) == 1
    assert seen[0][1] > 0, "not all was posted by then"
    await office.check()
