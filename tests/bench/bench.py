"""Measure one node between child peers, and ilp-connector in its place, in turn in the same run.

Only figures of one run compare. Each measurement has a server of its own; a load
generator plays all peers (btp_load.js), and every packet has to be fulfilled.
"""

import argparse
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MODULES = HERE.parent / "interop/node_modules"

OURS = "connector"
THEIRS = "ilp-connector"
ADDRESS = "test.bench"
#: The yardstick takes its configuration from one environment variable, which the system bounds.
THEIR_LINKS_MAX = 128

START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 15
#: Children of the yardstick cannot be reached until it has told itself their routes.
THEIR_SETTLE_MS = 1_500
#: From here on the generator may be what limits.
GENERATOR_BUSY = 0.95


class Problem(Exception):
    """The measurement cannot be made; the message says why."""


@dataclass(frozen=True)
class Load:
    """What one measurement sends: packets, how many at a time, over what."""

    window: int
    links: int
    routes: int
    data_bytes: int


@dataclass(frozen=True)
class Result:
    """What one measurement came to."""

    connector: str
    load: Load
    pps: int
    p50_ms: float
    p99_ms: float
    rss_mb: float
    generator_load: float


@dataclass(frozen=True)
class Server:
    """A connector that runs, and where its peers dial: a sender's and a receiver's URL for each link."""

    process: subprocess.Popen[bytes]
    urls: list[tuple[str, str]]
    settle_ms: int


