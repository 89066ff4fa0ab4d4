"""What people ask of a node's books over HTTP, and what they have booked."""

from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

from connector.core.entries import Side
from connector.core.events import (
    AccountBalance,
    AnyEvent,
    LedgerStatus,
    PacketInDoubt,
    SettlementTriggered,
)
from connector.core.rates import Asset
from connector.errors import Unavailable
from connector.ledger import rebuild
from connector.ledger.embedded import open_embedded
from connector.node import clerk
from tests.integration.keeping import ADMIN, keeping, lose, open_shop, pages, tamper

USD = Asset("USD", 6)
HOLDERS = rebuild.holders_of([("alice", USD), ("bob", USD)], [])
SETTLEMENT = {"amount": "700", "direction": "received", "reference": "bank 17"}


async def test_a_settlement_is_booked_once_for_its_reference_and_survives_a_restart(tmp_path: Path) -> None:
    async with open_shop(keeping(tmp_path)) as shop:
        await shop.pay(1_000)
        first = await shop.post("/api/accounts/alice/settle", SETTLEMENT)
        again = await shop.post("/api/accounts/alice/settle", SETTLEMENT)
        assert (first["already_booked"], again["already_booked"]) == (False, True)
        for change in ({"amount": "41"}, {"direction": "paid"}):
            refusal = await shop.post("/api/accounts/alice/settle", SETTLEMENT | change, status=409)
            assert "is the reference of another payment" in refusal["error"]
        assert first["account"]["net"] == again["account"]["net"] == "300"
        paid = {"amount": 400, "direction": "paid", "reference": "bank 18"}
        assert (await shop.post("/api/accounts/bob/settle", paid))["account"]["net"] == "-600"
    async with open_shop(keeping(tmp_path)) as shop:
        assert (await shop.post("/api/accounts/alice/settle", SETTLEMENT))["already_booked"]
        assert (await shop.net("alice"), await shop.net("bob"), await shop.net("settlement")) == (
            300,
            -600,
            300,
        )
        assert set((await shop.checks(ok=True)).values()) == {"ok"}


async def test_nothing_is_booked_while_the_journal_cannot_be_written(tmp_path: Path) -> None:
    async with open_shop(keeping(tmp_path)) as shop:
        journal = shop.node.books.journal
        assert journal is not None
        # With nothing left to write, nothing succeeds meanwhile.
        await journal.wait_committed()
        journal.failure = "disk full"
        assert "disk full" in (await shop.post("/api/accounts/alice/settle", SETTLEMENT, 503))["error"]
        assert await shop.net("alice") == 0
        assert (await shop.checks(ok=False))["journal"] == "error"
        journal.failure = ""


async def test_a_booking_that_is_not_on_disk_is_not_answered_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clerk, "BOOKING_TIMEOUT_S", 0.05)

    async def never(journal: object, number: int) -> None:
        await trio.sleep_forever()

    async with open_shop(keeping(tmp_path)) as shop:
        with monkeypatch.context() as patch:
            patch.setattr("connector.ledger.journal.Journal.wait_durable", never)
            answer = await shop.post("/api/accounts/alice/settle", SETTLEMENT, 503)
        assert "not on disk yet" in answer["error"]
        assert (await shop.post("/api/accounts/alice/settle", SETTLEMENT))["already_booked"]


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({**SETTLEMENT, "amount": "7.5"}, "amount"),
        ({**SETTLEMENT, "amount": 0}, "amount"),
        ({**SETTLEMENT, "amount": 2**64}, "amount"),
        ({**SETTLEMENT, "direction": "up"}, "direction"),
        ({**SETTLEMENT, "reference": ""}, "reference"),
        ({**SETTLEMENT, "surplus": 1}, None),
        ({"amount": 1}, None),
        ([], None),
    ],
)
async def test_a_body_that_says_something_else_is_refused_with_what_and_where(
    tmp_path: Path, body: object, where: str | None
) -> None:
    async with open_shop(keeping(tmp_path)) as shop:
        answer = await shop.post("/api/accounts/alice/settle", body, 400)
        assert answer.get("where") == where
        assert answer["error"].startswith(where or "")
        assert await shop.net("alice") == 0


