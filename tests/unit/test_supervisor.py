"""Supervision: outages are retried, longer each time; everything else ends the node."""

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from connector.errors import AuthenticationError, RemoteProtocolError, Unavailable
from connector.node.supervisor import supervise


class Done(Exception):
    """Ends a test."""


class Task:
    """Runs for the given times, each ended by an outage, then raises `Done`; notes when it was started."""

    def __init__(self, *durations_s: float) -> None:
        self._durations_s = list(durations_s)
        self.starts_s: list[float] = []
        self.outages: list[tuple[str, str]] = []

    async def run(self) -> None:
        self.starts_s.append(trio.current_time())
        if not self._durations_s:
            raise Done
        await trio.sleep(self._durations_s.pop(0))
        raise Unavailable(f"outage {len(self.starts_s)}")

    def on_outage(self, name: str, reason: str) -> None:
        self.outages.append((name, reason))

    async def supervised(self, jitter: float) -> list[float]:
        """The pauses between one run's end and the next one's start, when none takes time itself."""
        with pytest.raises(Done):
            await supervise("task", self.run, self.on_outage, lambda: jitter)
        return [after - before for before, after in zip(self.starts_s, self.starts_s[1:], strict=False)]


@pytest.mark.parametrize(("jitter", "factor"), [(0.0, 0.5), (0.5, 0.75), (1.0, 1.0)])
async def test_the_wait_doubles_up_to_its_bound(
    autojump_clock: MockClock, jitter: float, factor: float
) -> None:
    pauses = await Task(*[0] * 9).supervised(jitter)
    assert pauses == pytest.approx([factor * s for s in (0.5, 1, 2, 4, 8, 16, 30, 30, 30)])


async def test_each_outage_is_told_with_its_reason(autojump_clock: MockClock) -> None:
    task = Task(0, 0)
    await task.supervised(0)
    assert task.outages == [("task", "outage 1"), ("task", "outage 2")]


async def test_the_backoff_starts_over_once_it_was_stable(autojump_clock: MockClock) -> None:
    pauses = await Task(0, 0, 0, 60, 0).supervised(1)
    assert pauses == pytest.approx([0.5, 1, 2, 60 + 0.5, 1])


async def test_almost_stable_is_not_stable(autojump_clock: MockClock) -> None:
    pauses = await Task(0, 0, 59.9, 0).supervised(1)
    assert pauses == pytest.approx([0.5, 1, 59.9 + 2, 4])


async def test_the_default_jitter_stays_within_its_bounds(autojump_clock: MockClock) -> None:
    task = Task(*[0] * 20)
    with pytest.raises(Done):
        await supervise("task", task.run, task.on_outage)
    pauses = [after - before for before, after in zip(task.starts_s, task.starts_s[1:], strict=False)]
    assert all(15 <= pause <= 30 for pause in pauses[6:])
    assert len(set(pauses[6:])) > 1


async def test_wrong_credentials_are_an_outage_too(autojump_clock: MockClock) -> None:
    outages: list[str] = []

    async def refused() -> None:
        if outages:
            raise Done
        raise AuthenticationError("bob refused authentication")

    with pytest.raises(Done):
        await supervise("link bob", refused, lambda name, reason: outages.append(f"{name}: {reason}"))
    assert outages == ["link bob: bob refused authentication"]


async def test_a_task_that_returns_is_a_bug() -> None:
    async def returns() -> None:
        await trio.lowlevel.checkpoint()

    with pytest.raises(AssertionError, match=r"^clock returned by itself$"):
        await supervise("clock", returns, never)


@pytest.mark.parametrize(
    "error",
    [
        AssertionError("invariant"),
        TypeError("bug"),
        OSError("not translated"),
        RemoteProtocolError("not handled"),
        ExceptionGroup("several", [Unavailable("gone")]),
    ],
)
async def test_whatever_is_no_outage_ends_the_node(error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        await supervise("task", raising(error), never)
    assert raised.value is error


async def test_a_bug_in_who_is_told_is_not_hidden() -> None:
    with pytest.raises(AssertionError, match=r"^task is no outage: gone$"):
        await supervise("task", raising(Unavailable("gone")), never)


async def test_it_can_be_cancelled_while_it_runs_and_while_it_waits(autojump_clock: MockClock) -> None:
    for task in (Task(10_000), Task(0, 0, 0, 0, 0, 0, 0, 0)):
        with trio.move_on_after(5) as scope:
            await supervise("task", task.run, task.on_outage)
        assert scope.cancelled_caught


def never(name: str, reason: str) -> None:
    raise AssertionError(f"{name} is no outage: {reason}")


def raising(error: Exception) -> Callable[[], Awaitable[None]]:
    async def run() -> None:
        raise error

    return run
