"""Names of replicas become addresses: TigerBeetle's client takes nothing else. Anew for each client."""

import trio

from connector.errors import Unavailable
from connector.limits import LEDGER_REQUEST_TIMEOUT_S


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
