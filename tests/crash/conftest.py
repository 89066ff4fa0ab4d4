"""Options of these tests; they are known when tests/crash is on the command line."""

import pytest

#: What fits into the time of an ordinary run of all tests.
KILLS = 25
SEED = 7


def pytest_addoption(parser: pytest.Parser) -> None:
    """How long to go on, and where chance begins."""
    parser.addoption("--crash-kills", type=int, default=KILLS, help="how many times to kill nodes")
    parser.addoption("--crash-seed", type=int, default=SEED, help="seed of the moments at which they die")


@pytest.fixture
def crash_kills(request: pytest.FixtureRequest) -> int:
    """How many kills were asked for."""
    kills: int = request.config.getoption("--crash-kills", KILLS)
    return kills


@pytest.fixture
def crash_seed(request: pytest.FixtureRequest) -> int:
    """Where chance begins. The processes' timing stays their own: a seed repeats the plan, not the run."""
    seed: int = request.config.getoption("--crash-seed", SEED)
    return seed
