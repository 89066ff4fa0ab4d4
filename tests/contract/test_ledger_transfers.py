"""Transfers: posting, refusing, repeating them; chains of them."""

import msgspec
import pytest

from connector.core.transfers import LINKED, Transfer
from connector.ledger import layouts
from connector.ledger.api import TooMuchData
from connector.ledger.status import RECORDED, TransferStatus
from tests.contract.teller import AMOUNT_MAX, CREATED, EXISTS, INT_MAX, LINKED_EVENT_FAILED, Teller

replace = msgspec.structs.replace


async def test_a_transfer_moves_its_amount(teller: Teller) -> None:
    a, b = await teller.account(), await teller.account()
    assert await teller.post(teller.transfer(a, b, 7), teller.transfer(b, a, 3)) == [CREATED, CREATED]
    assert await teller.balances(a) == (0, 7, 0, 3)
    assert await teller.balances(b) == (0, 3, 0, 7)


async def test_a_transfer_is_found_as_it_was_posted(teller: Teller) -> None:
    a, b = await teller.account(), await teller.account()
    fields = {
        "user_data_128": INT_MAX,
        "user_data_64": 2**64 - 1,
        "user_data_32": 2**32 - 1,
        "code": 2**16 - 1,
    }
    transfer = teller.transfer(a, b, 2**70 + 1, **fields)
    later = teller.transfer(a, b, 0)
    assert await teller.post(transfer, later) == [CREATED, CREATED]
    found = await teller.ledger.lookup_transfers([later.id, teller.id(), transfer.id])
    assert [replace(each, timestamp=0) for each in found] == [later, transfer]
    assert found[0].timestamp == found[1].timestamp + 1


async def test_a_transfer_posted_again_exists_and_moves_nothing(teller: Teller) -> None:
    a, b = await teller.account(), await teller.account()
    transfer = teller.transfer(a, b)
    assert await teller.post(transfer, transfer) == [CREATED, EXISTS]
    assert await teller.post(transfer) == [EXISTS]
    assert await teller.balances(a) == (0, 10, 0, 0)


@pytest.mark.parametrize(
    "field",
    [
        "debit_account_id",
        "credit_account_id",
        "amount",
        "user_data_128",
        "user_data_64",
        "user_data_32",
        "ledger",
        "code",
        "pending_id",
    ],
)
async def test_a_transfer_posted_again_differently_is_refused(teller: Teller, field: str) -> None:
    a, b = await teller.account(), await teller.account()
    transfer = teller.transfer(a, b, 2**64 + 1, user_data_128=9, user_data_64=9, user_data_32=9)
    assert await teller.post(transfer) == [CREATED]
    other = replace(transfer, **{field: 5})
    assert await teller.post(other) == [TransferStatus[f"EXISTS_WITH_DIFFERENT_{field.upper()}"]]
    assert await teller.post(replace(transfer, flags=2)) == [TransferStatus.EXISTS_WITH_DIFFERENT_FLAGS]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"timestamp": 1, "id": 0}, "TIMESTAMP_MUST_BE_ZERO"),
        ({"flags": 1 << 15, "id": 0}, "RESERVED_FLAG"),
        ({"id": 0, "code": 0}, "ID_MUST_NOT_BE_ZERO"),
        ({"id": INT_MAX, "code": 0}, "ID_MUST_NOT_BE_INT_MAX"),
        ({"debit_account_id": 0, "credit_account_id": 0}, "DEBIT_ACCOUNT_ID_MUST_NOT_BE_ZERO"),
        ({"debit_account_id": INT_MAX, "credit_account_id": 0}, "DEBIT_ACCOUNT_ID_MUST_NOT_BE_INT_MAX"),
        ({"credit_account_id": 0, "pending_id": 1}, "CREDIT_ACCOUNT_ID_MUST_NOT_BE_ZERO"),
        ({"credit_account_id": INT_MAX, "pending_id": 1}, "CREDIT_ACCOUNT_ID_MUST_NOT_BE_INT_MAX"),
        ({"debit_account_id": 5, "credit_account_id": 5, "pending_id": 1}, "ACCOUNTS_MUST_BE_DIFFERENT"),
        ({"pending_id": 1, "ledger": 0}, "PENDING_ID_MUST_BE_ZERO"),
        ({"ledger": 0, "code": 0}, "LEDGER_MUST_NOT_BE_ZERO"),
        ({"code": 0, "debit_account_id": 5}, "CODE_MUST_NOT_BE_ZERO"),
        ({"debit_account_id": 5, "credit_account_id": 6}, "DEBIT_ACCOUNT_NOT_FOUND"),
        ({"credit_account_id": 6, "ledger": 2}, "CREDIT_ACCOUNT_NOT_FOUND"),
        ({"ledger": 2, "amount": AMOUNT_MAX}, "TRANSFER_MUST_HAVE_THE_SAME_LEDGER_AS_ACCOUNTS"),
    ],
)
async def test_transfers_that_cannot_be(teller: Teller, fields: dict[str, int], status: str) -> None:
    a, b = await teller.account(), await teller.account()
    transfer = replace(teller.transfer(a, b), **fields)
    assert await teller.post(transfer) == [TransferStatus[status]]
    assert await teller.balances(a) == (0, 0, 0, 0)


