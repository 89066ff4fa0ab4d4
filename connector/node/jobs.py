"""Jobs: what takes longer than an HTTP request may, one at a time.

Who asks waits a little; who needs to wait longer is told the job's number and
asks again. Hypercorn ends a connection on which nothing is read for
HTTP_TIMEOUT_S, so no answer may take as long.
"""

from collections.abc import Awaitable, Callable

import trio
from loguru import logger

from connector.errors import ConnectorError, Unavailable
from connector.limits import JOB_WAIT_S


class Job:
    """Something under way, or done."""

    def __init__(self, number: int, name: str, work: Callable[[], Awaitable[object]]) -> None:
        self.number = number
        self.name = name
        self.result: object = None
        self.error: ConnectorError | None = None
        self.is_done = False
        self._work = work
        self._done = trio.Event()

    async def run(self) -> None:
        """Do it."""
        try:
            self.result = await self._work()
        except ConnectorError as error:
            self.error = error
        except Exception as error:  # noqa: BLE001 - a question does not end the node that it is about
            logger.opt(exception=error).error("{} failed by a bug", self.name)
            self.error = Unavailable(f"{self.name} failed by a bug, which the node has logged: {error!r}")
        self.is_done = True
        self._done.set()

    async def wait(self) -> bool:
        """Wait up to JOB_WAIT_S; whether it is done."""
        with trio.move_on_after(JOB_WAIT_S):
            await self._done.wait()
        return self.is_done


class Jobs:
    """At most one job under way, and the newest result."""

    def __init__(self) -> None:
        self.newest: Job | None = None
        self._new = trio.Event()

    def start(self, name: str, work: Callable[[], Awaitable[object]]) -> Job | None:
        """A new job, or the one of that name that is under way; None when another is."""
        under_way = self.newest
        if under_way is not None and not under_way.is_done:
            return under_way if under_way.name == name else None
        self.newest = Job(1 if under_way is None else under_way.number + 1, name, work)
        self._new.set()
        return self.newest

    async def run(self) -> None:
        """Do what is started; never returns."""
        while True:
            await self._new.wait()
            self._new = trio.Event()
            assert self.newest is not None
            await self.newest.run()
