"""What all tests share: no test writes into a home directory, and Hypothesis repeats itself.

It searches the same examples in every run, unless asked for new ones.
"""

import os
from itertools import count
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("ci", derandomize=True, deadline=None)
# `HYPOTHESIS_PROFILE=search` looks for new counterexamples, and remembers those it finds.
settings.register_profile("search", deadline=None, max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

_tests = count()


@pytest.fixture(scope="session")
def _state_homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(autouse=True)
def _state_home_of_its_own(_state_homes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes keep their books in a directory of this test's own, those of other processes too."""
    monkeypatch.setenv("XDG_STATE_HOME", str(_state_homes / str(next(_tests))))