async def test_who_may_ask(tmp_path: Path) -> None:
    async with open_shop(keeping(tmp_path)) as shop:
        path, text = "/api/accounts/alice/settle", '{"amount":1,"direction":"paid","reference":"r"}'
        for headers in ({}, {"content-type": "text/plain"}, {**ADMIN, "forwarded": "for=203.0.113.9"}):
            response = await shop.web.post(path, content=text, headers=headers)
            assert response.status_code == 403, headers
        response = await shop.web.post(path, content=text, headers={**ADMIN, "host": "evil.example"})
        assert response.status_code == 403
        assert await shop.net("alice") == 0
        assert (await shop.web.post(path, content=text, headers=ADMIN)).status_code == 200
        assert (await shop.web.post(path, content=b" " * 70_000, headers=ADMIN)).status_code == 413
        assert (await shop.web.get(path)).status_code == 405
        for get in ("/api/ledger", "/api/doctor", "/api/in-doubt", "/api/accounts/alice/history"):
            assert (await shop.web.get(get, headers={"x-forwarded-for": "::1"})).status_code == 403


async def test_what_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    async with open_shop(keeping(tmp_path)) as shop:
        await shop.get("/api/accounts/nobody", 404)
        await shop.get("/api/accounts/alice", 404, asset="EUR")
        await shop.get("/api/accounts/nobody/history", 404)
        await shop.post("/api/accounts/nobody/settle", SETTLEMENT, 404)
        await shop.post("/api/accounts/fees/settle", SETTLEMENT, 400)
        await shop.get("/api/accounts/alice/history", 400, limit=0)
        await shop.post("/api/in-doubt/1", {"side": "incoming", "owed": True}, 404)
        await shop.get("/api/jobs/99", 404)
        await shop.post("/api/ledger/open", {}, 409)
        only = (await shop.get("/api/accounts", name="bob", kind="peer"))["accounts"]
        assert [(row["name"], row["settle_threshold"], row["settlement"]) for row in only] == [
            ("bob", "1000", "none")
        ]


async def test_history_is_what_was_paid(tmp_path: Path) -> None:
    async with open_shop(keeping(tmp_path, spread_ppm=10_000)) as shop:
        await shop.pay(1_000, 2_000, 3_000)
        await shop.post("/api/accounts/alice/settle", SETTLEMENT)
        await shop.posted()
        rows = await pages(shop, "alice")
        assert rows == (await shop.get("/api/accounts/alice/history"))["lines"]
        posted = [row for row in rows if row["state"] == "posted"]
        debits = sum(int(row["amount"]) for row in posted if row["direction"] == "debit")
        assert debits == 6_000
        assert rows[0]["code"] == "settlement"
        assert rows[0]["packet"] is None
        assert (rows[0]["direction"], rows[0]["amount"]) == ("credit", "700")
        assert rows[0]["other"] == {"kind": "settlement", "name": "settlement"}
        assert rows[0]["balance"]["net"] == str(await shop.net("alice")) == "5300"
        times = [row["posted_ms"] for row in rows]
        assert times == sorted(times, reverse=True)
        to_bob = [int(row["amount"]) for row in posted if row["other"] == {"kind": "peer", "name": "bob"}]
        assert to_bob == [2_970, 1_980, 990]
        assert [int(row["amount"]) for row in posted if row["code"] == "fee"] == [30, 20, 10]
        assert await pages(shop, "alice", from_ms=times[-1], to_ms=times[0]) == rows
        assert await pages(shop, "alice", from_ms=times[0] + 10_000) == []
        assert await pages(shop, "alice", to_ms=times[-1] - 10_000) == []
        # Accounts without history have no balances in it.
        assert {row["balance"] for row in await pages(shop, "fees")} == {None}


