"""Transfers in two phases: pending, then posted or voided."""

import msgspec
import pytest

from connector.core.transfers import LINKED, PENDING, POST_PENDING, VOID_PENDING, Transfer
from connector.ledger import layouts
from connector.ledger.status import TransferStatus
from tests.contract.teller import AMOUNT_MAX, CREATED, EXISTS, INT_MAX, LINKED_EVENT_FAILED, Teller

replace = msgspec.structs.replace


def post(teller: Teller, pending: Transfer, amount: int = AMOUNT_MAX) -> Transfer:
    return Transfer(id=teller.id(), pending_id=pending.id, amount=amount, flags=POST_PENDING)


def void(teller: Teller, pending: Transfer, amount: int = 0) -> Transfer:
    return Transfer(id=teller.id(), pending_id=pending.id, amount=amount, flags=VOID_PENDING)


async def pending_of_10(teller: Teller, **fields: int) -> Transfer:
    a, b = await teller.account(), await teller.account()
    transfer = teller.transfer(a, b, 10, flags=PENDING, **fields)
    assert await teller.post(transfer) == [CREATED]
    return transfer


async def balances(teller: Teller, transfer: Transfer) -> list[tuple[int, int, int, int]]:
    return [
        await teller.balances(transfer.debit_account_id),
        await teller.balances(transfer.credit_account_id),
    ]


async def test_pending_amounts_stand_apart(teller: Teller) -> None:
    pending = await pending_of_10(teller)
    assert await balances(teller, pending) == [(10, 0, 0, 0), (0, 0, 10, 0)]


@pytest.mark.parametrize(("amount", "posted"), [(AMOUNT_MAX, 10), (10, 10), (4, 4), (0, 0)])
async def test_a_post_moves_all_or_part_and_frees_the_rest(teller: Teller, amount: int, posted: int) -> None:
    pending = await pending_of_10(teller, user_data_128=1, user_data_64=2, user_data_32=3)
    resolution = post(teller, pending, amount)
    assert await teller.post(resolution) == [CREATED]
    assert await balances(teller, pending) == [(0, posted, 0, 0), (0, 0, 0, posted)]
    (found,) = await teller.ledger.lookup_transfers([resolution.id])
    kept = replace(pending, id=resolution.id, pending_id=pending.id, flags=POST_PENDING, amount=posted)
    assert replace(found, timestamp=0) == kept


@pytest.mark.parametrize("amount", [0, 10])
async def test_a_void_frees_all(teller: Teller, amount: int) -> None:
    pending = await pending_of_10(teller)
    resolution = replace(void(teller, pending, amount), user_data_128=7, user_data_64=8, user_data_32=9)
    assert await teller.post(resolution) == [CREATED]
    assert await balances(teller, pending) == [(0, 0, 0, 0), (0, 0, 0, 0)]
    (found,) = await teller.ledger.lookup_transfers([resolution.id])
    assert (found.amount, found.user_data_128, found.user_data_64, found.user_data_32) == (10, 7, 8, 9)


async def test_a_resolution_may_repeat_what_the_pending_says(teller: Teller) -> None:
    pending = await pending_of_10(teller)
    resolution = replace(pending, id=teller.id(), pending_id=pending.id, flags=POST_PENDING)
    assert await teller.post(resolution, replace(resolution, ledger=0, debit_account_id=0)) == [
        CREATED,
        EXISTS,
    ]


async def test_a_transfer_resolves_once(teller: Teller) -> None:
    one, other = await pending_of_10(teller), await pending_of_10(teller)
    assert await teller.post(
        post(teller, one), void(teller, other), post(teller, one), void(teller, one), post(teller, other)
    ) == [
        CREATED,
        CREATED,
        TransferStatus.PENDING_TRANSFER_ALREADY_POSTED,
        TransferStatus.PENDING_TRANSFER_ALREADY_POSTED,
        TransferStatus.PENDING_TRANSFER_ALREADY_VOIDED,
    ]
    # The same when it was resolved in a request before.
    assert await teller.post(void(teller, one), void(teller, other)) == [
        TransferStatus.PENDING_TRANSFER_ALREADY_POSTED,
        TransferStatus.PENDING_TRANSFER_ALREADY_VOIDED,
    ]


@pytest.mark.parametrize("amount", [AMOUNT_MAX, 10, 4, 0])
async def test_a_post_repeated_exists(teller: Teller, amount: int) -> None:
    pending = await pending_of_10(teller, user_data_64=5)
    resolution = post(teller, pending, amount)
    assert await teller.post(resolution, resolution) == [CREATED, EXISTS]
    assert await teller.post(resolution) == [EXISTS]
    other = TransferStatus.EXISTS_WITH_DIFFERENT_AMOUNT
    assert await teller.post(replace(resolution, amount=7)) == [other]


async def test_a_void_repeated_exists(teller: Teller) -> None:
    pending = await pending_of_10(teller, user_data_64=5)
    resolution = void(teller, pending)
    assert await teller.post(resolution) == [CREATED]
    assert await teller.post(resolution, replace(resolution, amount=10), replace(resolution, amount=9)) == [
        EXISTS,
        EXISTS,
        TransferStatus.EXISTS_WITH_DIFFERENT_AMOUNT,
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("flags", VOID_PENDING),
        ("pending_id", 3),
        ("debit_account_id", 3),
        ("credit_account_id", 3),
        ("user_data_128", 3),
        ("user_data_64", 3),
        ("user_data_32", 3),
        ("ledger", 3),
        ("code", 3),
    ],
)
async def test_a_post_repeated_differently_is_refused(teller: Teller, field: str, value: int) -> None:
    resolution = post(teller, await pending_of_10(teller, user_data_64=5))
    assert await teller.post(resolution) == [CREATED]
    status = TransferStatus[f"EXISTS_WITH_DIFFERENT_{field.upper()}"]
    assert await teller.post(replace(resolution, **{field: value})) == [status]


