"""Where replicas are: what can be written, and what it means."""

import pytest

from connector.errors import Unavailable
from connector.ledger.replicas import parse_replicas, resolve


@pytest.mark.parametrize(
    ("text", "replicas"),
    [
        ("3000", [("127.0.0.1", 3000)]),
        (
            "tigerbeetle:3000, 10.0.0.1:3001,3000",
            [("tigerbeetle", 3000), ("10.0.0.1", 3001), ("127.0.0.1", 3000)],
        ),
        ("[::1]:3000,[fe80::1]", [("::1", 3000), ("fe80::1", 3001)]),
        ("10.0.0.1", [("10.0.0.1", 3001)]),
    ],
)
def test_replicas_that_can_be_read(text: str, replicas: list[tuple[str, int]]) -> None:
    assert parse_replicas(text) == replicas


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "'' is no host:port"),
        ("3000,", "'' is no host:port"),
        ("::1:3000", "'::1:3000' is no host:port; an IPv6 address stands in brackets"),
        ("[::1", r"'\[::1' is no \[IPv6 address\]:port"),
        ("[::1]3000", r"'\[::1\]3000' is no"),
        ("[localhost]:3000", r"'\[localhost\]:3000' is no"),
        ("host:", "'' is no port"),
        ("host:x", "'x' is no port"),
        ("65536", "'65536' is no port"),
        ("0", "'0' is no port"),
        ("1,2,3,4,5,6,7", "7 replicas, where a cluster has at most 6"),
    ],
)
def test_replicas_that_cannot(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_replicas(text)


async def test_addresses_as_tigerbeetle_takes_them() -> None:
    assert await resolve([("localhost", 3000), ("::1", 3001)]) == "127.0.0.1:3000,[::1]:3001"


async def test_a_name_that_nobody_has() -> None:
    with pytest.raises(Unavailable, match=r"TigerBeetle's host 'tigerbeetle\.invalid' cannot be resolved: "):
        await resolve([("tigerbeetle.invalid", 3000)])
