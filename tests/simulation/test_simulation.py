"""1 000 seeds of a five-node network with faults. A failing seed: `python -m tests.simulation SEED`."""

from collections import Counter
from collections.abc import Iterator

import pytest
from loguru import logger

from tests.simulation.world import run_seed

SEEDS = 1_000
_CHUNK = 100


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logger.disable("connector")
    yield
    logger.enable("connector")


@pytest.mark.parametrize("first", range(0, SEEDS, _CHUNK))
def test_money_is_conserved_and_neighbours_agree_whatever_fails(first: int) -> None:
    outcomes: Counter[str] = Counter()
    events: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for seed in range(first, first + _CHUNK):
        result = run_seed(seed)
        outcomes += result.outcomes
        events += result.events
        reasons.update(packet.reason for packet in result.disagreements)
    # The seeds do play: payments arrive, and all that can go wrong does.
    assert outcomes["fulfilled"] > 100
    assert {"R00", "R01", "R02", "T00", "T01", "T04", "F05", "F99", "lost"} <= set(outcomes)
    assert {"kill", "stop", "start", "torn write", "sick disk", "outage", "doubt"} <= set(events)
    assert reasons["dropped"]


@pytest.mark.parametrize("seed", [1, 7, 18])
def test_a_seed_is_one_history(seed: int) -> None:
    assert run_seed(seed) == run_seed(seed)
