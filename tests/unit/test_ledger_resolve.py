"""Names of replicas become addresses; `test_config_books` holds how they are written."""

import pytest

from connector.errors import Unavailable
from connector.ledger.resolve import resolve


async def test_addresses_as_tigerbeetle_takes_them() -> None:
    assert await resolve([("localhost", 3000), ("::1", 3001)]) == "127.0.0.1:3000,[::1]:3001"


async def test_a_name_that_nobody_has() -> None:
    with pytest.raises(Unavailable, match=r"TigerBeetle's host 'tigerbeetle\.invalid' cannot be resolved: "):
        await resolve([("tigerbeetle.invalid", 3000)])
