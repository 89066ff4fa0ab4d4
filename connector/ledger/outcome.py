"""What became of a request: made, there already and equal, or an alarm."""

from collections.abc import Sequence

from connector.core.transfers import TRANSFER_BYTES, Transfer, unpack
from connector.errors import Unavailable
from connector.ledger.api import Ledger
from connector.ledger.status import TransferStatus

#: Fields that a transfer gets in the ledger, and does not have in a request.
_OWN = ("timestamp",)


class LedgerRefusal(Unavailable):
    """The ledger refused a transfer, or holds another one in its place: somebody must look at it."""


async def check(ledger: Ledger, events: bytes, statuses: Sequence[int]) -> None:
    """Look at the status of each transfer of a request. Raises LedgerRefusal, or Unavailable.

    A repeated chain answers EXISTS first and LINKED_EVENT_FAILED for the rest:
    those are looked up, and every field compared, before they count as made.
    """
    if len(statuses) * TRANSFER_BYTES != len(events):
        count = len(events) // TRANSFER_BYTES
        raise LedgerRefusal(f"the ledger answered {len(statuses)} of {count} transfers")
    if statuses.count(TransferStatus.CREATED) == len(statuses):
        return
    good = (TransferStatus.CREATED, TransferStatus.EXISTS)
    doubtful = [index for index, status in enumerate(statuses) if status not in good]
    sent = {index: unpack(_octets(events, index))[0] for index in doubtful}
    for start in range(0, len(doubtful), ledger.batch_max):
        part = doubtful[start : start + ledger.batch_max]
        found = {each.id: each for each in await ledger.lookup_transfers([sent[index].id for index in part])}
        for index in part:
            _compare(sent[index], found.get(sent[index].id), statuses[index])


def _octets(events: bytes, index: int) -> bytes:
    return events[index * TRANSFER_BYTES : (index + 1) * TRANSFER_BYTES]


def _compare(sent: Transfer, found: Transfer | None, status: int) -> None:
    if found is not None and all(
        getattr(sent, name) == getattr(found, name) for name in Transfer.__struct_fields__ if name not in _OWN
    ):
        return
    there = "nothing" if found is None else repr(found)
    raise LedgerRefusal(
        f"the ledger refused a transfer ({_name(status)}); sent: {sent!r}; the ledger holds: {there}"
    )


def _name(status: int) -> str:
    try:
        return TransferStatus(status).name.lower()
    except ValueError:
        return f"status {status}"
