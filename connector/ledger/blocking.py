"""Blocking calls, off the event loop."""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import trio

T = TypeVar("T")


class RunBlocking(Protocol):
    """Makes a blocking call, one at a time, and gives what it returns or raises."""

    def __call__(self, call: Callable[[], T], /) -> Awaitable[T]: ...


def in_thread() -> RunBlocking:
    """One thread at a time, and none of those that others wait for.

    A call that was begun is waited for, also by a task that is cancelled: what
    it does to a file is not left half known.
    """
    limiter = trio.CapacityLimiter(1)

    async def run(call: Callable[[], T], /) -> T:
        with trio.CancelScope(shield=True):
            return await trio.to_thread.run_sync(call, limiter=limiter)
        raise AssertionError("nobody cancels a shielded scope")

    return run
