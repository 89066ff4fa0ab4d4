"""Accounts: making, finding and listing them."""

import msgspec
import pytest

from connector.ledger import layouts
from connector.ledger.api import LedgerAccount
from connector.ledger.status import AccountStatus
from tests.contract.teller import INT_MAX, Teller

CREATED = AccountStatus.CREATED
replace = msgspec.structs.replace


def described(teller: Teller) -> LedgerAccount:
    return LedgerAccount(
        id=teller.id(),
        user_data_128=INT_MAX,
        user_data_64=2**64 - 1,
        user_data_32=2**32 - 1,
        ledger=2**32 - 1,
        code=2**16 - 1,
        flags=layouts.HISTORY | layouts.DEBITS_MUST_NOT_EXCEED_CREDITS,
    )


async def test_an_account_is_found_as_it_was_made(teller: Teller) -> None:
    account = described(teller)
    assert await teller.open(account) == [CREATED]
    (found,) = await teller.ledger.lookup_accounts([account.id])
    assert found.timestamp > 0
    assert replace(found, timestamp=0) == account


async def test_accounts_are_found_in_the_order_of_their_ids_in_the_request(teller: Teller) -> None:
    first, second = await teller.account(), await teller.account()
    found = await teller.ledger.lookup_accounts([second, teller.id(), first, second])
    assert [account.id for account in found] == [second, first, second]
    assert found[1].timestamp < found[0].timestamp


async def test_an_account_made_again_exists(teller: Teller) -> None:
    account = described(teller)
    assert await teller.open(account, account) == [CREATED, AccountStatus.EXISTS]
    assert await teller.open(account) == [AccountStatus.EXISTS]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("flags", 0),
        ("user_data_128", 1),
        ("user_data_64", 1),
        ("user_data_32", 1),
        ("ledger", 7),
        ("code", 7),
    ],
)
async def test_an_account_made_again_differently_is_refused(teller: Teller, field: str, value: int) -> None:
    account = described(teller)
    assert await teller.open(account) == [CREATED]
    status = AccountStatus[f"EXISTS_WITH_DIFFERENT_{field.upper()}"]
    assert await teller.open(replace(account, **{field: value})) == [status]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"timestamp": 1, "id": 0}, "TIMESTAMP_MUST_BE_ZERO"),
        ({"flags": 1 << 15, "id": 0}, "RESERVED_FLAG"),
        ({"id": 0, "ledger": 0}, "ID_MUST_NOT_BE_ZERO"),
        ({"id": INT_MAX, "ledger": 0}, "ID_MUST_NOT_BE_INT_MAX"),
        ({"flags": 0b110, "ledger": 0}, "FLAGS_ARE_MUTUALLY_EXCLUSIVE"),
        ({"debits_pending": 1, "debits_posted": 1}, "DEBITS_PENDING_MUST_BE_ZERO"),
        ({"debits_posted": 1, "credits_pending": 1}, "DEBITS_POSTED_MUST_BE_ZERO"),
        ({"credits_pending": 1, "credits_posted": 1}, "CREDITS_PENDING_MUST_BE_ZERO"),
        ({"credits_posted": 1, "ledger": 0}, "CREDITS_POSTED_MUST_BE_ZERO"),
        ({"ledger": 0, "code": 0}, "LEDGER_MUST_NOT_BE_ZERO"),
        ({"code": 0}, "CODE_MUST_NOT_BE_ZERO"),
    ],
)
async def test_accounts_that_cannot_be(teller: Teller, fields: dict[str, int], status: str) -> None:
    account = replace(LedgerAccount(id=teller.id(), ledger=1, code=1), **fields)
    assert await teller.open(account) == [AccountStatus[status]]
    assert await teller.ledger.lookup_accounts([account.id]) == []


async def test_linked_accounts_are_made_together_or_not_at_all(teller: Teller) -> None:
    good = [LedgerAccount(id=teller.id(), ledger=1, code=1, flags=layouts.LINKED) for _ in range(3)]
    bad = LedgerAccount(id=teller.id(), ledger=0, code=1)
    single = LedgerAccount(id=teller.id(), ledger=1, code=1)
    assert await teller.open(good[0], good[1], bad, single) == [
        AccountStatus.LINKED_EVENT_FAILED,
        AccountStatus.LINKED_EVENT_FAILED,
        AccountStatus.LEDGER_MUST_NOT_BE_ZERO,
        CREATED,
    ]
    found = await teller.ledger.lookup_accounts([good[0].id, good[1].id, single.id])
    assert [account.id for account in found] == [single.id]
    assert await teller.open(good[0], good[1]) == [
        AccountStatus.LINKED_EVENT_FAILED,
        AccountStatus.LINKED_EVENT_CHAIN_OPEN,
    ]
    last = LedgerAccount(id=teller.id(), ledger=1, code=1)
    assert await teller.open(*good, last) == [CREATED] * 4


async def test_more_accounts_and_look_ups_than_a_request_takes(teller: Teller) -> None:
    count = 2 * teller.ledger.batch_max + 3
    accounts = [LedgerAccount(id=teller.id(), ledger=1, code=1, flags=number % 2) for number in range(count)]
    accounts[-1] = replace(accounts[-1], flags=0)
    assert set(await teller.open(*accounts)) == {CREATED}
    ids = [account.id for account in accounts]
    assert [account.id for account in await teller.ledger.lookup_accounts(ids)] == ids
    assert await teller.ledger.lookup_transfers(ids) == []


async def test_accounts_are_listed_by_user_data_and_code(teller: Teller) -> None:
    owner = teller.id()
    ids = [await teller.account(user_data_128=owner, code=code) for code in (1, 2, 1, 1)]

    async def listed(**query: int) -> list[int]:
        asked = {"user_data_128": owner, "code": 0, "limit": 10, "reversed": False, **query}
        accounts = await teller.ledger.query_accounts(**asked)  # type: ignore[arg-type]  # by name
        return [account.id for account in accounts]

    assert await listed() == ids
    assert await listed(code=1) == [ids[0], ids[2], ids[3]]
    assert await listed(code=1, limit=2) == [ids[0], ids[2]]
    assert await listed(code=1, limit=2, reversed=True) == [ids[3], ids[2]]
    assert await listed(code=3) == []
    assert await listed(limit=0) == []
    assert await listed(user_data_128=teller.id()) == []


async def test_nothing_asked_is_nothing_answered(teller: Teller) -> None:
    assert await teller.open() == []
    assert await teller.post() == []
    assert await teller.ledger.lookup_accounts([]) == []
    assert await teller.ledger.lookup_transfers([]) == []
    assert await teller.ledger.lookup_accounts([0, INT_MAX]) == []
    assert await teller.ledger.lookup_transfers([0, INT_MAX]) == []
