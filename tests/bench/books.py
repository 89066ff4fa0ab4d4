"""Measure what durable books cost: the same node without them, with its journal, and with a ledger.

Only figures of one run compare. In each round every kind of books is measured
in turn, on a node and a state directory of its own; a load generator plays all
peers (btp_load.js), and every packet has to be fulfilled.

    off          balances in memory only
    interval     journal, on disk within a second; the ledger is away
    always       journal, on disk before frames leave; the ledger is away
    embedded     the same, posted to the embedded ledger
    tigerbeetle  the same, posted to a TigerBeetle server on this machine

With a ledger, `behind` is how many entries it lacked when the load ended, and
`catch-up` how many entries a second it then took.
"""

import argparse
import json
import os
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from tests.bench.bench import (
    Load,
    Problem,
    Server,
    check_set_up,
    free_ports,
    numbers,
    our_config,
    rss_mb,
    running,
    send,
    wait_until_ready,
)
from tests.contract.tigerbeetle_server import CLUSTER_ID, MISSING, TigerBeetleServer, find_server

KINDS = ("off", "interval", "always", "embedded", "tigerbeetle")
CATCH_UP_TIMEOUT_S = 300


class Result(msgspec.Struct, frozen=True):
    """One measurement."""

    books: str
    window: int
    pps: int
    p50_ms: float
    p99_ms: float
    rss_mb: float
    behind: int | None = None
    catch_up: int | None = None


def main() -> int:
    """Measure what the arguments ask for; the exit status."""
    arguments = parse()
    results: list[Result] = []
    status = Console(stderr=True).status
    try:
        check_set_up()
        if arguments.soak:
            soak(arguments)
            return 0
        for window in arguments.windows:
            for turn in range(arguments.repeat):
                for books in arguments.books:
                    with status(f"measuring books {books}, window {window}, round {turn + 1}"):
                        result = measure(books, window, arguments)
                    results.append(result)
                    if arguments.json:
                        print(msgspec.json.encode(result).decode(), flush=True)
    except Problem as problem:
        print(f"bench-books: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if not arguments.json:
        print_table(results, arguments)
    return 0


def soak(arguments: argparse.Namespace) -> None:
    """Load a node whose ledger is away, and print its memory each twentieth of the time."""
    load = Load(max(arguments.windows), 1, 0, 32)
    print(f"{'s':>5} {'packets':>10} {'entries unposted':>17} {'journal MB':>11} {'RSS MB':>7}")
    with tempfile.TemporaryDirectory(prefix="bench-", dir=arguments.state) as scratch:
        more = f"unposted_max = {10**12}\nunposted_max_bytes = {1 << 50}"
        with run(load, Path(scratch), "always", "", more) as (server, url):
            begin = time.monotonic()
            packets = shown = 0
            while (elapsed := time.monotonic() - begin) < arguments.soak:
                send(server, load, arguments.total, arguments.warm_up)
                packets += arguments.total + arguments.warm_up
                if elapsed >= shown * arguments.soak / 20:
                    shown += 1
                    size = sum(file.stat().st_size for file in Path(scratch, "state").iterdir()) >> 20
                    memory = rss_mb(server.process.pid)
                    row = f"{elapsed:5.0f} {packets:10} {unposted(url):17} {size:11} {memory:7.0f}"
                    print(row, flush=True)


def parse() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/just bench-books",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--total", type=int, default=100_000, help="packets a measurement; a twentieth at window 1"
    )
    parser.add_argument("--warm-up", type=int, default=5_000, help="packets sent before, not measured")
    parser.add_argument("--repeat", type=int, default=3, help="rounds; the median ratio is shown")
    parser.add_argument("--windows", type=numbers, default=[1, 128, 512, 2048], help="packets in flight")
    parser.add_argument("--books", type=kinds, default=default_kinds(), help="kinds, separated by commas")
    parser.add_argument(
        "--state",
        type=Path,
        help="where state directories are made (default: the system's for temporary files)",
    )
    parser.add_argument(
        "--soak",
        type=int,
        default=0,
        metavar="SECONDS",
        help="load one node with its ledger away; its memory",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    return parser.parse_args()


def kinds(text: str) -> list[str]:
    """`off,always`."""
    chosen = text.split(",")
    unknown = set(chosen) - set(KINDS)
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(KINDS)}")
    return chosen


def default_kinds() -> list[str]:
    """All that can be measured here."""
    return [kind for kind in KINDS if kind != "tigerbeetle" or find_server()]


