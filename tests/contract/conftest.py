"""The ledgers under test: each in turn, and a teller who asks them."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

from connector.ledger.api import Ledger
from connector.ledger.embedded import open_embedded
from connector.ledger.tigerbeetle import TigerBeetle, open_tigerbeetle
from tests.contract.teller import Teller
from tests.contract.tigerbeetle_server import CLUSTER_ID, MISSING, TigerBeetleServer, find_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TigerBeetleServer]:
    """One server for all tests that do not stop it; they use ids of their own."""
    if find_server() is None:
        pytest.skip(MISSING)
    with TigerBeetleServer(tmp_path_factory.mktemp("tigerbeetle")) as server:
        yield server


@pytest.fixture(scope="session")
def session(server: TigerBeetleServer) -> Iterator[TigerBeetle]:
    """One session for all tests, each a run of trio by itself: opening one takes 0.6 s."""
    ledger = trio.run(open_tigerbeetle, CLUSTER_ID, server.address)
    yield ledger
    trio.run(ledger.aclose)


@pytest.fixture(params=["embedded", pytest.param("tigerbeetle", marks=pytest.mark.tigerbeetle)])
def implementation(request: pytest.FixtureRequest) -> TigerBeetle | None:
    """The shared session, or None for an embedded ledger of the test's own."""
    if request.param == "embedded":
        return None
    session: TigerBeetle = request.getfixturevalue("session")
    return session


@pytest.fixture
async def ledger(implementation: TigerBeetle | None, tmp_path: Path) -> AsyncIterator[Ledger]:
    """A ledger that others may use, too."""
    if implementation is not None:
        yield implementation
    else:
        embedded = await open_embedded(tmp_path / "ledger.db")
        yield embedded
        await embedded.aclose()


@pytest.fixture
def teller(ledger: Ledger) -> Teller:
    """Somebody who asks the ledger, with ids that nobody has used."""
    return Teller(ledger)
