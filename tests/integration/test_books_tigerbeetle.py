"""History, the doctor, repair and rebuilding on a TigerBeetle server, as on the embedded ledger."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from connector.config.schema import NodeConfig
from connector.core.rates import Asset
from connector.ledger import rebuild
from connector.ledger.tigerbeetle import open_tigerbeetle
from tests.contract.tigerbeetle_server import CLUSTER_ID, MISSING, TigerBeetleServer, find_server
from tests.integration.keeping import keeping, open_shop

pytestmark = [
    pytest.mark.tigerbeetle,
    pytest.mark.skipif(find_server() is None, reason=MISSING),
]

USD = Asset("USD", 6)
HOLDERS = rebuild.holders_of([("alice", USD), ("bob", USD)], [])
SETTLEMENT = {"amount": "700", "direction": "received", "reference": "bank 17"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TigerBeetleServer]:
    with TigerBeetleServer(tmp_path_factory.mktemp("tigerbeetle")) as server:
        yield server


def on(server: TigerBeetleServer, directory: Path) -> NodeConfig:
    config = keeping(directory, spread_ppm=10_000)
    ledger = replace(config.ledger, replicas=server.address, cluster_id=str(CLUSTER_ID))
    return replace(config, ledger=ledger)


async def test_a_lost_journal_is_rebuilt_and_history_goes_on(
    server: TigerBeetleServer, tmp_path: Path
) -> None:
    async with open_shop(on(server, tmp_path), crash=True) as shop:
        await shop.pay(1_000, 2_000)
        await shop.post("/api/accounts/alice/settle", SETTLEMENT)
        await shop.leave_open(1_000)
        await shop.posted()
        assert set((await shop.checks(ok=True)).values()) == {"ok"}
        newest = (await shop.get("/api/accounts/alice/history", limit=3))["lines"]
        assert sorted((row["code"], row["state"], row["amount"]) for row in newest) == [
            ("fee", "pending", "10"),
            ("packet", "pending", "990"),
            ("settlement", "posted", "700"),
        ]
        assert newest[0]["balance"]["debits_pending"] == "1000"
        before = {row["name"]: row["net"] for row in (await shop.get("/api/accounts"))["accounts"]}
    ledger = await open_tigerbeetle(CLUSTER_ID, server.address)
    plan = await rebuild.plan(ledger, "test.node", HOLDERS)
    # As after a journal that is lost: the new one knows nothing of what is pending.
    orphans, plan.orphans = plan.orphans, []
    assert [each.amount for each in orphans] == [990, 10]
    await rebuild.carry_out(plan, ledger, tmp_path, "always")
    await ledger.aclose()
    async with open_shop(on(server, tmp_path)) as shop:
        after = {row["name"]: row["net"] for row in (await shop.get("/api/accounts"))["accounts"]}
        assert after == before
        assert (await shop.checks(ok=False))["orphans"] == "error"
        voided = (await shop.post("/api/ledger/repair", {}))["voided"]
        assert sorted(each["amount"] for each in voided) == ["10", "990"]
        assert (await shop.post("/api/accounts/alice/settle", SETTLEMENT))["already_booked"]
        await shop.pay(500)
        await shop.posted()
        assert set((await shop.checks(ok=True)).values()) == {"ok"}
        newest = (await shop.get("/api/accounts/alice/history", limit=1))["lines"]
        assert newest[0]["balance"]["net"] == str(int(before["alice"]) + 500)
