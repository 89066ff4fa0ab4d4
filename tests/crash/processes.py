"""Nodes as processes that can be killed, and whose books can be read from their directories."""

import os
import shutil
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import httpx
import trio

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 30
#: What of a log is shown when a test fails.
_LOG_LINES_SHOWN = 60
_POLL_S = 0.02


class NodeProcess:
    """One `connector run`, of one node or several; it may be started many times."""

    def __init__(self, name: str, configs: Iterable[Path], log: Path, environment: dict[str, str]) -> None:
        self.name = name
        self.log = log
        #: How often it was started.
        self.starts = 0
        self._configs = list(map(str, configs))
        self._environment = environment
        self._process: trio.Process | None = None

    async def start(self) -> None:
        """Start it; returns at once."""
        assert self._process is None
        self.starts += 1
        with self.log.open("a") as log:
            self._process = await trio.lowlevel.open_process(
                [sys.executable, "-m", "connector", "run", *self._configs],
                stdin=DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | self._environment,
                cwd=ROOT,
            )

    async def kill(self) -> None:
        """End it at once, in the middle of whatever it does."""
        assert self._process is not None
        assert self._process.returncode is None, f"{self.name} ended by itself"
        self._process.kill()
        await self._process.wait()
        self._process = None

    async def stop(self) -> None:
        """Have it drain and end."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        with trio.fail_after(STOP_TIMEOUT_S):
            assert await self._process.wait() == 0, f"{self.name} exited with {self._process.returncode}"
        self._process = None

    async def end(self) -> None:
        """Leave nothing behind, whatever the test did."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            with trio.CancelScope(shield=True):
                await self._process.wait()
            self._process = None

    def show_log(self) -> None:
        """Print how its log ends."""
        lines = self.log.read_text().splitlines()[-_LOG_LINES_SHOWN:] if self.log.exists() else []
        print(f"--- the log of {self.name}, started {self.starts} times, ends:", *lines, sep="\n")


@contextmanager
def shown_on_failure(nodes: Iterable[NodeProcess]) -> Iterator[None]:
    """Print the logs of `nodes` when something fails."""
    try:
        yield
    except BaseException:
        for node in nodes:
            node.show_log()
        raise


def copy_state(state_dir: Path, copy: Path, *, with_ledger: bool = False) -> None:
    """Copy what a process left; nothing may be writing there."""
    ignored = shutil.ignore_patterns() if with_ledger else shutil.ignore_patterns("ledger.sqlite3*")
    shutil.copytree(state_dir, copy, ignore=ignored)


async def ask(port: int, path: str) -> Any:
    """What a node's HTTP port answers to GET; None while it answers nothing."""
    try:
        async with httpx.AsyncClient() as web:
            reply = await web.get(f"http://127.0.0.1:{port}{path}")
    except httpx.TransportError:
        return None
    return reply.json() | {"http_status": reply.status_code}


async def wait_caught_up(port: int, timeout_s: float = START_TIMEOUT_S) -> None:
    """Wait until the ledger of the node at `port` has all that its journal holds."""
    answer = None
    with trio.move_on_after(timeout_s):
        while True:
            answer = await ask(port, "/api/ledger")
            if answer and answer["state"] == "healthy" and not answer["unposted"]["entries"]:
                return
            await trio.sleep(_POLL_S)
    raise AssertionError(f"the ledger is still behind: {answer}")
