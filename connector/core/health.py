"""What state a node and its components are in, for others to ask."""

import msgspec


class Component(msgspec.Struct):
    """One component. `reason` says why it is down; `since_ms` is wall time."""

    name: str
    up: bool
    reason: str
    since_ms: int


class Health:
    """The components of a node.

    A node can forward ("ready") once it has started and is not draining, and
    at least one component that it needs is up, or none is needed. It is
    "degraded" while some needed component is down.
    """

    def __init__(self) -> None:
        self.components: dict[str, Component] = {}
        self.started = False
        self.draining = False

    def declare(self, name: str, now_ms: int) -> None:
        """A component that the node needs; down until it says otherwise."""
        self.components[name] = Component(name, up=False, reason="not up yet", since_ms=now_ms)

    def up(self, name: str, now_ms: int) -> bool:
        """`name` works; whether that is news. Components never declared are not followed."""
        return self._set(name, True, "", now_ms)

    def down(self, name: str, reason: str, now_ms: int) -> bool:
        """`name` does not work; whether it did so far."""
        return self._set(name, False, reason, now_ms)

    def _set(self, name: str, up: bool, reason: str, now_ms: int) -> bool:
        component = self.components.get(name)
        if component is None:
            return False
        changed = component.up != up
        component.reason = reason
        if changed:
            component.up = up
            component.since_ms = now_ms
        return changed

    @property
    def status(self) -> str:
        """`starting`, `ready`, `degraded`, `unavailable` or `draining`."""
        if self.draining:
            return "draining"
        if not self.started:
            return "starting"
        up = [component.up for component in self.components.values()]
        if all(up):
            return "ready"
        return "degraded" if any(up) else "unavailable"

    @property
    def can_forward(self) -> bool:
        """Whether packets can go anywhere."""
        return self.status in ("ready", "degraded")
