"""The expiry clock: what falls due when, for any number of packets.

Deadlines are whole milliseconds of monotonic time. Packets that fall due in
the same millisecond share a bucket, and one heap orders the buckets. Removing
a packet leaves its bucket, perhaps empty, until its time comes: so the heap
has at most one entry per millisecond of the longest hold, whatever the rate.
"""

from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Generic, TypeVar

T = TypeVar("T")


class ExpiryClock(Generic[T]):
    """Deadlines of things that are compared by identity of their hash."""

    def __init__(self) -> None:
        self._buckets: dict[int, dict[T, None]] = {}
        self._order: list[int] = []

    def add(self, item: T, deadline_ms: int) -> None:
        """Let `item` fall due at `deadline_ms`."""
        bucket = self._buckets.get(deadline_ms)
        if bucket is None:
            bucket = self._buckets[deadline_ms] = {}
            heappush(self._order, deadline_ms)
        bucket[item] = None

    def remove(self, item: T, deadline_ms: int) -> None:
        """Forget `item`, which was added with that deadline."""
        del self._buckets[deadline_ms][item]

    def next_due_ms(self) -> int | None:
        """When to look again: the earliest deadline, or None when nothing waits.

        The bucket may have emptied since; looking then does no harm.
        """
        return self._order[0] if self._order else None

    def due(self, now_ms: int) -> Iterator[T]:
        """Take out, earliest first, all that is due at `now_ms`."""
        while self._order and self._order[0] <= now_ms:
            # Dicts keep their order: packets expire in the order they came.
            yield from self._buckets.pop(heappop(self._order))
