"""The routing table answers as a search through all routes would, after any additions and removals."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from connector.core.routing import RoutingTable

# Few segments, some of them prefixes of others as strings: so that routes meet.
SEGMENT = st.sampled_from(("a", "ab", "b", "-"))
PREFIX = st.one_of(
    st.just(""),
    st.builds(
        lambda scheme, rest: ".".join((scheme, *rest)),
        st.sampled_from(("g", "test")),
        st.lists(SEGMENT, max_size=4),
    ),
)
ADDRESS = st.builds(
    lambda scheme, rest: ".".join((scheme, *rest)),
    st.sampled_from(("g", "test")),
    st.lists(SEGMENT, min_size=1, max_size=6),
)


class Table(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.table: RoutingTable[int] = RoutingTable()
        self.model: dict[str, int] = {}

    def naive(self, address: str) -> int | None:
        segments = address.split(".")
        for length in range(len(segments), -1, -1):
            prefix = ".".join(segments[:length])
            if prefix in self.model:
                return self.model[prefix]
        return None

    @rule(prefix=PREFIX, leads_to=st.integers(0, 9))
    def add(self, prefix: str, leads_to: int) -> None:
        self.table.add(prefix, leads_to)
        self.model[prefix] = leads_to

    @rule(prefix=PREFIX)
    def remove(self, prefix: str) -> None:
        if prefix in self.model:
            self.table.remove(prefix)
            del self.model[prefix]

    @rule(address=ADDRESS)
    def look_up(self, address: str) -> None:
        expected = self.naive(address)
        assert self.table.lookup(address) == expected

    @invariant()
    def the_same_routes(self) -> None:
        assert self.table.routes() == sorted(self.model.items())
        assert len(self.table) == len(self.model)


TestTable = Table.TestCase
TestTable.settings = settings(max_examples=60, stateful_step_count=40)