async def test_accounts_of_two_ledgers_do_not_meet(teller: Teller) -> None:
    a, b = await teller.account(), await teller.account(ledger=2)
    refused = TransferStatus.ACCOUNTS_MUST_HAVE_THE_SAME_LEDGER
    assert await teller.post(teller.transfer(a, b), teller.transfer(b, a, ledger=3)) == [refused, refused]


async def test_what_an_account_may_not_exceed(teller: Teller) -> None:
    source = await teller.account()
    a = await teller.account(flags=layouts.DEBITS_MUST_NOT_EXCEED_CREDITS)
    b = await teller.account(flags=layouts.CREDITS_MUST_NOT_EXCEED_DEBITS)
    assert await teller.post(teller.transfer(source, a, 5), teller.transfer(b, source, 5)) == [
        CREATED,
        CREATED,
    ]
    assert await teller.post(
        teller.transfer(a, source, 6),
        teller.transfer(source, b, 6),
        teller.transfer(a, b, 6),
        teller.transfer(a, b, 2, flags=2),
        teller.transfer(a, b, 4, flags=2),
        teller.transfer(source, b, 4),
        teller.transfer(a, b, 3),
    ) == [
        TransferStatus.EXCEEDS_CREDITS,
        TransferStatus.EXCEEDS_DEBITS,
        TransferStatus.EXCEEDS_CREDITS,
        CREATED,
        TransferStatus.EXCEEDS_CREDITS,
        TransferStatus.EXCEEDS_DEBITS,
        CREATED,
    ]


async def test_sums_that_overflow(teller: Teller) -> None:
    a, b, c, d = [await teller.account() for _ in range(4)]
    everything = AMOUNT_MAX
    assert await teller.post(
        teller.transfer(a, b, everything - 5),
        teller.transfer(a, c, 6),
        teller.transfer(c, b, 6),
        teller.transfer(a, b, 6),
        teller.transfer(a, c, 6, flags=2),
        teller.transfer(a, c, 5, flags=2),
        teller.transfer(a, c, 1),
        teller.transfer(d, c, everything - 5, flags=2),
        teller.transfer(d, b, 6, flags=2),
        teller.transfer(b, c, 6, flags=2),
        teller.transfer(b, c, 6),
    ) == [
        CREATED,
        TransferStatus.OVERFLOWS_DEBITS_POSTED,
        TransferStatus.OVERFLOWS_CREDITS_POSTED,
        TransferStatus.OVERFLOWS_DEBITS_POSTED,
        TransferStatus.OVERFLOWS_DEBITS_POSTED,
        CREATED,
        TransferStatus.OVERFLOWS_DEBITS,
        CREATED,
        TransferStatus.OVERFLOWS_DEBITS_PENDING,
        TransferStatus.OVERFLOWS_CREDITS_PENDING,
        TransferStatus.OVERFLOWS_CREDITS,
    ]
    assert await teller.balances(a) == (5, everything - 5, 0, 0)


async def test_a_refusal_that_might_not_last_uses_up_the_id(teller: Teller) -> None:
    a, b = await teller.account(), teller.id()
    transfer = teller.transfer(a, b)
    assert await teller.post(transfer, transfer) == [
        TransferStatus.CREDIT_ACCOUNT_NOT_FOUND,
        TransferStatus.ID_ALREADY_FAILED,
    ]
    assert TransferStatus.CREDIT_ACCOUNT_NOT_FOUND in RECORDED
    await teller.account(id=b)
    assert await teller.post(transfer) == [TransferStatus.ID_ALREADY_FAILED]
    assert await teller.post(replace(transfer, id=teller.id())) == [CREATED]
    assert await teller.ledger.lookup_transfers([transfer.id]) == []


async def test_a_refusal_for_good_leaves_the_id(teller: Teller) -> None:
    a, b = await teller.account(), await teller.account()
    transfer = teller.transfer(a, b)
    assert await teller.post(replace(transfer, code=0)) == [TransferStatus.CODE_MUST_NOT_BE_ZERO]
    assert await teller.post(transfer) == [CREATED]


def chain(*transfers: Transfer) -> list[Transfer]:
    """`transfers`, linked."""
    return [*(replace(each, flags=each.flags | LINKED) for each in transfers[:-1]), transfers[-1]]


async def test_a_chain_is_posted_whole(teller: Teller) -> None:
    a, b = await teller.account(), await teller.account()
    legs = chain(teller.transfer(a, b, 1), teller.transfer(a, b, 2), teller.transfer(a, b, 4))
    assert await teller.post(*legs) == [CREATED] * 3
    assert await teller.balances(a) == (0, 7, 0, 0)


async def test_a_chain_is_refused_whole_and_its_culprit_keeps_its_status(teller: Teller) -> None:
    a, b = await teller.account(), await teller.account()
    before, after = teller.transfer(a, b, 1), teller.transfer(a, b, 2)
    legs = chain(teller.transfer(a, b, 4), teller.transfer(a, 5, 8), teller.transfer(a, b, 16))
    assert await teller.post(before, *legs, after) == [
        CREATED,
        LINKED_EVENT_FAILED,
        TransferStatus.CREDIT_ACCOUNT_NOT_FOUND,
        LINKED_EVENT_FAILED,
        CREATED,
    ]
    assert await teller.balances(a) == (0, 3, 0, 0)
    # Only the culprit's id is used up.
    assert await teller.post(legs[0], legs[2]) == [CREATED, CREATED]
    assert await teller.post(legs[1], teller.transfer(a, b)) == [
        TransferStatus.ID_ALREADY_FAILED,
        LINKED_EVENT_FAILED,
    ]


async def test_a_chain_sees_what_it_made_and_nobody_sees_what_was_undone(teller: Teller) -> None:
    a, b = await teller.account(), await teller.account(flags=layouts.DEBITS_MUST_NOT_EXCEED_CREDITS)
    fund, spend = teller.transfer(a, b, 5), teller.transfer(b, a, 5)
    broken = [*chain(fund, spend, teller.transfer(b, a, 0, code=0)), teller.transfer(b, a, 5)]
    assert await teller.post(*broken) == [
        LINKED_EVENT_FAILED,
        LINKED_EVENT_FAILED,
        TransferStatus.CODE_MUST_NOT_BE_ZERO,
        TransferStatus.EXCEEDS_CREDITS,
    ]
    assert await teller.balances(b) == (0, 0, 0, 0)
    assert await teller.post(*chain(fund, spend)) == [CREATED, CREATED]
    assert await teller.balances(b) == (0, 5, 0, 5)


async def test_a_chain_posted_again_says_exists_first(teller: Teller) -> None:
    a, b = await teller.account(), await teller.account()
    legs = chain(*[teller.transfer(a, b) for _ in range(3)])
    assert await teller.post(*legs) == [CREATED] * 3
    assert await teller.post(*legs) == [EXISTS, LINKED_EVENT_FAILED, LINKED_EVENT_FAILED]
    assert await teller.balances(a) == (0, 30, 0, 0)
    assert len(await teller.ledger.lookup_transfers([leg.id for leg in legs])) == 3


async def test_a_chain_left_open_is_refused(teller: Teller) -> None:
    a, b = await teller.account(), await teller.account()
    first, second = (teller.transfer(a, b, flags=LINKED) for _ in range(2))
    open_ = TransferStatus.LINKED_EVENT_CHAIN_OPEN
    assert await teller.post(teller.transfer(a, b), first, second) == [CREATED, LINKED_EVENT_FAILED, open_]
    assert await teller.post(first) == [open_]
    bad = replace(first, code=0)
    assert await teller.post(bad, second) == [TransferStatus.CODE_MUST_NOT_BE_ZERO, open_]


async def test_two_chains_in_a_request_do_not_touch_each_other(teller: Teller) -> None:
    a, b = await teller.account(), await teller.account()
    good = chain(teller.transfer(a, b), teller.transfer(a, b))
    bad = chain(teller.transfer(a, b, code=0), teller.transfer(a, b))
    refused = [TransferStatus.CODE_MUST_NOT_BE_ZERO, LINKED_EVENT_FAILED]
    assert await teller.post(*bad, *good, *bad) == [*refused, CREATED, CREATED, *refused]


async def test_a_full_request(teller: Teller) -> None:
    a, b = await teller.account(), await teller.account()
    count = teller.ledger.batch_max
    transfers = [teller.transfer(a, b, 1) for _ in range(count)]
    assert await teller.post(*transfers) == [CREATED] * count
    assert await teller.balances(a) == (0, count, 0, 0)
    with pytest.raises(TooMuchData):
        await teller.post(*transfers, teller.transfer(a, b))
