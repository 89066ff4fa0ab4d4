"""Health: what a node says of itself."""

import pytest

from connector.core.health import Component, Health


def health(**up: bool) -> Health:
    made = Health()
    made.started = True
    for name, works in up.items():
        made.declare(name, 0, is_link=name.startswith("link"))
        if works:
            made.up(name, 1)
    return made


@pytest.mark.parametrize(
    ("up", "status", "can_forward"),
    [
        ({}, "ready", True),
        ({"link_a": True}, "ready", True),
        ({"link_a": True, "link_b": True}, "ready", True),
        ({"link_a": True, "link_b": False}, "degraded", True),
        ({"link_a": False}, "unavailable", False),
        ({"link_a": False, "link_b": False}, "unavailable", False),
        ({"ledger": True}, "ready", True),
        ({"ledger": False}, "degraded", True),
        ({"link_a": True, "ledger": False}, "degraded", True),
        ({"link_a": False, "ledger": True}, "unavailable", False),
    ],
)
def test_status_follows_the_components(up: dict[str, bool], status: str, can_forward: bool) -> None:
    node = health(**up)
    assert (node.status, node.can_forward) == (status, can_forward)


def test_a_node_that_refuses_packets_is_unavailable_whatever_is_up() -> None:
    node = health(link_a=True, ledger=True)
    node.refusing = "the ledger is too far behind"
    assert (node.status, node.can_forward) == ("unavailable", False)
    node.refusing = ""
    assert (node.status, node.can_forward) == ("ready", True)


def test_before_the_start_and_while_draining_nothing_is_forwarded() -> None:
    node = health(a=True)
    node.started = False
    assert (node.status, node.can_forward) == ("starting", False)
    node.started = node.draining = True
    assert (node.status, node.can_forward) == ("draining", False)


def test_only_a_change_is_news_but_the_reason_is_always_the_last() -> None:
    node = Health()
    node.declare("link", 100)
    assert node.components["link"] == Component("link", up=False, reason="not up yet", since_ms=100)
    assert not node.down("link", "refused", 200)
    assert node.components["link"] == Component("link", up=False, reason="refused", since_ms=100)
    assert node.up("link", 300)
    assert not node.up("link", 400)
    assert node.components["link"] == Component("link", up=True, reason="", since_ms=300)
    assert node.down("link", "gone", 500)
    assert node.components["link"] == Component("link", up=False, reason="gone", since_ms=500)


def test_components_that_were_never_declared_are_not_followed() -> None:
    node = health()
    assert not node.up("child", 1)
    assert not node.down("child", "gone", 2)
    assert node.components == {}
    assert node.status == "ready"