async def test_a_node_without_books_has_no_history_and_no_ledger(tmp_path: Path) -> None:
    config = keeping(tmp_path)
    async with open_shop(replace(config, journal=replace(config.journal, sync="off"))) as shop:
        await shop.get("/api/accounts/alice/history", 503)
        await shop.post("/api/ledger/open", {}, 409)
        await shop.post("/api/ledger/repair", {}, 503)
        assert (await shop.get("/api/ledger"))["state"] == "off"
        assert (await shop.checks(ok=True))["journal"] == "warning"
        assert not (await shop.post("/api/accounts/alice/settle", SETTLEMENT))["already_booked"]


# --- what is in doubt ---


async def test_what_a_crash_left_open_is_listed_and_closed_side_by_side(tmp_path: Path) -> None:
    async with open_shop(keeping(tmp_path), crash=True) as shop:
        await shop.leave_open(1_000)
    async with open_shop(keeping(tmp_path)) as shop:
        (doubt,) = (await shop.get("/api/in-doubt"))["in_doubt"]
        number = doubt["number"]
        assert (doubt["incoming"]["peer"], doubt["incoming"]["state"]) == ("alice", "open")
        assert (doubt["outgoing"]["peer"], doubt["outgoing"]["amount"]) == ("bob", "1000")
        assert "stopped while it was in flight" in doubt["evidence"]
        assert (await shop.get("/api/accounts/bob"))["account"]["in_doubt"] == 1
        assert (await shop.checks(ok=True))["in doubt"] == "warning"
        owed = await shop.post(f"/api/in-doubt/{number}", {"side": "outgoing", "owed": True})
        assert owed["account"]["net"] == "-1000"
        await shop.post(f"/api/in-doubt/{number}", {"side": "outgoing", "owed": False}, 409)
        await shop.post(f"/api/in-doubt/{number}", {"side": "incoming", "owed": False})
        await shop.post(f"/api/in-doubt/{number}", {"side": "incoming", "owed": False}, 404)
        assert (await shop.get("/api/in-doubt"))["in_doubt"] == []
        assert (await shop.net("alice"), await shop.net("bob"), await shop.net("losses")) == (
            0,
            -1_000,
            1_000,
        )
        await shop.posted()
        assert set((await shop.checks(ok=True)).values()) == {"ok"}


# --- rebuilding ---


async def rebuild_in(directory: Path) -> tuple[rebuild.Plan, Path | None]:
    """What `connector ledger rebuild --yes` does."""
    ledger = await open_embedded(directory / "ledger.sqlite3")
    try:
        plan = await rebuild.plan(ledger, "test.node", HOLDERS)
        return plan, await rebuild.carry_out(plan, ledger, directory, "always")
    finally:
        await ledger.aclose()


@pytest.mark.parametrize("is_lost", [True, False])
async def test_a_journal_is_rebuilt_from_the_ledger(tmp_path: Path, is_lost: bool) -> None:
    async with open_shop(keeping(tmp_path, spread_ppm=10_000), crash=True) as shop:
        await shop.pay(1_000, 2_000)
        await shop.post("/api/accounts/alice/settle", SETTLEMENT)
        await shop.leave_open(1_000)
        await shop.posted()
        before = {row["name"]: row["net"] for row in (await shop.get("/api/accounts"))["accounts"]}
    if is_lost:
        lose(tmp_path, "journal")
    plan, kept = await rebuild_in(tmp_path)
    assert [(plan.name_of(each.debit_account_id), each.amount) for each in plan.orphans] == [
        ("peer alice", 990),
        ("peer alice", 10),
    ]
    assert kept == (None if is_lost else tmp_path / "journal.lost-1.sqlite3")
    async with open_shop(keeping(tmp_path, open_empty="confirm", spread_ppm=10_000)) as shop:
        after = {row["name"]: row["net"] for row in (await shop.get("/api/accounts"))["accounts"]}
        assert after == before
        assert set((await shop.checks(ok=True)).values()) == {"ok"}
        assert (await shop.post("/api/accounts/alice/settle", SETTLEMENT))["already_booked"]
        await shop.pay(500)
        await shop.posted()
        assert await shop.net("alice") == int(before["alice"]) + 500
        assert set((await shop.checks(ok=True)).values()) == {"ok"}
    # And what stands in the new journal is read again.
    async with open_shop(keeping(tmp_path, open_empty="confirm", spread_ppm=10_000)) as shop:
        assert await shop.net("alice") == int(before["alice"]) + 500


