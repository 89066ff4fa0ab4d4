"""The doctor, asked over HTTP: what it finds after traffic, tampering, wiping and crashes."""

from pathlib import Path

import pytest
import trio

from connector.core.chart import Code, Kind, account_id, ledger_number
from connector.core.rates import Asset
from connector.core.transfers import PENDING, Transfer, pack
from connector.ledger import rebuild
from connector.ledger.embedded import open_embedded
from connector.ledger.status import TransferStatus
from connector.node import jobs, supervisor
from connector.node.diagnosis import PeerAnswer
from tests.integration.keeping import keeping, lose, open_shop, pages, tamper

USD = Asset("USD", 6)
HOLDERS = rebuild.holders_of([("alice", USD), ("bob", USD)], [])
SETTLEMENT = {"amount": "700", "direction": "received", "reference": "bank 17"}


# --- the doctor ---


async def test_the_doctor_finds_nothing_after_traffic(tmp_path: Path) -> None:
    async with open_shop(keeping(tmp_path)) as shop:
        await shop.pay(*range(100, 150))
        assert await shop.checks(ok=True) == dict.fromkeys(
            (
                "book balances",
                "book equals ledger and journal",
                "ledger equals book",
                "ledger balances",
                "journal",
                "disk",
                "in doubt",
            ),
            "ok",
        )
        await shop.posted()
        ledger = await shop.get("/api/ledger")
        assert (ledger["state"], ledger["unposted"]["entries"]) == ("healthy", 0)
        assert ledger["posted"] == shop.node.books.journal.appended  # type: ignore[union-attr]


async def test_the_doctor_finds_a_balance_that_was_tampered_with(tmp_path: Path) -> None:
    async with open_shop(keeping(tmp_path)) as shop:
        await shop.pay(1_000)
        await shop.posted()
        tamper(tmp_path, "alice", 900)
        checks = await shop.checks(ok=False)
        assert {name for name, result in checks.items() if result == "error"} == {
            "ledger equals book",
            "ledger balances",
        }
        said = await shop.explanation("ledger equals book")
        assert "peer alice USD/6: ledger 900 debits and 0 credits, posted 1000 debits and 0 credits" in said


async def test_a_wiped_ledger_is_found_and_opened_anew_after_a_person_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "BACKOFF_MIN_S", 0.05)
    async with open_shop(keeping(tmp_path)) as shop:
        await shop.pay(1_000)
        await shop.posted()
    lose(tmp_path, "ledger")
    async with open_shop(keeping(tmp_path, open_empty="confirm")) as shop:
        assert (await shop.checks(ok=False))["ledger"] == "error"
        status = await shop.get("/api/ledger")
        assert status["state"] == "degraded"
        assert "connector ledger open" in status["reason"]
        await shop.get("/api/accounts/alice/history", 503)
        await shop.post("/api/ledger/open", {})
        await shop.pay(500)
        await shop.posted()
        assert set((await shop.checks(ok=True)).values()) == {"ok"}
        # What was confirmed was for this once.
        assert shop.node.books.poster is not None
        assert shop.node.books.poster.fills_empty is False
        kinds = [row["code"] for row in await pages(shop, "alice")]
        assert kinds[-1] == "opening"


async def make_orphan(directory: Path) -> Transfer:
    """A pending transfer between alice and bob that no journal knows."""
    ledger = await open_embedded(directory / "ledger.sqlite3")
    transfer = Transfer(
        id=77,
        debit_account_id=account_id("test.node", Kind.PEER, "alice", USD),
        credit_account_id=account_id("test.node", Kind.PEER, "bob", USD),
        amount=123,
        ledger=ledger_number(USD),
        code=Code.PACKET,
        flags=PENDING,
    )
    assert await ledger.create_transfers(pack(transfer)) == [TransferStatus.CREATED]
    await ledger.aclose()
    return transfer


async def test_orphans_are_found_and_voided(tmp_path: Path) -> None:
    async with open_shop(keeping(tmp_path), crash=True) as shop:
        await shop.leave_open(50)
        await shop.posted()
        await make_orphan(tmp_path)
        checks = await shop.checks(ok=False)
        assert (checks["orphans"], checks["ledger balances"]) == ("error", "ok")
        assert "123, peer alice to peer bob" in await shop.explanation("orphans")
        repaired = await shop.post("/api/ledger/repair", {})
        assert [(row["amount"], row["debit"]) for row in repaired["voided"]] == [("123", "peer alice")]
        assert set((await shop.checks(ok=True)).values()) == {"ok"}
        assert (await shop.post("/api/ledger/repair", {}))["voided"] == []
        newest = (await shop.get("/api/accounts/alice/history", limit=1))["lines"][0]
        assert (newest["state"], newest["amount"]) == ("voided", "123")


async def test_peers_are_compared_with_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = PeerAnswer("alice", USD)

    async def ask_peers(node: object) -> list[PeerAnswer]:
        return [said, PeerAnswer("bob", Asset("EUR", 2)), PeerAnswer("bob", USD, error="it does not answer")]

    monkeypatch.setattr("connector.node.node.Node._ask_peers", ask_peers)
    async with open_shop(keeping(tmp_path)) as shop:
        await shop.pay(1_000)
        said = PeerAnswer("alice", USD, credits=1_000)
        checks = (await shop.get("/api/doctor"))["checks"]
        peers = [(check["name"], check["result"]) for check in checks if check["name"].startswith("peer")]
        assert peers == [("peer alice", "ok"), ("peer bob", "error"), ("peer bob", "warning")]


async def test_an_examination_that_takes_long_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "JOB_WAIT_S", 0.05)
    go_on = trio.Event()

    async def ask_peers(node: object) -> list[PeerAnswer]:
        await go_on.wait()
        return []

    monkeypatch.setattr("connector.node.node.Node._ask_peers", ask_peers)
    async with open_shop(keeping(tmp_path)) as shop:
        begun = await shop.get("/api/doctor", 202)
        # Whoever asks meanwhile waits for the same.
        assert await shop.get("/api/doctor", 202) == begun
        await shop.post("/api/ledger/repair", {}, 409)
        go_on.set()
        with trio.fail_after(5):
            while (response := await shop.web.get(begun["job"])).status_code == 202:
                pass
        assert response.json()["ok"] is True


async def test_a_bug_in_the_doctor_ends_the_answer_and_not_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask_peers(node: object) -> list[PeerAnswer]:
        raise ZeroDivisionError("one over nothing")

    monkeypatch.setattr("connector.node.node.Node._ask_peers", ask_peers)
    async with open_shop(keeping(tmp_path)) as shop:
        assert "one over nothing" in (await shop.get("/api/doctor", 503))["error"]
        await shop.pay(5)
