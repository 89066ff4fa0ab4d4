"""`connector run`: one or more nodes under one nursery, until a signal ends them."""

import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import trio
from loguru import logger

from connector.config import load_files
from connector.errors import ConnectorError
from connector.telemetry import logs

if TYPE_CHECKING:
    from connector.node.node import Node

#: What a shell reports for a program that a signal stopped.
_STOPPED_AT_ONCE = 130


def run(*configs: Path) -> int:
    """Run connectors, one for each configuration file, until SIGTERM or Ctrl-C.

    The first signal drains: no new packets are taken, what is in flight
    resolves, links close, and the exit status is 0. A second one stops at once.
    After a bug, which is logged, it is 70.

    Parameters
    ----------
    configs
        TOML files, one for each node. See `connector config schema`.
    """
    # Imported here, since it is slow and every other command does without.
    from connector.node.node import Node

    loaded = load_files(configs)
    logs.configure(loaded[0].log.level, loaded[0].log.format)
    try:
        return trio.run(run_nodes, [Node(config) for config in loaded])
    except ConnectorError:
        raise
    except Exception as error:  # noqa: BLE001 - a log that is JSON stays JSON
        logger.opt(exception=error).critical("stopped by a bug")
        return os.EX_SOFTWARE


async def run_nodes(nodes: "list[Node]") -> int:
    """Run `nodes` until a signal; the exit status. Raises Unavailable if a port cannot be had."""
    # All ports first: nodes that dial each other then find each other at once.
    for node in nodes:
        await node.bind()
    status: list[int] = []
    async with trio.open_nursery() as nursery:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            nursery.start_soon(_obey, signals, nodes, nursery.cancel_scope, status)
            async with trio.open_nursery() as running:
                for node in nodes:
                    running.start_soon(node.run)
            nursery.cancel_scope.cancel()
    return status[0] if status else 0


async def _obey(
    signals: AsyncIterator[int],
    nodes: "list[Node]",
    everything: trio.CancelScope,
    status: list[int],
) -> None:
    draining = False
    async for number in signals:
        name = signal.Signals(number).name
        if draining:
            logger.warning("{} again: stopping at once", name)
            status.append(_STOPPED_AT_ONCE)
            everything.cancel()
            return
        draining = True
        hint = " (Ctrl-C again stops at once)" if sys.stderr.isatty() else ""
        logger.info("{}: draining{}", name, hint)
        for node in nodes:
            node.stop()
