"""Events to those who listen: plain calls, in the order of subscription, and nothing kept."""

from collections.abc import Callable

import trio

from connector.core.events import AnyEvent
from connector.limits import EVENT_SUBSCRIBERS_MAX

Listener = Callable[[AnyEvent], None]


class Events:
    """One node's events. Without subscribers, emitting costs nothing."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._somebody = trio.Event()

    def __bool__(self) -> bool:
        """Whether anybody listens."""
        return bool(self._listeners)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with each event from now on; what is returned ends that.

        A listener neither waits nor raises. At most EVENT_SUBSCRIBERS_MAX listen.
        """
        assert len(self._listeners) < EVENT_SUBSCRIBERS_MAX
        self._listeners.append(listener)
        self._somebody.set()

        def cancel() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return cancel

    async def wait_subscribed(self) -> None:
        """Wait until somebody listens."""
        while not self._listeners:
            self._somebody = trio.Event()
            await self._somebody.wait()

    def emit(self, event: AnyEvent) -> None:
        """Tell every listener."""
        for listener in tuple(self._listeners):
            listener(event)
