"""Orphans: transfers that are pending in the ledger, and that no book knows.

The journal owns the end of every pending transfer. One whose journal is lost
stays pending for ever, and counts in its accounts' pending sums: it is found
here, and voided by those who know that nobody will end it.
"""

from collections.abc import Collection, Iterable, Sequence
from hashlib import sha256

import msgspec

from connector.core.transfers import PENDING, POST_PENDING, TRANSFER_BYTES, VOID_PENDING, Transfer, pack
from connector.errors import Unavailable
from connector.ledger.api import AccountQuery, Ledger, LedgerAccount
from connector.ledger.outcome import check
from connector.limits import ORPHAN_SEARCH_TRANSFERS_MAX, ORPHANS_MAX


class Search(msgspec.Struct):
    """What was found, and whether all was looked at."""

    orphans: list[Transfer]
    is_complete: bool = True


async def find(ledger: Ledger, accounts: Iterable[LedgerAccount], known: Collection[int]) -> Search:
    """Pending transfers of `accounts` whose ids are not `known`, oldest first. Raises Unavailable."""
    found: dict[int, Transfer] = {}
    search = Search([])
    for account in accounts:
        pending, is_complete = await _pending(ledger, account)
        search.is_complete = search.is_complete and is_complete
        found.update((transfer.id, transfer) for transfer in pending if transfer.id not in known)
        if len(found) >= ORPHANS_MAX:
            search.is_complete = False
            break
    search.orphans = sorted(found.values(), key=lambda each: each.timestamp)[:ORPHANS_MAX]
    return search


async def _pending(ledger: Ledger, account: LedgerAccount) -> tuple[list[Transfer], bool]:
    """An account's transfers that are still pending, and whether they make up its pending sums.

    From the newest back: what ends a transfer comes before it.
    """
    debits, credits = account.debits_pending, account.credits_pending
    ended: set[int] = set()
    found: list[Transfer] = []
    seen, latest = 0, 0
    while (debits > 0 or credits > 0) and seen < ORPHAN_SEARCH_TRANSFERS_MAX:
        limit = ledger.batch_max
        query = AccountQuery(account_id=account.id, timestamp_max=latest, limit=limit, reversed=True)
        rows = await ledger.account_transfers(query)
        for row in rows:
            if row.flags & (POST_PENDING | VOID_PENDING):
                ended.add(row.pending_id)
            elif row.flags & PENDING and row.id not in ended:
                found.append(row)
                if row.debit_account_id == account.id:
                    debits -= row.amount
                else:
                    credits -= row.amount
            ended.discard(row.id)
        seen += len(rows)
        if len(rows) < limit or rows[-1].timestamp <= 1:
            break
        latest = rows[-1].timestamp - 1
    return found, debits == 0 and credits == 0


async def void(ledger: Ledger, orphans: Sequence[Transfer], now_ms: int) -> None:
    """Take back `orphans`; asking again changes nothing. Raises Unavailable, LedgerRefusal."""
    for start in range(0, len(orphans), ledger.batch_max):
        part = [_void(orphan, now_ms) for orphan in orphans[start : start + ledger.batch_max]]
        there = {each.id for each in await ledger.lookup_transfers([transfer.id for transfer in part])}
        events = b"".join(pack(transfer) for transfer in part if transfer.id not in there)
        if events:
            assert len(events) % TRANSFER_BYTES == 0
            await check(ledger, events, await ledger.create_transfers(events))


def _void(orphan: Transfer, now_ms: int) -> Transfer:
    ident = sha256(b"void orphan\0" + orphan.id.to_bytes(16, "little")).digest()[:16]
    return msgspec.structs.replace(
        orphan,
        id=int.from_bytes(ident, "little"),
        pending_id=orphan.id,
        user_data_64=now_ms,
        timeout=0,
        flags=VOID_PENDING,
        timestamp=0,
    )


def require_complete(search: Search) -> None:
    """Raises Unavailable when pending transfers may be left that were not found."""
    if not search.is_complete:
        raise Unavailable(
            f"more than {ORPHAN_SEARCH_TRANSFERS_MAX} transfers of an account, or {ORPHANS_MAX} orphans: "
            "not everything pending was found"
        )
