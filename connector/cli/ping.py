"""`connector ping`: whether an ILP address can be reached, and who is in the way if not."""

from typing import Annotated

import msgspec
import trio
from cyclopts import Parameter
from rich.console import Console

from connector.cli.via import Via
from connector.errors import PaymentError
from connector.limits import PROBES_MAX, U64_MAX
from connector.protocol.address import is_address
from connector.sender.ping import Pong, Summary
from connector.sender.ping import ping as send_probes
from connector.sender.report import printable

_NOT_REACHED = 1


def ping(
    address: str,
    *,
    link: Via,
    count: int = 4,
    amount: int = 0,
    interval: float = 0.2,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Probe the path to an ILP address with packets that nobody can fulfill.

    The exit status is 0 only when every probe reached the address.

    Parameters
    ----------
    address
        The ILP address to reach: a node's or an account's.
    count
        How many probes to send.
    amount
        What each one offers, in our smallest units, to test limits and liquidity; no money can move.
    interval
        Seconds between probes.
    json
        Print one JSON object.
    """
    if not is_address(address):
        raise PaymentError(f"{address!r} is not an ILP address such as test.peer5.alice")
    if not 1 <= count <= PROBES_MAX:
        raise PaymentError(f"--count: {count} is not between 1 and {PROBES_MAX}")
    if not 0 <= amount <= U64_MAX:
        raise PaymentError(f"--amount: {amount} is not between 0 and {U64_MAX}")
    console = Console(highlight=False, quiet=json)
    summary = trio.run(_ping, address, link, count, amount, max(0.0, interval), console)
    if json:
        print(msgspec.json.encode(summary).decode())
    else:
        print_summary(summary, console)
    return 0 if summary.reached == summary.sent else _NOT_REACHED


async def _ping(
    address: str,
    link: Via,
    count: int,
    amount: int,
    interval_s: float,
    console: Console,
) -> Summary:
    async with link.connect() as uplink:
        return await send_probes(
            uplink,
            address,
            count=count,
            amount=amount,
            interval_s=interval_s,
            on_pong=lambda pong: console.print(line(pong), soft_wrap=True, markup=False),
        )


def line(pong: Pong) -> str:
    """One probe, in words."""
    took = f"{pong.rtt_ms:.1f} ms"
    said = f": {printable(pong.message)}" if pong.message else ""
    if not pong.code:
        return f"{pong.number}: no reply after {took}{said}"
    who = pong.triggered_by or "a node that does not say which"
    if pong.reached:
        return f"{pong.number}: reached {who} in {took} ({pong.code})"
    return f"{pong.number}: stopped by {who} after {took}: {pong.code}{said}"


def print_summary(summary: Summary, console: Console) -> None:
    """All probes, in words."""
    console.print(f"{summary.address}: {summary.reached} of {summary.sent} probes reached it")
    if summary.rtt_min_ms is not None:
        console.print(
            f"round trip min/avg/max "
            f"{summary.rtt_min_ms:.1f}/{summary.rtt_avg_ms:.1f}/{summary.rtt_max_ms:.1f} ms",
        )
