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
    at least one link that it needs is up, or none is needed, and nothing makes
    it refuse new packets. It is "degraded" while some needed component is down.
    """

    def __init__(self) -> None:
        self.components: dict[str, Component] = {}
        self.started = False
        self.draining = False
        #: Why new packets are refused; empty when they are not.
        self.refusing = ""
        self._links: list[Component] = []

    def declare(self, name: str, now_ms: int, *, is_link: bool = False) -> None:
        """A component that the node needs; down until it says otherwise."""
        component = Component(name, up=False, reason="not up yet", since_ms=now_ms)
        self.components[name] = component
        if is_link:
            self._links.append(component)

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
        if self.refusing or (self._links and not any(link.up for link in self._links)):
            return "unavailable"
        return "ready" if all(component.up for component in self.components.values()) else "degraded"

    @property
    def can_forward(self) -> bool:
        """Whether packets can go anywhere."""
        return self.status in ("ready", "degraded")
