"""Where the stock JavaScript software is, and how to get it."""

import shutil
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


def node_program() -> str:
    """The Node.js program; skips the test, saying what to do, without it or its packages."""
    node = shutil.which("node")
    if node is None:
        pytest.skip(
            "Node.js was not found: install it (Debian: apt install nodejs npm), then scripts/just setup-node"
        )
    if not (HERE / "node_modules").is_dir():
        pytest.skip("stock JavaScript software is not installed: scripts/just setup-node")
    return node
