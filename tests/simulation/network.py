"""What the simulated network looks like: five nodes in a line, and the terms between them."""

import random
from pathlib import Path

import msgspec

from connector.config.schema import NodeConfig, Secret
from tests.simulation.wire import Faults

NODES = ("n1", "n2", "n3", "n4", "n5")
CHILDREN = ("payer", "shop")
CREDIT_LIMIT = 40_000
#: 2026-01-01, so that no seed depends on today.
EPOCH_MS = 1_767_225_600_000
_USD = {"code": "USD", "scale": 6}
_EUR = {"code": "EUR", "scale": 4}


class Script(msgspec.Struct, frozen=True):
    """What goes wrong in a seed, and how often."""

    wire: Faults
    cuts_links: bool
    steps_clocks: bool
    #: How many times machines are killed or stopped, at most.
    crashes_max: int
    sync: str
    disk_delay_max_s: float
    disk_fails: bool
    #: Whether the journal's checkpoints come often.
    checkpoints: bool
    #: Whether the ledger is in the node's state directory, and ends with its process.
    ledger_is_near: bool
    ledger_delay_max_s: float
    ledger_loses: float
    ledger_leaves: bool
    ledger_batch_max: int
    unposted_max: int


def script(rng: random.Random) -> Script:
    """Draw what goes wrong."""
    return Script(
        wire=Faults(
            drop=rng.choice((0.0, 0.0, 0.05, 0.2)),
            repeat=rng.choice((0.0, 0.0, 0.05)),
            delay_max_s=rng.choice((0.0, 0.05, 0.5, 3.0)),
            stall=rng.choice((0.0, 0.0, 0.05, 0.2)),
            stall_breaks=rng.choice((0.0, 0.3)),
        ),
        cuts_links=rng.random() < 0.5,
        steps_clocks=rng.random() < 0.3,
        crashes_max=rng.choice((0, 1, 2, 4)),
        sync=rng.choice(("always", "interval")),
        disk_delay_max_s=rng.choice((0.0, 0.004, 0.004, 0.1)),
        disk_fails=rng.random() < 0.2,
        checkpoints=rng.random() < 0.3,
        ledger_is_near=rng.random() < 0.3,
        ledger_delay_max_s=rng.choice((0.1, 2.0, 8.0)),
        ledger_loses=rng.choice((0.0, 0.1, 0.3)),
        ledger_leaves=rng.random() < 0.5,
        ledger_batch_max=rng.choice((8, 64, 8_189)),
        unposted_max=rng.choice((10**7, 10**7, 10**7, 40)),
    )


def config(index: int, state_dir: Path, plan: Script) -> NodeConfig:
    """The configuration of a node, with its books in `state_dir`."""
    name = NODES[index]
    # The last node deals in another asset, so that its neighbour converts.
    own = _EUR if index == 4 else _USD
    peers: list[dict[str, object]] = [
        {
            "name": child,
            "relation": "child",
            "token": f"{child}-{name}",
            "asset": own,
            "credit_limit": 10**9,
        }
        for child in CHILDREN
    ]
    routes: list[dict[str, str]] = []
    for other, there in enumerate(NODES):
        if abs(other - index) == 1:
            peers.append(_peer(index, other))
        elif other != index:
            next_hop = NODES[index + (1 if other > index else -1)]
            routes.append({"prefix": f"test.{there}", "next_hop": next_hop})
    settings = {
        "node": {
            "name": name,
            "address": f"test.{name}",
            "state_dir": str(state_dir),
            "drain_timeout_s": 3,
        },
        "fees": {"spread_ppm": 1_000},
        "journal": {"sync": plan.sync},
        "ledger": {"unposted_max": plan.unposted_max},
        "prices": {"USD": "1", "EUR": "1.1"},
        "peers": peers,
        "routes": routes,
    }
    return msgspec.convert(settings, NodeConfig, dec_hook=_secret)


def _peer(index: int, other: int) -> dict[str, object]:
    low, high = min(index, other), max(index, other)
    there = NODES[other]
    peer: dict[str, object] = {
        "name": there,
        "relation": "peer",
        "address": f"test.{there}",
        "token": f"{low}-{high}",
        "asset": _EUR if high == 4 else _USD,
        "credit_limit": CREDIT_LIMIT,
    }
    # Between n2 and n3 both dial, so that links cross.
    if index < other or {index, other} == {1, 2}:
        peer["url"] = f"ws://{there}"
    return peer


def _secret(kind: type, value: object) -> Secret:
    assert kind is Secret
    assert isinstance(value, str)
    return Secret(value)
