"""Linked chains: events that are created together or not at all, accounts and transfers alike."""

from collections.abc import Callable, Sequence
from typing import Final

from connector.ledger.status import AccountStatus, TransferStatus

# Plain integers: a request has thousands, and members of enums are slower to reach.
CREATED: Final = int(TransferStatus.CREATED)
LINKED_EVENT_FAILED: Final = int(TransferStatus.LINKED_EVENT_FAILED)
LINKED_EVENT_CHAIN_OPEN: Final = int(TransferStatus.LINKED_EVENT_CHAIN_OPEN)
assert CREATED == AccountStatus.CREATED
assert LINKED_EVENT_FAILED == AccountStatus.LINKED_EVENT_FAILED
assert LINKED_EVENT_CHAIN_OPEN == AccountStatus.LINKED_EVENT_CHAIN_OPEN


def in_chains(
    linked: Sequence[int],
    create: Callable[[int], int],
    mark: Callable[[], int],
    roll_back: Callable[[int], None],
) -> list[int]:
    """Create each event, or each chain of linked events as one, and answer a status for each.

    The event that breaks a chain keeps its own status, all others of the chain
    answer LINKED_EVENT_FAILED; the last event of a request, if it is linked,
    breaks its chain with LINKED_EVENT_CHAIN_OPEN. `roll_back` gets what `mark`
    gave when the chain began.
    """
    statuses: list[int] = []
    start: int | None = None
    marked = 0
    broken = False
    last = len(linked) - 1
    for index, link in enumerate(linked):
        if link and start is None:
            start, marked = index, mark()
        if link and index == last:
            status = LINKED_EVENT_CHAIN_OPEN
        elif broken:
            status = LINKED_EVENT_FAILED
        else:
            status = create(index)
        statuses.append(status)
        if start is not None:
            if status != CREATED and not broken:
                broken = True
                roll_back(marked)
                statuses[start:index] = [LINKED_EVENT_FAILED] * (index - start)
            if not link:
                start, broken = None, False
    return statuses
