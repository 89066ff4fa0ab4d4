"""Supervision: an outage restarts a task, a bug ends the node.

Each task of a node runs under `supervise` in the node's one nursery. Only
`Unavailable` is an outage; whatever else escapes a task is a bug or a wrong
environment, and ends the node loudly.
"""

import random
from collections.abc import Awaitable, Callable
from typing import NoReturn

import trio

from connector.errors import Unavailable
from connector.limits import BACKOFF_MAX_S, BACKOFF_MIN_S, STABLE_AFTER_S


async def supervise(
    name: str,
    run: Callable[[], Awaitable[None]],
    on_outage: Callable[[str, str], None],
    jitter: Callable[[], float] = random.random,
) -> NoReturn:
    """Run `run` for ever; after each outage wait, longer each time, and run it again.

    The wait is between half and the whole of a delay that doubles from
    BACKOFF_MIN_S to BACKOFF_MAX_S and starts over after STABLE_AFTER_S without
    an outage. `on_outage(name, reason)` is told of each. Raises AssertionError
    when `run` returns by itself, and whatever else it raises.
    """
    delay_s = BACKOFF_MIN_S
    while True:
        started = trio.current_time()
        try:
            await run()
        except Unavailable as outage:
            on_outage(name, str(outage))
        else:
            raise AssertionError(f"{name} returned by itself")
        if trio.current_time() - started >= STABLE_AFTER_S:
            delay_s = BACKOFF_MIN_S
        await trio.sleep(delay_s * (0.5 + jitter() / 2))
        delay_s = min(2 * delay_s, BACKOFF_MAX_S)
