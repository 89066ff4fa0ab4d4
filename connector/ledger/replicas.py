"""Where a cluster's replicas are: `tigerbeetle:3000,10.0.0.1:3001,[::1]:3002,3003`.

A bare port is one of this machine. The order of replicas matters, and stays.
"""

import re
from ipaddress import IPv6Address

from connector.limits import LEDGER_REPLICAS_MAX

_REPLICA = re.compile(r"(?:(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):)?([0-9]{1,5})")


def parse_replicas(text: str) -> list[tuple[str, int]]:
    """Host and port of each replica. Raises ValueError saying what cannot be read."""
    parts = text.split(",")
    if len(parts) > LEDGER_REPLICAS_MAX:
        raise ValueError(f"at most {LEDGER_REPLICAS_MAX} replicas, not {len(parts)}")
    return [_replica(part.strip()) for part in parts]


def _replica(text: str) -> tuple[str, int]:
    match = _REPLICA.fullmatch(text)
    host, port = (match[1] or "127.0.0.1", int(match[2])) if match else ("", 0)
    if host.startswith("["):
        try:
            host = str(IPv6Address(host[1:-1]))
        except ValueError:
            host = ""
    if not host or not 1 <= port <= 65_535:
        raise ValueError(f"HOST:PORT is expected, for instance 127.0.0.1:3001, not {text!r}")
    return host, port
