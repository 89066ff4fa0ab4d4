"""What all tests share: Hypothesis searches the same examples in every run, unless asked for new ones."""

import os

from hypothesis import settings

settings.register_profile("ci", derandomize=True, deadline=None)
# `HYPOTHESIS_PROFILE=search` looks for new counterexamples, and remembers those it finds.
settings.register_profile("search", deadline=None, max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
