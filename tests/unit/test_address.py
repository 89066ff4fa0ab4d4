"""ILP addresses (RFC 15): the whole string, ASCII, bounded; prefixes end where segments do."""

import pytest

from connector.errors import LocalProtocolError
from connector.limits import ILP_ADDRESS_MAX_BYTES
from connector.protocol import address as addresses

SCHEMES = ("g", "private", "example", "peer", "self", "test", "test1", "test2", "test3", "local")
LONGEST = "g." + "a" * (ILP_ADDRESS_MAX_BYTES - 2)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_scheme_alone_is_a_prefix_but_no_address(scheme: str) -> None:
    assert addresses.is_prefix(scheme)
    assert not addresses.is_address(scheme)
    assert addresses.is_address(f"{scheme}.a")
    assert addresses.scheme(f"{scheme}.a.b") == scheme


@pytest.mark.parametrize("text", ["g.alice", "test.A-Z_~.0.9", "peer.config", "g.a.b.c.d.e.f", LONGEST])
def test_an_address_is_one(text: str) -> None:
    assert addresses.is_address(text)
    assert addresses.is_prefix(text)


@pytest.mark.parametrize(
    "text",
    [
        "g.alice\n",
        "\ng.alice",
        "g.alice ",
        "g..alice",
        "g.",
        ".g",
        ".",
        "alice",
        "G.alice",
        "test4.alice",
        "test0.alice",
        "tests.alice",
        "gg.alice",
        "g.al/ice",
        "g.al ice",
        "g.älice",
        "g.１２",  # noqa: RUF001 - digits, but not ASCII
        "g.٣",
        "g.a\x00",
        LONGEST + "a",
        "g" + ".a" * ILP_ADDRESS_MAX_BYTES,
    ],
)
def test_what_is_no_address_is_no_prefix_either(text: str) -> None:
    assert not addresses.is_address(text)
    assert not addresses.is_prefix(text)


def test_the_default_route_is_a_prefix_and_no_address() -> None:
    assert addresses.is_prefix("")
    assert not addresses.is_address("")


@pytest.mark.parametrize("text", ["", "a.b", "a\n", "ä", "a b", "a" * (ILP_ADDRESS_MAX_BYTES + 1)])
def test_what_is_no_segment(text: str) -> None:
    assert not addresses.is_segment(text)


def test_a_segment_has_letters_digits_and_three_signs() -> None:
    assert addresses.is_segment("aZ09_~-")


@pytest.mark.parametrize(
    ("prefix", "address", "covered"),
    [
        ("g.alice", "g.alice", True),
        ("g.alice", "g.alice.x.y", True),
        ("g.alice", "g.alicex", False),
        ("g.alice", "g.alice-x", False),
        ("g.alice.x", "g.alice", False),
        ("g", "g.alice", True),
        ("g", "test.alice", False),
        ("test", "test1.alice", False),
        ("", "g.alice", True),
    ],
)
def test_a_prefix_covers_whole_segments(prefix: str, address: str, covered: bool) -> None:
    assert addresses.covers(prefix, address) is covered


def test_a_child_is_below_its_parent() -> None:
    assert addresses.child("test.node", "alice", "token") == "test.node.alice.token"


@pytest.mark.parametrize(("parent", "segment"), [("test.node", ""), ("test.node", "a b"), (LONGEST, "a")])
def test_a_child_that_is_no_address_is_refused(parent: str, segment: str) -> None:
    with pytest.raises(LocalProtocolError, match="not an ILP address"):
        addresses.child(parent, segment)
