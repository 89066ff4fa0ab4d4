"""Accounts, balances and filters as TigerBeetle has them: fixed layouts, little-endian.

Transfers are in `connector.core.transfers`. Source: TigerBeetle's reference,
"Account", "AccountBalance", "AccountFilter", "QueryFilter".
"""

from collections.abc import Iterable, Iterator
from struct import Struct
from typing import Final

from connector.ledger.api import AccountQuery, Balance, LedgerAccount
from connector.limits import U64_MAX

U128_MAX: Final = 2**128 - 1

# Flags of accounts.
LINKED: Final = 1 << 0
DEBITS_MUST_NOT_EXCEED_CREDITS: Final = 1 << 1
CREDITS_MUST_NOT_EXCEED_DEBITS: Final = 1 << 2
HISTORY: Final = 1 << 3

# Flags of filters.
_DEBITS: Final = 1 << 0
_CREDITS: Final = 1 << 1
_ACCOUNT_REVERSED: Final = 1 << 2
_QUERY_REVERSED: Final = 1 << 0

#: id, debits pending and posted, credits pending and posted, user_data_128, user_data_64,
#: user_data_32, reserved, ledger, code, flags, timestamp.
ACCOUNT: Final = Struct("<16s16s16s16s16s16sQIIIHHQ")
#: Debits pending and posted, credits pending and posted, timestamp.
BALANCE: Final = Struct("<16s16s16s16sQ56x")
#: Its second half.
BALANCE_TIME: Final = Struct("<Q56x")
#: account_id, user_data_128, user_data_64, user_data_32, code, timestamp_min and _max, limit, flags.
ACCOUNT_FILTER: Final = Struct("<16s16sQIH58xQQII")
#: user_data_128, user_data_64, user_data_32, ledger, code, timestamp_min and _max, limit, flags.
QUERY_FILTER: Final = Struct("<16sQIIH6xQQII")
assert (ACCOUNT.size, BALANCE.size, ACCOUNT_FILTER.size, QUERY_FILTER.size) == (128, 128, 128, 64)


def octets(number: int) -> bytes:
    """A 128-bit integer as its 16 octets."""
    return number.to_bytes(16, "little")


def number(octets: bytes) -> int:
    """The 128-bit integer in 16 octets."""
    return int.from_bytes(octets, "little")


def pack_account(account: LedgerAccount) -> bytes:
    """The 128 octets of `account`, balances and timestamp included."""
    return ACCOUNT.pack(
        octets(account.id),
        octets(account.debits_pending),
        octets(account.debits_posted),
        octets(account.credits_pending),
        octets(account.credits_posted),
        octets(account.user_data_128),
        account.user_data_64,
        account.user_data_32,
        0,
        account.ledger,
        account.code,
        account.flags,
        account.timestamp,
    )


def unpack_accounts(records: bytes) -> list[LedgerAccount]:
    """Every account in `records`, whose length must be a multiple of 128."""
    return [
        LedgerAccount(
            id=number(row[0]),
            debits_pending=number(row[1]),
            debits_posted=number(row[2]),
            credits_pending=number(row[3]),
            credits_posted=number(row[4]),
            user_data_128=number(row[5]),
            user_data_64=row[6],
            user_data_32=row[7],
            ledger=row[9],
            code=row[10],
            flags=row[11],
            timestamp=row[12],
        )
        for row in ACCOUNT.iter_unpack(records)
    ]


def unpack_balances(records: bytes) -> list[Balance]:
    """Every balance in `records`, whose length must be a multiple of 128."""
    return [
        Balance(
            debits_pending=number(row[0]),
            debits_posted=number(row[1]),
            credits_pending=number(row[2]),
            credits_posted=number(row[3]),
            timestamp=row[4],
        )
        for row in BALANCE.iter_unpack(records)
    ]


def pack_ids(ids: Iterable[int]) -> bytes:
    """The octets of a lookup."""
    return b"".join(map(octets, ids))


def pack_account_filter(query: AccountQuery) -> bytes:
    """The 128 octets of `query`."""
    flags = _DEBITS * query.debits | _CREDITS * query.credits | _ACCOUNT_REVERSED * query.reversed
    times = (query.timestamp_min, query.timestamp_max)
    assert all(0 <= time <= U64_MAX for time in times)
    return ACCOUNT_FILTER.pack(octets(query.account_id), bytes(16), 0, 0, 0, *times, query.limit, flags)


def pack_query_filter(*, user_data_128: int, code: int, limit: int, reversed: bool) -> bytes:
    """The 64 octets of a query of accounts; 0 is any."""
    flags = _QUERY_REVERSED * reversed
    return QUERY_FILTER.pack(octets(user_data_128), 0, 0, 0, code, 0, 0, limit, flags)


def requests(accounts: Iterable[LedgerAccount], batch_max: int) -> Iterator[list[LedgerAccount]]:
    """`accounts` in requests of at most `batch_max`, no linked chain in two of them.

    Raises AssertionError for a chain longer than a request.
    """
    batch: list[LedgerAccount] = []
    chain: list[LedgerAccount] = []
    for account in accounts:
        chain.append(account)
        assert len(chain) <= batch_max, "a linked chain does not fit a request"
        if account.flags & LINKED:
            continue
        if len(batch) + len(chain) > batch_max:
            yield batch
            batch = []
        batch += chain
        chain = []
    if len(batch) + len(chain) > batch_max:
        yield batch
        batch = []
    if batch or chain:
        yield batch + chain
