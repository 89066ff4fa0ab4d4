"""Options of these tests."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """How long to go on."""
    parser.addoption("--crash-kills", type=int, default=KILLS, help="how many nodes to kill with SIGKILL")


#: What fits into the time of an ordinary run of all tests.
KILLS = 25


@pytest.fixture
def crash_kills(request: pytest.FixtureRequest) -> int:
    """How many kills were asked for."""
    # Without tests/crash on the command line, pytest reads this file too late to know the option.
    kills: int = request.config.getoption("--crash-kills", KILLS)
    return kills
