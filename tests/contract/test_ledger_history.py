"""What happened to an account: its transfers, and its balances over time."""

from typing import Any

import pytest

from connector.core.transfers import PENDING, POST_PENDING, Transfer
from connector.ledger import layouts
from connector.ledger.api import AccountQuery, Balance
from tests.contract.teller import CREATED, INT_MAX, Teller


async def balances(teller: Teller, account: int, **fields: Any) -> list[Balance]:
    return await teller.ledger.account_balances(
        AccountQuery(**{"account_id": account, "limit": 100, **fields})
    )


async def test_transfers_of_an_account_by_side_order_and_limit(teller: Teller) -> None:
    a, b, c = [await teller.account() for _ in range(3)]
    made = [teller.transfer(*sides) for sides in ((a, b), (b, a), (b, c), (a, c), (c, a))]
    assert await teller.post(*made) == [CREATED] * 5
    first, second, _, fourth, fifth = [transfer.id for transfer in made]
    assert await teller.transfers_of(a) == [first, second, fourth, fifth]
    assert await teller.transfers_of(a, credits=False) == [first, fourth]
    assert await teller.transfers_of(a, debits=False) == [second, fifth]
    assert await teller.transfers_of(a, limit=3) == [first, second, fourth]
    assert await teller.transfers_of(a, limit=3, reversed=True) == [fifth, fourth, second]
    assert await teller.transfers_of(a, limit=1, reversed=True, credits=False) == [fourth]


async def test_transfers_of_an_account_by_time(teller: Teller) -> None:
    a, b = await teller.account(), await teller.account()
    made = [teller.transfer(a, b) for _ in range(5)]
    assert await teller.post(*made) == [CREATED] * 5
    found = await teller.ledger.lookup_transfers([transfer.id for transfer in made])
    ids, times = [each.id for each in found], [each.timestamp for each in found]
    assert await teller.transfers_of(a, timestamp_min=times[2]) == ids[2:]
    assert await teller.transfers_of(a, timestamp_max=times[2]) == ids[:3]
    assert await teller.transfers_of(a, timestamp_min=times[1], timestamp_max=times[3]) == ids[1:4]
    assert await teller.transfers_of(a, timestamp_min=times[4] + 1) == []
    newest = await teller.transfers_of(a, timestamp_max=times[3], reversed=True, limit=2)
    assert newest == [ids[3], ids[2]]


@pytest.mark.parametrize(
    "fields",
    [
        {"limit": 0},
        {"debits": False, "credits": False},
        {"timestamp_min": 2, "timestamp_max": 1},
        {"timestamp_min": 2**63},
        {"timestamp_max": 2**64 - 1},
        {"account_id": 0},
        {"account_id": INT_MAX},
        {"account_id": 5},
    ],
)
async def test_a_query_that_makes_no_sense_finds_nothing(teller: Teller, fields: dict[str, int]) -> None:
    a, b = await teller.account(flags=layouts.HISTORY), await teller.account()
    assert await teller.post(teller.transfer(a, b)) == [CREATED]
    assert await teller.transfers_of(**{"account": a, **fields}) == []
    assert await balances(teller, **{"account": a, **fields}) == []


async def test_balances_over_time(teller: Teller) -> None:
    a, b = await teller.account(flags=layouts.HISTORY), await teller.account()
    pending = teller.transfer(b, a, 4, flags=PENDING)
    resolution = Transfer(id=teller.id(), pending_id=pending.id, amount=3, flags=POST_PENDING)
    made = [teller.transfer(a, b, 1), pending, resolution, teller.transfer(a, b, 0)]
    assert await teller.post(*made) == [CREATED] * 4
    times = [each.timestamp for each in await teller.ledger.lookup_transfers([each.id for each in made])]
    rows = [(0, 1, 0, 0), (0, 1, 4, 0), (0, 1, 0, 3), (0, 1, 0, 3)]
    expected = [
        Balance(
            timestamp=time,
            debits_pending=row[0],
            debits_posted=row[1],
            credits_pending=row[2],
            credits_posted=row[3],
        )
        for time, row in zip(times, rows, strict=True)
    ]
    assert await balances(teller, a) == expected
    assert await balances(teller, a, reversed=True, limit=2) == [expected[3], expected[2]]
    assert await balances(teller, a, timestamp_min=times[1], timestamp_max=times[2]) == expected[1:3]
    assert await balances(teller, a, debits=False) == expected[1:3]
    assert await balances(teller, a, credits=False) == [expected[0], expected[3]]


async def test_no_balances_of_an_account_without_history_or_of_a_chain_undone(teller: Teller) -> None:
    a, b = await teller.account(flags=layouts.HISTORY), await teller.account()
    assert await teller.post(teller.transfer(a, b, flags=1), teller.transfer(a, b, code=0)) != [CREATED] * 2
    assert await balances(teller, a) == []
    assert await teller.post(teller.transfer(a, b)) == [CREATED]
    assert len(await balances(teller, a)) == 1
    assert await balances(teller, b) == []