def main() -> int:
    """Measure what the arguments ask for; the exit status."""
    arguments = parse()
    loads = [
        Load(*values)
        for values in itertools.product(
            arguments.windows,
            arguments.links,
            arguments.routes,
            arguments.data_bytes,
        )
    ]
    swept = [name for name in ("links", "routes", "data_bytes") if len(getattr(arguments, name)) > 1]
    connectors = [arguments.only] if arguments.only else [OURS, THEIRS]
    results = []
    status = Console(stderr=True).status
    try:
        check_set_up()
        for load in loads:
            for connector in connectors:
                with status(f"measuring {connector}, window {load.window}"):
                    result = measure_repeatedly(connector, load, arguments)
                results.append(result)
                if arguments.json:
                    print(json.dumps(as_json(result, swept)), flush=True)
    except Problem as problem:
        print(f"bench: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if not arguments.json:
        print_table(results, swept, arguments)
    return 0


def parse() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(prog="scripts/just bench", description=__doc__)
    parser.add_argument(
        "--total", type=int, default=50_000, help="packets a measurement; a tenth at window 1"
    )
    parser.add_argument("--warm-up", type=int, default=2_000, help="packets sent before, not measured")
    parser.add_argument("--repeat", type=int, default=1, help="measure so often, show the median")
    parser.add_argument("--only", choices=(OURS, THEIRS), help="measure one connector alone")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    lists = parser.add_argument_group("lists, separated by commas")
    lists.add_argument("--windows", type=numbers, default=[1, 32, 128, 512], help="packets in flight")
    lists.add_argument("--links", type=numbers, default=[1], help="pairs of peers that share the load")
    lists.add_argument("--routes", type=numbers, default=[0], help="routes in the table, all in use")
    lists.add_argument("--data-bytes", type=numbers, default=[32], help="data of a packet")
    arguments = parser.parse_args()
    if max(arguments.routes) and arguments.only != OURS:
        parser.error(f"--routes goes with --only {OURS}")
    if max(arguments.links) > THEIR_LINKS_MAX and arguments.only != OURS:
        parser.error(f"more than {THEIR_LINKS_MAX} links go with --only {OURS}")
    return arguments


def numbers(text: str) -> list[int]:
    """`1,32,128`."""
    return [int(number) for number in text.split(",")]


def check_set_up() -> None:
    """Problem when something is missing."""
    if shutil.which("node") is None or not (MODULES / "ws").is_dir():
        raise Problem("Node.js and the packages from npm are needed: scripts/just setup-node")


def measure_repeatedly(connector: str, load: Load, arguments: argparse.Namespace) -> Result:
    """The median, by packets/s, of several measurements."""
    total = arguments.total if load.window > 1 else max(1, arguments.total // 10)
    results = [measure(connector, load, total, arguments.warm_up) for _ in range(arguments.repeat)]
    return sorted(results, key=lambda result: result.pps)[len(results) // 2]


def measure(connector: str, load: Load, total: int, warm_up: int) -> Result:
    """Start a connector, send the load through it, stop it."""
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        run = run_ours if connector == OURS else run_theirs
        with run(load, Path(scratch)) as server:
            report = send(server, load, total, warm_up)
            return Result(
                connector,
                load,
                report["pps"],
                report["p50_ms"],
                report["p99_ms"],
                rss_mb(server.process.pid),
                report["generator_load"],
            )


def send(server: Server, load: Load, total: int, warm_up: int) -> dict[str, Any]:
    """What the load generator reports; Problem unless every packet was fulfilled."""
    command = ["node", str(HERE / "btp_load.js"), "--total", str(total), "--window", str(load.window)]
    command += ["--warm-up", str(min(warm_up, total)), "--data-bytes", str(load.data_bytes)]
    command += ["--settle-ms", str(server.settle_ms), "--destinations", str(load.routes)]
    for number, (sender, receiver) in enumerate(server.urls):
        destination = "test.other.000000" if load.routes else f"{ADDRESS}.receiver{number}.x"
        command += ["--pair", f"{sender},s{number},{receiver},r{number},{destination}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Problem(f"the load was not carried: {done.stderr}{done.stdout}")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@contextmanager
def run_ours(load: Load, scratch: Path) -> Iterator[Server]:
    """Run one node with two child peers for each link."""
    btp, http = free_ports(2)
    config = scratch / "node.toml"
    config.write_text(our_config(load, btp, http))
    url = f"ws://127.0.0.1:{btp}"
    with running([sys.executable, "-m", "connector", "run", str(config)], {}, scratch) as process:
        wait_until_ready(f"http://127.0.0.1:{http}/readyz", process, scratch)
        yield Server(process, [(url, url)] * load.links, settle_ms=0)


#: What ilp-connector has: balances in memory. `bench-books` measures the others.
NO_BOOKS = '[journal]\nsync = "off"'


def our_config(load: Load, btp: int, http: int, books: str = NO_BOOKS) -> str:
    """The configuration of the node."""
    sections = [
        f'[node]\nname = "bench"\naddress = "{ADDRESS}"\nstate_dir = "state"',
        books,
        f'[btp]\nlisten = "127.0.0.1:{btp}"',
        f'[http]\nlisten = "127.0.0.1:{http}"',
        '[log]\nlevel = "WARNING"',
    ]
    names = [f"{role}{number}" for number in range(load.links) for role in ("sender", "receiver")]
    sections += [
        f'[[peers]]\nname = "{name}"\nrelation = "child"\ntoken = "{token(name)}"\n'
        'asset = { code = "USD", scale = 6 }\n'
        "credit_limit = 1_000_000_000_000\nmax_packets_per_s = 1_000_000"
        for name in names
    ]
    sections += [
        f'[[routes]]\nprefix = "test.other.{number:06}"\nnext_hop = "receiver0"'
        for number in range(load.routes)
    ]
    return "\n\n".join(sections) + "\n"


@contextmanager
def run_theirs(load: Load, scratch: Path) -> Iterator[Server]:
    """Run ilp-connector with the same children; each has a listener of its own there."""
    ports = free_ports(2 * load.links)
    names = [f"{role}{number}" for number in range(load.links) for role in ("sender", "receiver")]
    accounts = {
        name: {
            "relation": "child",
            "plugin": "ilp-plugin-btp",
            "assetCode": "USD",
            "assetScale": 6,
            "options": {"listener": {"port": port, "secret": token(name)}},
            "rateLimit": {"refillCount": 100_000_000, "capacity": 100_000_000},
            "balance": {"maximum": "1000000000000"},
        }
        for name, port in zip(names, ports, strict=True)
    }
    environment = {
        "CONNECTOR_ACCOUNTS": json.dumps(accounts),
        "CONNECTOR_ADMIN_API": "false",
        "CONNECTOR_BACKEND": "one-to-one",
        "CONNECTOR_ENV": "production",
        "CONNECTOR_ILP_ADDRESS": ADDRESS,
        "CONNECTOR_SPREAD": "0",
        "CONNECTOR_STORE": "memory",
        "DEBUG": "ilp*error,connector*error",
    }
    urls = [f"ws://127.0.0.1:{port}" for port in ports]
    with running([str(MODULES / ".bin/ilp-connector")], environment, scratch) as process:
        yield Server(process, list(zip(urls[::2], urls[1::2], strict=True)), THEIR_SETTLE_MS)


@contextmanager
def running(
    command: list[str], environment: dict[str, str], scratch: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server; end it after the block."""
    with (scratch / "log").open("w") as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_S)
        process.kill()
        process.wait()


def wait_until_ready(url: str, process: subprocess.Popen[bytes], scratch: Path) -> None:
    """Wait for the node; Problem when it ends or takes too long."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise Problem(f"the node ended:\n{(scratch / 'log').read_text()}")
        with suppress(OSError), urllib.request.urlopen(url, timeout=1):  # noqa: S310 - our own http URL
            return
        time.sleep(0.05)
    raise Problem(f"the node is not ready:\n{(scratch / 'log').read_text()}")


def token(name: str) -> str:
    """What a child shows: `s0` for sender0, `r0` for receiver0."""
    return name[0] + name.removeprefix("sender").removeprefix("receiver")


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on at the moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports


def rss_mb(pid: int) -> float:
    """The resident memory of a process."""
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS:"))
        kilobytes = int(line.split()[1])
    else:
        kilobytes = int(subprocess.check_output(["ps", "-o", "rss=", "-p", str(pid)]))
    return round(kilobytes / 1024, 1)


def as_json(result: Result, swept: list[str]) -> dict[str, object]:
    """One line of `--json`; what has more than one value in this run is named too."""
    return {
        "connector": result.connector,
        "window": result.load.window,
        **{name: getattr(result.load, name) for name in swept},
        "pps": result.pps,
        "p50_ms": result.p50_ms,
        "p99_ms": result.p99_ms,
        "rss_mb": result.rss_mb,
    }


def print_table(results: list[Result], swept: list[str], arguments: argparse.Namespace) -> None:
    """The results for people; the ratio is ours to theirs in packets/s."""
    theirs = {result.load: result.pps for result in results if result.connector == THEIRS}
    table = Table(title=f"{arguments.total} packets a measurement (a tenth at window 1)")
    table.add_column("connector")
    for heading in ("window", *(name.replace("_", " ") for name in swept)):
        table.add_column(heading, justify="right")
    for heading in ("packets/s", *(["ratio"] if theirs else []), "p50 ms", "p99 ms", "RSS MB"):
        table.add_column(heading, justify="right")
    for result in results:
        compared = result.connector == OURS and result.load in theirs
        ratio = f"{result.pps / theirs[result.load]:.2f}" if compared else ""
        table.add_row(
            result.connector,
            str(result.load.window),
            *(str(getattr(result.load, name)) for name in swept),
            f"{result.pps}{'*' if result.generator_load > GENERATOR_BUSY else ''}",
            *([ratio] if theirs else []),
            f"{result.p50_ms:.2f}",
            f"{result.p99_ms:.2f}",
            f"{result.rss_mb:.0f}",
            end_section=result.connector == THEIRS,
        )
    console = Console(highlight=False)
    console.print(table)
    if any(result.generator_load > GENERATOR_BUSY for result in results):
        console.print("* the load generator was busy all the time: the connector may be able to do more")


if __name__ == "__main__":
    sys.exit(main())
