"""Routing: the longest prefix wins, on a segment boundary, whatever the number of routes."""

from typing import Any

import pytest

from connector.core import routing
from connector.core.routing import RoutingTable
from connector.errors import LocalProtocolError


def table(*prefixes: str) -> RoutingTable[str]:
    """Each prefix leads to itself."""
    made: RoutingTable[str] = RoutingTable()
    for prefix in prefixes:
        made.add(prefix, f"to {prefix}")
    return made


@pytest.mark.parametrize(
    ("address", "prefix"),
    [
        ("g.alice", "g.alice"),
        ("g.alice.x", "g.alice"),
        ("g.alice.bob", "g.alice.bob"),
        ("g.alice.bob.carol.dave", "g.alice.bob"),
        ("g.alicex", "g"),
        ("g.ali", "g"),
        ("test.alice", ""),
    ],
)
def test_the_longest_prefix_wins(address: str, prefix: str) -> None:
    routes = table("", "g", "g.alice", "g.alice.bob")
    assert routes.lookup(address) == f"to {prefix}"


def test_without_a_route_there_is_no_way() -> None:
    assert table().lookup("g.alice") is None
    assert table("test").lookup("g.alice") is None
    assert table("g.alice.bob").lookup("g.alice") is None


def test_a_route_is_replaced_and_removed_and_answers_follow() -> None:
    routes = table("", "g.alice")
    assert routes.lookup("g.alice.x") == "to g.alice"
    routes.add("g.alice", "elsewhere")
    assert routes.lookup("g.alice.x") == "elsewhere"
    routes.add("g.alice.x", "further")
    assert routes.lookup("g.alice.x") == "further"
    routes.remove("g.alice.x")
    routes.remove("g.alice")
    assert routes.lookup("g.alice.x") == "to "
    routes.remove("")
    assert routes.lookup("g.alice.x") is None
    assert len(routes) == 0
    with pytest.raises(KeyError):
        routes.remove("g.alice")


def test_an_address_without_a_route_gets_one_when_it_is_added() -> None:
    routes = table()
    assert routes.lookup("g.alice") is None
    routes.add("g", "there")
    assert routes.lookup("g.alice") == "there"


def test_routes_are_listed_by_prefix() -> None:
    assert table("g.b", "", "g.a").routes() == [("", "to "), ("g.a", "to g.a"), ("g.b", "to g.b")]


@pytest.mark.parametrize("prefix", ["g.", "G", "g.alice\n", "g..a", "nonsense.a"])
def test_what_is_no_prefix_is_refused(prefix: str) -> None:
    with pytest.raises(LocalProtocolError, match="not an ILP address prefix"):
        table(prefix)


def test_a_full_table_takes_no_more_but_replaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "ROUTING_TABLE_MAX", 2)
    routes = table("g.a", "g.b")
    routes.add("g.b", "elsewhere")
    with pytest.raises(LocalProtocolError, match=r"^the routing table is full: 2 routes$"):
        routes.add("g.c", "nowhere")
    assert routes.lookup("g.c") is None
    assert len(routes) == 2


class CountingDict(dict[str, Any]):
    """Counts look-ups."""

    probes = 0

    def get(self, key: str, default: Any = None) -> Any:
        self.probes += 1
        return super().get(key, default)


@pytest.mark.parametrize("number", [10, 1_000, 90_000])
def test_a_look_up_probes_once_for_each_depth_whatever_the_number_of_routes(number: int) -> None:
    routes = RoutingTable[int]()
    routes.add("g", 0)
    for index in range(number):
        routes.add(f"g.p{index}", index)
        routes.add(f"g.far.away.p{index}", index)
    counting = routes._routes = CountingDict(routes._routes)
    assert routes.lookup("g.nobody.at.all.here") == 0
    assert counting.probes == 3
    assert routes.lookup("g.far.away.p7.x") == 7
    assert counting.probes == 4


def test_depths_that_no_route_has_any_more_are_not_probed() -> None:
    routes = table("g", "g.a.b.c.d")
    routes.remove("g.a.b.c.d")
    counting = routes._routes = CountingDict(routes._routes)
    assert routes.lookup("g.a.b.c.d") == "to g"
    assert counting.probes == 1