def measure(books: str, window: int, arguments: argparse.Namespace) -> Result:
    """Start a node, send the load through it, wait for its ledger, stop it."""
    load = Load(window, 1, 0, 32)
    total = arguments.total if window > 1 else max(1, arguments.total // 20)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=arguments.state) as scratch:
        ledger = tigerbeetle(Path(scratch)) if books == "tigerbeetle" else nullcontext("")
        with ledger as replicas, run(load, Path(scratch), books, replicas) as (server, url):
            report = send(server, load, total, arguments.warm_up)
            lag = catch_up(url) if books in ("embedded", "tigerbeetle") else (None, None)
            return Result(
                books,
                window,
                report["pps"],
                report["p50_ms"],
                report["p99_ms"],
                rss_mb(server.process.pid),
                *lag,
            )


@contextmanager
def tigerbeetle(scratch: Path) -> Iterator[str]:
    """A server of its own for one measurement; its address."""
    if find_server() is None:
        raise Problem(MISSING)
    directory = scratch / "tigerbeetle"
    directory.mkdir()
    with TigerBeetleServer(directory, development=False) as server:
        yield server.address


@contextmanager
def run(load: Load, scratch: Path, books: str, replicas: str, more: str = "") -> Iterator[tuple[Server, str]]:
    """Run one node with two child peers; with the URL of its HTTP port."""
    btp, http = free_ports(2)
    config = scratch / "node.toml"
    config.write_text(our_config(load, btp, http, f"{books_config(books, replicas)}\n{more}"))
    url, web = f"ws://127.0.0.1:{btp}", f"http://127.0.0.1:{http}"
    with running([sys.executable, "-m", "connector", "run", str(config)], {}, scratch) as process:
        wait_until_ready(f"{web}/readyz", process, scratch)
        yield Server(process, [(url, url)], settle_ms=0), web


def books_config(books: str, replicas: str) -> str:
    """The sections that make a kind of books."""
    if books == "off":
        return '[journal]\nsync = "off"'
    sync = "interval" if books == "interval" else "always"
    sections = [f'[journal]\nsync = "{sync}"']
    if books in ("interval", "always"):
        # Nobody listens there: the ledger is away.
        (closed,) = free_ports(1)
        sections.append(f'[ledger]\nreplicas = "127.0.0.1:{closed}"')
    elif books == "tigerbeetle":
        sections.append(f'[ledger]\nreplicas = "{replicas}"\ncluster_id = "{CLUSTER_ID}"')
    return "\n\n".join(sections)


def catch_up(url: str) -> tuple[int, int]:
    """How far the ledger is behind, and how many entries a second it takes from now on."""
    behind = left = unposted(url)
    begin = time.monotonic()
    while left:
        if time.monotonic() - begin > CATCH_UP_TIMEOUT_S:
            raise Problem(f"the ledger has not caught up, {left} entries are left")
        time.sleep(0.02)
        left = unposted(url)
    return behind, round(behind / (time.monotonic() - begin))


def unposted(url: str) -> int:
    """How many entries the ledger of a node lacks."""
    with urllib.request.urlopen(f"{url}/api/ledger", timeout=30) as answer:  # noqa: S310 - our own http URL
        state: dict[str, Any] = json.load(answer)
    return int(state["unposted"]["entries"])


def print_table(results: list[Result], arguments: argparse.Namespace) -> None:
    """Medians over the rounds; the ratio is to the same round without books."""
    table = Table(title=f"{arguments.total} packets a measurement, {arguments.repeat} rounds")
    table.add_column("books")
    for heading in ("window", "packets/s", "of off", "p50 ms", "p99 ms", "behind", "catch-up/s", "RSS MB"):
        table.add_column(heading, justify="right")
    for window in arguments.windows:
        off = [result.pps for result in results if (result.books, result.window) == ("off", window)]
        for books in arguments.books:
            rows = [result for result in results if (result.books, result.window) == (books, window)]
            ratio = (
                f"{median(row.pps / base for row, base in zip(rows, off, strict=True)):.0%}" if off else ""
            )
            lagging = rows[0].behind is not None
            table.add_row(
                books,
                str(window),
                f"{median(row.pps for row in rows):.0f}",
                ratio,
                f"{median(row.p50_ms for row in rows):.2f}",
                f"{median(row.p99_ms for row in rows):.2f}",
                f"{median(row.behind or 0 for row in rows):.0f}" if lagging else "",
                f"{median(row.catch_up or 0 for row in rows):.0f}" if lagging else "",
                f"{median(row.rss_mb for row in rows):.0f}",
                end_section=books == arguments.books[-1],
            )
    Console(highlight=False).print(table)


if __name__ == "__main__":
    os.environ.pop("TIGERBEETLE_REPLICAS", None)
    sys.exit(main())