async def test_without_its_journal_a_node_refuses_the_ledger_until_it_is_rebuilt(tmp_path: Path) -> None:
    async with open_shop(keeping(tmp_path)) as shop:
        await shop.pay(1_000)
        await shop.posted()
    lose(tmp_path, "journal")
    async with open_shop(keeping(tmp_path)) as shop:
        assert "connector ledger rebuild" in (await shop.get("/api/ledger"))["reason"]
        assert (await shop.checks(ok=False))["ledger"] == "error"
    await rebuild_in(tmp_path)
    async with open_shop(keeping(tmp_path)) as shop:
        assert await shop.net("alice") == 1_000


async def test_no_rebuild_loses_the_balance_of_somebody_it_cannot_name(tmp_path: Path) -> None:
    async with open_shop(keeping(tmp_path)) as shop:
        await shop.pay(1_000)
        await shop.posted()
    ledger = await open_embedded(tmp_path / "ledger.sqlite3")
    with pytest.raises(Unavailable, match=r"does not name:\n  peer .*0 debits and 1000 credits") as refused:
        await rebuild.plan(ledger, "test.node", rebuild.holders_of([("alice", USD)], []))
    assert "alice" not in str(refused.value)
    with pytest.raises(Unavailable, match=r"holds no balance of test\.other"):
        await rebuild.plan(ledger, "test.other", HOLDERS)
    await ledger.aclose()
    tamper(tmp_path, "alice", 900)
    ledger = await open_embedded(tmp_path / "ledger.sqlite3")
    with pytest.raises(Unavailable, match="do not add up"):
        await rebuild.plan(ledger, "test.node", HOLDERS)
    await ledger.aclose()


# --- events ---


async def test_a_listener_hears_of_balances_and_of_debts_that_are_due(tmp_path: Path) -> None:
    heard: list[AnyEvent] = []
    both_told = trio.Event()

    def listen(event: AnyEvent) -> None:
        heard.append(event)
        nets = [each.net for each in heard if isinstance(each, AccountBalance)]
        if {"1200", "-1200"} <= set(nets):
            both_told.set()

    async with open_shop(keeping(tmp_path)) as shop:
        await shop.pay(500)
        cancel = shop.node.events.subscribe(listen)
        await trio.sleep(0.01)
        await shop.pay(700)
        with trio.fail_after(5):
            await both_told.wait()
        due = next(event for event in heard if isinstance(event, SettlementTriggered))
        assert (due.peer, due.net, due.threshold, due.credits) == ("bob", "-1200", "1000", "1200")
        assert due.trigger is not None
        newest = {event.peer: event for event in heard if isinstance(event, AccountBalance)}
        assert (newest["alice"].net, newest["bob"].net) == ("1200", "-1200")
        assert (newest["bob"].settlement, newest["alice"].settlement) == ("due", "none")
        assert newest["alice"].settle_threshold is None
        cancel()
        count = len(heard)
        await shop.pay(5)
        await trio.sleep(0.15)
        assert len(heard) == count


async def test_a_listener_hears_of_the_ledger_and_of_doubt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[AnyEvent] = []
    async with open_shop(keeping(tmp_path), crash=True) as shop:
        await shop.leave_open(1_000)
        shop.node.events.subscribe(heard.append)
        books = shop.node.books
        books._on_outage("ledger", "gone fishing")
        books._on_outage("ledger", "gone fishing")
        books._on_posting()
        states = [(event.state, event.reason) for event in heard if isinstance(event, LedgerStatus)]
        assert states == [("degraded", "gone fishing"), ("healthy", "")]
        (held,) = shop.node.book.pending.values()
        now_ms = held.time_ms + 5
        shop.node.book.doubt(held, Side.OPEN, Side.OWED, now_ms)
        shop.node.pipeline.release()
        (doubt,) = [event for event in heard if isinstance(event, PacketInDoubt)]
        assert (doubt.peer, doubt.side, doubt.amount, doubt.since_ms) == ("alice", "incoming", "1000", now_ms)
