"""The routing table: longest prefix first, on segment boundaries (RFC 15, RFC 27).

A look-up costs one dictionary probe for each number of segments that some
route has, whatever the number of routes, which limits.py bounds.
"""

from collections import Counter
from typing import Generic, TypeVar

from connector.errors import LocalProtocolError
from connector.limits import ROUTING_TABLE_MAX
from connector.protocol import address as addresses

T = TypeVar("T")


class RoutingTable(Generic[T]):
    """Prefixes and where they lead. The empty prefix is the default route."""

    def __init__(self) -> None:
        self._routes: dict[str, T] = {}
        self._depths: Counter[int] = Counter()
        #: Numbers of segments that prefixes have, largest first.
        self._probes: tuple[int, ...] = ()
        #: Grows with every change, so that others know when what they remember is stale.
        self.version = 0

    def __len__(self) -> int:
        return len(self._routes)

    def routes(self) -> list[tuple[str, T]]:
        """All routes, by prefix."""
        return sorted(self._routes.items(), key=lambda route: route[0])

    def add(self, prefix: str, target: T) -> None:
        """Add or replace the route for `prefix`.

        Raises LocalProtocolError for what is no prefix, or when the table is full.
        """
        if not addresses.is_prefix(prefix):
            raise LocalProtocolError(f"not an ILP address prefix: {prefix[:80]!r}")
        if prefix not in self._routes:
            if len(self._routes) >= ROUTING_TABLE_MAX:
                raise LocalProtocolError(f"the routing table is full: {ROUTING_TABLE_MAX} routes")
            self._count(prefix, 1)
        self._routes[prefix] = target
        self.version += 1

    def remove(self, prefix: str) -> None:
        """Remove the route for `prefix`; a KeyError if there is none."""
        del self._routes[prefix]
        self._count(prefix, -1)
        self.version += 1

    def _count(self, prefix: str, change: int) -> None:
        depth = prefix.count(".") + 1 if prefix else 0
        self._depths[depth] += change
        self._probes = tuple(sorted((d for d, n in self._depths.items() if n), reverse=True))

    def lookup(self, address: str) -> T | None:
        """Where `address` is to go, or None without a route."""
        probes = self._probes
        if not probes:
            return None
        segments = address.split(".", probes[0])
        for depth in probes:
            if depth <= len(segments):
                target = self._routes.get(".".join(segments[:depth]))
                if target is not None:
                    return target
        return None


def why_not_carried(own_address: str, destination: str, hop_address: str) -> str | None:
    """Why the node at `own_address` may not give a packet for `destination` to a hop, or None.

    `hop_address` is the hop's own address, empty when no route leads to one.
    `peer.*` is between two nodes, the live network and the others do not mix,
    and below our own address only accounts and children of ours exist.
    """
    scheme, network = addresses.scheme(destination), addresses.scheme(own_address)
    ours = bool(hop_address) and addresses.covers(own_address, hop_address)
    if scheme == "peer":
        return "peer.* is never forwarded"
    if (scheme == "g") != (network == "g"):
        return f"a node of network {network} does not carry {scheme}"
    if addresses.covers(own_address, destination) and not ours:
        if destination == own_address:
            return "this is a connector, it takes no payments itself"
        return "no such account at this connector"
    return None
