"""What the interop tests share: a running network."""

from collections.abc import Iterator

import pytest

from tests.interop.five_peers import FivePeers, run_five_peers


@pytest.fixture(scope="session")
def five_peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FivePeers]:
    with run_five_peers(tmp_path_factory.mktemp("five-peers") / "connector.log") as network:
        yield network
