"""The five-peer network on this machine: start it, stop it, pay through it.

`.dev/network` holds the process id of the running nodes, and the nodes hold a
lock on it for as long as they live: so what stands in it is never stale, even
when this script was killed.
"""

import argparse
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO

import httpx
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".dev"
LOG = STATE / "connector.log"
PEERS = range(1, 6)
START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 30
POLL_S = 0.1

console = Console(highlight=False, soft_wrap=True)


class Problem(Exception):
    """Something that the person at the terminal can mend; the message says how."""


def port(peer: int, kind: str) -> int:
    """The port of a peer; `PEER1_BTP_PORT` and the like override it, as in infra/five-peer."""
    default = {"BTP": 7700, "HTTP": 7800}[kind] + peer
    return int(os.environ.get(f"PEER{peer}_{kind}_PORT", default))


def main() -> int:
    """Do what the arguments say; the exit status."""
    parser = argparse.ArgumentParser(prog="scripts/just", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("start", help="start the five nodes and stay until Ctrl-C")
    commands.add_parser("stop", help="stop them from elsewhere")
    payment = commands.add_parser("pay", help="pay alice at another peer", prog="scripts/just pay")
    payment.add_argument("source", metavar="FROM", type=int, choices=PEERS, help="peer that pays: 1 to 5")
    payment.add_argument("target", metavar="TO", type=int, choices=PEERS, help="peer of the payee: 1 to 5")
    payment.add_argument("amount", metavar="AMOUNT", type=int, help="in units of 0.000001 USD")
    arguments, options = parser.parse_known_args()
    if options and arguments.command != "pay":
        parser.error(f"unknown: {' '.join(options)}")
    try:
        if arguments.command == "start":
            return start()
        if arguments.command == "stop":
            return stop()
        return pay(arguments.source, arguments.target, arguments.amount, options)
    except Problem as problem:
        print(problem, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


@contextmanager
def locked(name: str, *, wait: bool) -> Iterator[IO[str]]:
    """Hold the lock of a file in .dev; BlockingIOError when another holds it and `wait` is false."""
    STATE.mkdir(exist_ok=True)
    with (STATE / name).open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield file


def start() -> int:
    """Start the nodes, stay with them, and exit as they do."""
    try:
        with locked("network", wait=False) as state:
            state.truncate(0)
            check_ports()
            return attend(state)
    except BlockingIOError:
        pid = read_pid()
        raise Problem(
            f"The network runs already (process {pid or 'just starting'}).\n"
            "Pay through it: scripts/just pay 1 5 1000\n"
            "Stop it:        scripts/just dev-stop",
        ) from None


def check_ports() -> None:
    """Problem when another program holds one of the ports."""
    for peer in PEERS:
        for kind in ("BTP", "HTTP"):
            number = port(peer, kind)
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", number))
                except OSError as error:
                    raise Problem(
                        f"Port {number} ({kind} of peer{peer}) cannot be had: {error.strerror}.\n"
                        f"End the program that holds it, or choose another: "
                        f"PEER{peer}_{kind}_PORT=… scripts/just dev",
                    ) from None


def attend(state: IO[str]) -> int:
    """Run the nodes until they end; signals go on to them."""
    configs = [str(ROOT / f"infra/five-peer/peer{peer}.toml") for peer in PEERS]
    with LOG.open("w") as log:
        # A session of its own: Ctrl-C reaches the nodes through us, once.
        # They inherit the lock: it is held until the last of us two ends.
        nodes = subprocess.Popen(
            [sys.executable, "-m", "connector", "run", *configs],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=[state.fileno()],
        )
    state.write(str(nodes.pid))
    state.flush()

    def forward(number: int, frame: FrameType | None) -> None:
        if nodes.poll() is None:
            again = " Ctrl-C again stops at once." if number == signal.SIGINT else ""
            console.print(f"\nStopping: packets in flight resolve first.{again}")
            nodes.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, forward)

    if wait_until_ready(nodes):
        print_welcome(nodes.pid)
    status = nodes.wait()
    if status == 0:
        console.print("Stopped.")
    else:
        print_log_end(status)
    return status if status >= 0 else 128 - status


def wait_until_ready(nodes: subprocess.Popen[bytes]) -> bool:
    """Whether all nodes came up; False when they ended, or were told to, before."""
    waiting = dict.fromkeys(PEERS, "no answer yet")
    deadline = time.monotonic() + START_TIMEOUT_S
    with console.status("starting") as status, httpx.Client(timeout=1) as client:
        while waiting:
            status.update("waiting for " + ", ".join(f"peer{peer} ({why})" for peer, why in waiting.items()))
            for peer in list(waiting):
                waiting[peer] = readiness(client, peer)
                if waiting[peer] == "ready":
                    del waiting[peer]
                    console.print(f"  peer{peer} is ready")
            if nodes.poll() is not None:
                return False
            if time.monotonic() > deadline:
                console.print(f"Not ready after {START_TIMEOUT_S} s; see {LOG.relative_to(ROOT)}")
                nodes.terminate()
                return False
            time.sleep(POLL_S)
    return True


def readiness(client: httpx.Client, peer: int) -> str:
    """What `/readyz` says: `ready` once every link is up."""
    try:
        return str(client.get(f"http://127.0.0.1:{port(peer, 'HTTP')}/readyz").json()["status"])
    except httpx.TransportError:
        return "no answer yet"


def print_welcome(pid: int) -> None:
    """What runs, what to open and what to try."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for heading in ("node", "BTP", "HTTP"):
        table.add_column(heading)
    for peer in PEERS:
        table.add_row(
            f"peer{peer}",
            f"ws://127.0.0.1:{port(peer, 'BTP')}",
            f"http://127.0.0.1:{port(peer, 'HTTP')}",
        )
    console.print()
    console.print(table)
    console.print(f"\nThe line peer1 – … – peer5 runs: process {pid}, log {LOG.relative_to(ROOT)}")
    console.print("Over HTTP:            /readyz, /api/accounts, and /alice, whom you can pay")
    console.print("In another terminal:  scripts/just pay 1 5 1000")
    console.print("To stop:              Ctrl-C, or scripts/just dev-stop")


def print_log_end(status: int) -> None:
    """Why the nodes ended, in their own words."""
    console.print(f"The nodes ended with status {status}. The end of {LOG.relative_to(ROOT)}:")
    with LOG.open(errors="replace") as log:
        for line in log.readlines()[-10:]:
            console.print(f"  {line.rstrip()}", markup=False)


def read_pid() -> int | None:
    """The process id of the nodes; None while they are being started."""
    with suppress(FileNotFoundError, ValueError):
        return int((STATE / "network").read_text())
    return None


def stop() -> int:
    """Stop the nodes that run, and wait for their end."""
    deadline = time.monotonic() + STOP_TIMEOUT_S
    told: int | None = None
    while time.monotonic() < deadline:
        try:
            with locked("network", wait=False):
                console.print("No network runs." if told is None else "Stopped.")
                return 0
        except BlockingIOError:
            pid = read_pid()
            if pid is not None and pid != told:
                console.print(f"Stopping process {pid}: packets in flight resolve first.")
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
                told = pid
            time.sleep(POLL_S)
    raise Problem(f"Process {told} has not ended after {STOP_TIMEOUT_S} s; see {LOG.relative_to(ROOT)}")


def pay(source: int, target: int, amount: int, options: list[str]) -> int:
    """Pay alice at `target` from `source`'s wallet, and show what each hop kept."""
    step = 1 if source <= target else -1
    path = range(source, target + step, step)
    command = [sys.executable, "-m", "connector", "pay"]
    command += [f"http://127.0.0.1:{port(target, 'HTTP')}/alice", str(amount)]
    command += ["--via", f"ws://127.0.0.1:{port(source, 'BTP')}", *options]
    token = os.environ.get(f"PEER{source}_WALLET_TOKEN", f"dev-wallet-{source}")
    # One at a time: a second link of the same wallet would replace the first.
    with locked(f"pay-{source}", wait=True):
        before = {peer: fees(peer) for peer in path}
        status = subprocess.run(command, check=False, env={**os.environ, "CONNECTOR_TOKEN": token}).returncode
        after = {peer: fees(peer) for peer in path}
    kept = {peer: after[peer] - before[peer] for peer in path}
    if "--json" not in options and (status == 0 or any(kept.values())):
        print_fees(kept)
    return status


def fees(peer: int) -> int:
    """What a node has earned so far."""
    try:
        reply = httpx.get(f"http://127.0.0.1:{port(peer, 'HTTP')}/api/accounts", timeout=5)
        reply.raise_for_status()
    except httpx.ConnectError:
        raise Problem(f"peer{peer} does not run. Start the network first: scripts/just dev") from None
    except httpx.HTTPError as error:
        raise Problem(f"peer{peer} does not say what it earned: {error}") from None
    accounts = json.loads(reply.content)["accounts"]
    return sum(
        int(account["credits_posted"]) - int(account["debits_posted"])
        for account in accounts
        if account["kind"] == "fees"
    )


def print_fees(kept: dict[int, int]) -> None:
    """What each hop kept of the payment, in the order of the path."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("kept by")
    table.add_column("units", justify="right")
    for peer, units in kept.items():
        table.add_row(f"peer{peer}", str(units))
    table.add_row("together", str(sum(kept.values())))
    console.print()
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
