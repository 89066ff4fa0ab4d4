"""Random requests: the embedded ledger and TigerBeetle give the same answers and hold the same balances."""

from pathlib import Path

import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.core.transfers import LINKED, PENDING, POST_PENDING, VOID_PENDING, Transfer
from connector.ledger import layouts
from connector.ledger.api import AccountQuery, LedgerAccount
from connector.ledger.embedded import EmbeddedLedger, open_embedded
from connector.ledger.tigerbeetle import TigerBeetle
from tests.contract.teller import AMOUNT_MAX, Teller

#: Flags of the accounts, which transfers name by their place; there are more names than accounts.
ACCOUNTS = (
    layouts.HISTORY,
    layouts.HISTORY | layouts.DEBITS_MUST_NOT_EXCEED_CREDITS,
    layouts.CREDITS_MUST_NOT_EXCEED_DEBITS,
    0,
)
NAMES = len(ACCOUNTS) + 1
TRANSFERS = 8
EXAMPLES = 300

amounts = st.one_of(st.integers(0, 4), st.sampled_from([2**64, AMOUNT_MAX - 1, AMOUNT_MAX]))
user_data = st.sampled_from([0, 0, 0, 1])
names = st.integers(0, NAMES)
linked = st.sampled_from([0, 0, LINKED])

# Places of accounts and transfers, counted from 1, stand for ids; 0 is 0.
moves = st.builds(
    Transfer,
    id=st.integers(1, TRANSFERS),
    debit_account_id=names,
    credit_account_id=names,
    amount=amounts,
    user_data_128=user_data,
    user_data_64=user_data,
    user_data_32=user_data,
    ledger=st.sampled_from([1, 1, 1, 1, 2, 0]),
    code=st.sampled_from([1, 1, 1, 2, 0]),
    flags=st.builds(int.__or__, linked, st.sampled_from([0, PENDING, PENDING])),
)
resolutions = st.builds(
    Transfer,
    id=st.integers(1, TRANSFERS),
    pending_id=st.integers(0, TRANSFERS),
    debit_account_id=st.sampled_from([0, 0, 0, 1]),
    credit_account_id=st.sampled_from([0, 0, 0, 2]),
    amount=amounts,
    user_data_128=user_data,
    user_data_64=user_data,
    user_data_32=user_data,
    ledger=st.sampled_from([0, 0, 0, 1, 2]),
    code=st.sampled_from([0, 0, 0, 1, 2]),
    flags=st.builds(
        int.__or__,
        linked,
        st.sampled_from([POST_PENDING, VOID_PENDING, POST_PENDING, POST_PENDING | PENDING]),
    ),
)
histories = st.lists(st.lists(st.one_of(moves, resolutions), max_size=8), max_size=5)


def placed(transfer: Transfer, base: int) -> Transfer:
    """`transfer` with ids of this example, rather than places."""

    def ident(place: int, kind: int) -> int:
        return base + 1000 * kind + place if place else 0

    return msgspec.structs.replace(
        transfer,
        id=ident(transfer.id, 1),
        pending_id=ident(transfer.pending_id, 1),
        debit_account_id=ident(transfer.debit_account_id, 2),
        credit_account_id=ident(transfer.credit_account_id, 2),
    )


async def seen(teller: Teller, base: int, requests: list[list[Transfer]]) -> list[object]:
    """Everything that can be seen of a ledger to which `requests` were made, but for times."""
    places = range(1, NAMES + 1)
    accounts = [
        LedgerAccount(id=base + 2000 + place, ledger=1, code=1, flags=flags)
        for place, flags in zip(places, ACCOUNTS, strict=False)
    ]
    answers: list[object] = [await teller.open(*accounts)]
    answers += [await teller.post(*(placed(each, base) for each in request)) for request in requests]
    ids = [account.id for account in accounts]
    answers += [await teller.balances(ident) for ident in ids]
    made = await teller.ledger.lookup_transfers([base + 1000 + place for place in range(1, TRANSFERS + 1)])
    answers += [msgspec.structs.replace(transfer, timestamp=0) for transfer in made]
    for ident in ids:
        answers.append(await teller.transfers_of(ident))
        history = await teller.ledger.account_balances(AccountQuery(account_id=ident, limit=100))
        answers += [msgspec.structs.replace(balance, timestamp=0) for balance in history]
    return answers


@pytest.mark.tigerbeetle
async def test_both_ledgers_agree(session: TigerBeetle, tmp_path: Path) -> None:
    embedded = await open_embedded(tmp_path / "ledger.db")

    async def agree(requests: list[list[Transfer]]) -> None:
        base = Teller(session).id()
        assert await seen(Teller(embedded), base, requests) == await seen(Teller(session), base, requests)

    @settings(max_examples=max(EXAMPLES, settings().max_examples))
    @given(histories)
    def search(requests: list[list[Transfer]]) -> None:
        trio.from_thread.run(agree, requests)

    # Hypothesis blocks, so it has a thread of its own.
    await trio.to_thread.run_sync(search)
    await embedded.aclose()


async def test_an_embedded_ledger_debits_as_much_as_it_credits(tmp_path: Path) -> None:
    embedded: EmbeddedLedger = await open_embedded(tmp_path / "ledger.db")

    async def balanced(requests: list[list[Transfer]]) -> None:
        teller = Teller(embedded)
        base = teller.id()
        await seen(teller, base, requests)
        found = [await teller.balances(base + 2000 + place) for place in range(1, len(ACCOUNTS) + 1)]
        debits_pending, debits_posted, credits_pending, credits_posted = map(sum, zip(*found, strict=True))
        assert (debits_pending, debits_posted) == (credits_pending, credits_posted)

    @given(histories)
    def search(requests: list[list[Transfer]]) -> None:
        trio.from_thread.run(balanced, requests)

    await trio.to_thread.run_sync(search)
    await embedded.aclose()
