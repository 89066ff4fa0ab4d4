"""The expiry clock: everything falls due once, earliest first, and its memory is bounded by time."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from connector.core.expiry import ExpiryClock


def test_what_is_due_comes_out_once_earliest_first_in_the_order_it_came() -> None:
    clock: ExpiryClock[str] = ExpiryClock()
    for item, deadline_ms in (("c", 30), ("a", 10), ("b2", 20), ("b1", 20)):
        clock.add(item, deadline_ms)
    assert clock.next_due_ms() == 10
    assert list(clock.due(9)) == []
    assert list(clock.due(20)) == ["a", "b2", "b1"]
    assert list(clock.due(20)) == []
    assert clock.next_due_ms() == 30
    assert list(clock.due(1_000)) == ["c"]
    assert clock.next_due_ms() is None


def test_what_is_removed_never_falls_due() -> None:
    clock: ExpiryClock[str] = ExpiryClock()
    clock.add("a", 10)
    clock.add("b", 10)
    clock.remove("a", 10)
    assert list(clock.due(10)) == ["b"]


def test_any_number_of_packets_costs_one_place_a_millisecond() -> None:
    clock: ExpiryClock[int] = ExpiryClock()
    for item in range(10_000):
        clock.add(item, 1_000 + item % 10)
        clock.remove(item, 1_000 + item % 10)
    assert len(clock._order) == len(clock._buckets) == 10
    assert list(clock.due(2_000)) == []
    assert not clock._order
    assert not clock._buckets


def test_things_may_be_added_while_others_fall_due() -> None:
    clock: ExpiryClock[str] = ExpiryClock()
    clock.add("a", 10)
    found = []
    for item in clock.due(20):
        found.append(item)
        if item == "a":
            clock.add("b", 15)
            clock.add("later", 25)
    assert found == ["a", "b"]
    assert clock.next_due_ms() == 25


class Clock(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock: ExpiryClock[int] = ExpiryClock()
        self.model: dict[int, int] = {}
        self.now_ms = 0
        self.next = 0

    @rule(delay_ms=st.integers(-3, 12))
    def add(self, delay_ms: int) -> None:
        self.next += 1
        self.model[self.next] = self.now_ms + delay_ms
        self.clock.add(self.next, self.now_ms + delay_ms)

    @rule(which=st.integers(0, 20))
    def remove(self, which: int) -> None:
        if self.model:
            item = list(self.model)[which % len(self.model)]
            self.clock.remove(item, self.model.pop(item))

    @rule(step_ms=st.integers(0, 8))
    def wait(self, step_ms: int) -> None:
        self.now_ms += step_ms
        expected = [item for item, deadline_ms in self.model.items() if deadline_ms <= self.now_ms]
        expected.sort(key=lambda item: self.model[item])
        assert list(self.clock.due(self.now_ms)) == expected
        for item in expected:
            del self.model[item]

    @invariant()
    def it_is_looked_at_in_time(self) -> None:
        next_ms = self.clock.next_due_ms()
        if self.model:
            assert next_ms is not None
            assert next_ms <= min(self.model.values())


TestClock = Clock.TestCase
TestClock.settings = settings(max_examples=60, stateful_step_count=40)
