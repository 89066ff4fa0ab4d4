"""The five-peer network of infra/five-peer in a process of its own, on free ports."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import msgspec

ROOT = Path(__file__).resolve().parents[2]
PEERS = range(1, 6)
START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 30
POLL_S = 0.05


class Account(msgspec.Struct, frozen=True):
    """An account as `GET /api/accounts` tells it; debits are what it owes the node."""

    name: str
    kind: str
    debits_posted: str
    credits_posted: str
    debits_pending: str
    credits_pending: str

    @property
    def net(self) -> int:
        """Posted debits less posted credits."""
        return int(self.debits_posted) - int(self.credits_posted)

    @property
    def pending(self) -> tuple[str, str]:
        """What is reserved for packets in flight."""
        return self.debits_pending, self.credits_pending


class _Accounts(msgspec.Struct):
    accounts: list[Account]


class Balances(msgspec.Struct, frozen=True):
    """The accounts of all five nodes at one moment, by peer number and account name."""

    accounts: dict[tuple[int, str], Account]
    fees: dict[int, int]

    def net(self, peer: int, name: str) -> int:
        """What the account `name` at `peer` owes."""
        return self.accounts[peer, name].net


class FivePeers:
    """Where the five nodes are, and what their books say."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment

    def btp(self, peer: int) -> str:
        """Host and port of a peer's BTP listener."""
        return f"127.0.0.1:{self._environment[f'PEER{peer}_BTP_PORT']}"

    def http(self, peer: int) -> str:
        """Base URL of a peer's HTTP port."""
        return f"http://127.0.0.1:{self._environment[f'PEER{peer}_HTTP_PORT']}"

    def balances(self) -> Balances:
        """All accounts, once nothing is in flight any more."""
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while True:
            accounts = {(peer, account.name): account for peer in PEERS for account in self._accounts(peer)}
            if all(account.pending == ("0", "0") for account in accounts.values()):
                break
            assert time.monotonic() < deadline, "packets remain in flight"
            time.sleep(POLL_S)
        fees = {
            peer: -sum(a.net for (at, _), a in accounts.items() if at == peer and a.kind == "fees")
            for peer in PEERS
        }
        return Balances(accounts, fees)

    def _accounts(self, peer: int) -> list[Account]:
        reply = httpx.get(f"{self.http(peer)}/api/accounts")
        return msgspec.json.decode(reply.content, type=_Accounts).accounts

    def all_ready(self) -> bool:
        """Whether every node says that all its links are up."""
        try:
            return all(httpx.get(f"{self.http(peer)}/readyz").json()["status"] == "ready" for peer in PEERS)
        except httpx.TransportError:
            return False


@contextmanager
def run_five_peers(log: Path) -> Iterator[FivePeers]:
    """Run the network; at the end it has to drain and exit 0."""
    names = [f"PEER{peer}_{kind}_PORT" for peer in PEERS for kind in ("BTP", "HTTP")]
    environment = dict(zip(names, map(str, free_ports(len(names))), strict=True))
    environment |= {f"PEER{peer}_STATE_DIR": str(log.parent / f"peer{peer}") for peer in PEERS}
    configs = [str(ROOT / f"infra/five-peer/peer{peer}.toml") for peer in PEERS]
    command = [sys.executable, "-m", "connector", "run", *configs]
    with log.open("w") as output:
        nodes = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    network = FivePeers(environment)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not network.all_ready():
            assert nodes.poll() is None, f"the nodes ended:\n{log.read_text()}"
            assert time.monotonic() < deadline, f"the nodes are not ready:\n{log.read_text()}"
            time.sleep(POLL_S)
        yield network
        nodes.send_signal(signal.SIGTERM)
        assert nodes.wait(STOP_TIMEOUT_S) == 0, log.read_text()
    finally:
        nodes.kill()
        nodes.wait()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on at the moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports
