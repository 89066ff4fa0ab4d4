"""Stock JavaScript STREAM software pays, and is paid, through all five peers."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.interop.five_peers import PEERS, ROOT, Balances, FivePeers
from tests.interop.stock import HERE, node_program

PACKETS = 1_000
#: Small packets, so that a payment takes at least 1 000 of them; each hop keeps 10 of one.
PACKET_AMOUNT = 10_000
AMOUNT = PACKETS * PACKET_AMOUNT
TIMEOUT_S = 120


def test_a_stock_client_pays_alice_at_peer5(five_peers: FivePeers) -> None:
    before = five_peers.balances()
    command = [node_program(), str(HERE / "stock_client.js")]
    command += [f"btp+ws://:dev-child-1@{five_peers.btp(1)}", f"{five_peers.http(5)}/alice"]
    command += [str(AMOUNT), str(PACKET_AMOUNT)]

    report = json.loads(run(command))

    assert report["address"] == "test.peer1.child"
    assert report["destination"].startswith("test.peer5.alice.")
    assert report["packets"]["fulfilled"] >= PACKETS
    assert int(report["sent"]) == AMOUNT
    check_books(
        before,
        five_peers.balances(),
        payer=(1, "child"),
        sent=AMOUNT,
        payee=(5, "alice"),
        delivered=int(report["delivered"]),
        forwarders={1, 2, 3, 4},
    )


def test_connector_pay_pays_a_stock_server_at_peer5(five_peers: FivePeers) -> None:
    before = five_peers.balances()
    with stock_server(f"btp+ws://:dev-child-5@{five_peers.btp(5)}") as server:
        assert server["address"].startswith("test.peer5.child.")
        command = [sys.executable, "-m", "connector", "pay", server["address"], str(AMOUNT)]
        command += ["--secret", server["secret"], "--packet-max", str(PACKET_AMOUNT), "--json"]
        command += ["--via", f"ws://{five_peers.btp(1)}", "--token", "dev-wallet-1"]

        report = json.loads(run(command))

    assert report["complete"]
    assert report["packets_fulfilled"] >= PACKETS
    assert int(report["sent"]) == AMOUNT
    # Both ends count alike: packets, and what arrived.
    assert server["packets"]["fulfilled"] == report["packets_fulfilled"]
    assert server["packets"]["amount"] == server["received"] == report["delivered"]
    check_books(
        before,
        five_peers.balances(),
        payer=(1, "wallet"),
        sent=AMOUNT,
        payee=(5, "child"),
        delivered=int(report["delivered"]),
        forwarders={1, 2, 3, 4, 5},
    )


def check_books(
    before: Balances,
    after: Balances,
    *,
    payer: tuple[int, str],
    sent: int,
    payee: tuple[int, str],
    delivered: int,
    forwarders: set[int],
) -> None:
    """Every node's books say what the two ends reported."""
    assert after.net(*payer) - before.net(*payer) == sent
    assert before.net(*payee) - after.net(*payee) == delivered
    kept = {peer: after.fees[peer] - before.fees[peer] for peer in PEERS}
    assert sum(kept.values()) == sent - delivered
    assert {peer for peer in PEERS if kept[peer] > 0} == forwarders
    for left in range(1, 5):
        right = left + 1
        owed_by_left = after.net(right, f"peer{left}") - before.net(right, f"peer{left}")
        owed_to_right = before.net(left, f"peer{right}") - after.net(left, f"peer{right}")
        assert owed_by_left == owed_to_right == sent - sum(kept[peer] for peer in range(1, right))


def run(command: list[str]) -> str:
    """The output of a command that has to succeed."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@contextmanager
def stock_server(btp_url: str) -> Iterator[dict[str, Any]]:
    """Run stock_server.js: first what it printed at the start, after the block its totals too."""
    command = [node_program(), str(HERE / "stock_server.js"), btp_url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        try:
            server = json.loads(process.stdout.readline())
            yield server
            process.stdin.close()
            server.update(json.loads(process.stdout.readline()))
            assert process.wait(TIMEOUT_S) == 0
        finally:
            process.kill()