async def test_user_data_left_out_where_it_was_given_is_different(teller: Teller) -> None:
    pending = await pending_of_10(teller)
    resolution = replace(post(teller, pending), user_data_128=1)
    assert await teller.post(resolution, replace(resolution, user_data_128=0)) == [
        CREATED,
        TransferStatus.EXISTS_WITH_DIFFERENT_USER_DATA_128,
    ]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"flags": POST_PENDING | VOID_PENDING, "pending_id": 0}, "FLAGS_ARE_MUTUALLY_EXCLUSIVE"),
        ({"flags": POST_PENDING | PENDING, "pending_id": 0}, "FLAGS_ARE_MUTUALLY_EXCLUSIVE"),
        ({"pending_id": 0}, "PENDING_ID_MUST_NOT_BE_ZERO"),
        ({"pending_id": INT_MAX}, "PENDING_ID_MUST_NOT_BE_INT_MAX"),
        ({"pending_id": 3, "code": 3}, "PENDING_TRANSFER_NOT_FOUND"),
        ({"debit_account_id": 3, "credit_account_id": 3}, "PENDING_TRANSFER_HAS_DIFFERENT_DEBIT_ACCOUNT_ID"),
        ({"credit_account_id": 3, "ledger": 3}, "PENDING_TRANSFER_HAS_DIFFERENT_CREDIT_ACCOUNT_ID"),
        ({"ledger": 3, "code": 3}, "PENDING_TRANSFER_HAS_DIFFERENT_LEDGER"),
        ({"code": 3, "amount": 11}, "PENDING_TRANSFER_HAS_DIFFERENT_CODE"),
        ({"amount": 11}, "EXCEEDS_PENDING_TRANSFER_AMOUNT"),
        ({"amount": 9, "flags": VOID_PENDING}, "PENDING_TRANSFER_HAS_DIFFERENT_AMOUNT"),
        ({"amount": AMOUNT_MAX, "flags": VOID_PENDING}, "EXCEEDS_PENDING_TRANSFER_AMOUNT"),
    ],
)
async def test_resolutions_that_cannot_be(teller: Teller, fields: dict[str, int], status: str) -> None:
    pending = await pending_of_10(teller)
    assert await teller.post(replace(post(teller, pending), **fields)) == [TransferStatus[status]]
    assert await balances(teller, pending) == [(10, 0, 0, 0), (0, 0, 10, 0)]


async def test_a_transfer_cannot_resolve_itself_or_one_that_is_not_pending(teller: Teller) -> None:
    plain = replace(await pending_of_10(teller), id=teller.id(), flags=0)
    itself = post(teller, plain)
    assert await teller.post(plain, post(teller, plain), replace(itself, pending_id=itself.id)) == [
        CREATED,
        TransferStatus.PENDING_TRANSFER_NOT_PENDING,
        TransferStatus.PENDING_ID_MUST_BE_DIFFERENT,
    ]


async def test_a_post_before_its_pending_is_refused_for_ever(teller: Teller) -> None:
    a, b = await teller.account(), await teller.account()
    pending = teller.transfer(a, b, flags=PENDING)
    resolution = post(teller, pending)
    assert await teller.post(resolution, pending, resolution) == [
        TransferStatus.PENDING_TRANSFER_NOT_FOUND,
        CREATED,
        TransferStatus.ID_ALREADY_FAILED,
    ]
    assert await teller.post(resolution, post(teller, pending)) == [TransferStatus.ID_ALREADY_FAILED, CREATED]


async def test_a_pending_and_its_post_in_one_chain(teller: Teller) -> None:
    a, b = await teller.account(), await teller.account()
    pending = teller.transfer(a, b, flags=PENDING | LINKED)
    resolution = post(teller, pending)
    broken = [pending, replace(resolution, flags=POST_PENDING | LINKED), teller.transfer(a, b, code=0)]
    assert await teller.post(*broken) == [
        LINKED_EVENT_FAILED,
        LINKED_EVENT_FAILED,
        TransferStatus.CODE_MUST_NOT_BE_ZERO,
    ]
    assert await teller.balances(a) == (0, 0, 0, 0)
    assert await teller.post(pending, resolution) == [CREATED, CREATED]
    assert await teller.balances(a) == (0, 10, 0, 0)


async def test_a_resolution_undone_with_its_chain_can_be_made_again(teller: Teller) -> None:
    pending = await pending_of_10(teller)
    resolution = replace(post(teller, pending), flags=POST_PENDING | LINKED)
    culprit = replace(resolution, id=0, flags=POST_PENDING)
    assert await teller.post(resolution, culprit) == [LINKED_EVENT_FAILED, TransferStatus.ID_MUST_NOT_BE_ZERO]
    assert await balances(teller, pending) == [(10, 0, 0, 0), (0, 0, 10, 0)]
    assert await teller.post(void(teller, pending)) == [CREATED]


async def test_pending_debits_count_against_what_may_not_be_exceeded(teller: Teller) -> None:
    source = await teller.account()
    a = await teller.account(flags=layouts.DEBITS_MUST_NOT_EXCEED_CREDITS)
    pending = teller.transfer(a, source, 10, flags=PENDING)
    assert await teller.post(
        teller.transfer(source, a, 10), pending, teller.transfer(a, source, 1), void(teller, pending)
    ) == [CREATED, CREATED, TransferStatus.EXCEEDS_CREDITS, CREATED]
    assert await teller.post(teller.transfer(a, source, 10)) == [CREATED]
