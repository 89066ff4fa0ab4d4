"""Where a cluster's replicas are: `tigerbeetle:3000,10.0.0.1:3001,[::1]:3002,3003`.

TigerBeetle's client takes addresses only, so names are resolved here, anew for
each client. A bare port is one on 127.0.0.1; a bare host has TigerBeetle's
default port. The order of replicas matters, and stays.
"""

from ipaddress import AddressValueError, IPv6Address
from typing import Final

import trio

from connector.errors import Unavailable
from connector.limits import LEDGER_REPLICAS_MAX, LEDGER_REQUEST_TIMEOUT_S

_PORT_DEFAULT: Final = 3001


def parse_replicas(text: str) -> list[tuple[str, int]]:
    """Host and port of each replica. Raises ValueError saying what cannot be read."""
    replicas = [_parse(part.strip()) for part in text.split(",")]
    if len(replicas) > LEDGER_REPLICAS_MAX:
        raise ValueError(f"{len(replicas)} replicas, where a cluster has at most {LEDGER_REPLICAS_MAX}")
    return replicas


def _parse(part: str) -> tuple[str, int]:
    if part.isdecimal():
        return "127.0.0.1", _port(part)
    if part.startswith("["):
        host, bracket, rest = part[1:].partition("]")
        try:
            IPv6Address(host)
        except AddressValueError:
            bracket = ""
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{part!r} is no [IPv6 address]:port")
        return host, _port(rest[1:]) if rest else _PORT_DEFAULT
    host, colon, port = part.partition(":")
    if not host or ":" in port:
        raise ValueError(f"{part!r} is no host:port; an IPv6 address stands in brackets")
    return host, _port(port) if colon else _PORT_DEFAULT


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 65_536):
        raise ValueError(f"{text!r} is no port")
    return int(text)


async def resolve(replicas: list[tuple[str, int]]) -> str:
    """The replicas' addresses, as TigerBeetle's client takes them. Raises Unavailable naming the host."""
    return ",".join([await _resolve(host, port) for host, port in replicas])


async def _resolve(host: str, port: int) -> str:
    with trio.move_on_after(LEDGER_REQUEST_TIMEOUT_S):
        try:
            found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise Unavailable(f"TigerBeetle's host {host!r} cannot be resolved: {error}") from error
        # IPv4 first: a server told `0.0.0.0` listens on nothing else.
        found.sort(key=lambda entry: entry[0] != trio.socket.AF_INET)
        family, *_, address = found[0]
        return f"{address[0]}:{port}" if family == trio.socket.AF_INET else f"[{address[0]}]:{port}"
    raise Unavailable(f"TigerBeetle's host {host!r}: no answer from name resolution")
