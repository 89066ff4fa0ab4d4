"""Whether an ILP address can be reached, and how long the way there and back takes.

A probe is a Prepare whose condition is random: nobody can fulfill it, so no money
can move. A node that is reached rejects it for good, and names itself. Any other
Reject says who stopped the probe, and why.
"""

import secrets
import time
from collections.abc import Callable

import msgspec
import trio

from connector.errors import RemoteProtocolError, Unavailable
from connector.limits import PROBE_INTERVAL_S, PROBE_TIMEOUT_S
from connector.protocol import ilp
from connector.protocol.address import covers
from connector.sender.uplink import Uplink


class Pong(msgspec.Struct, frozen=True):
    """What became of one probe. `code` is empty when no reply came."""

    number: int
    reached: bool
    code: str
    triggered_by: str
    message: str
    rtt_ms: float


class Summary(msgspec.Struct, frozen=True):
    """What became of all of them; the times are of the probes that reached."""

    address: str
    sent: int
    reached: int
    rtt_min_ms: float | None
    rtt_avg_ms: float | None
    rtt_max_ms: float | None
    pongs: tuple[Pong, ...]


def interpret(address: str, reply: bytes) -> tuple[bool, ilp.Reject]:
    """Whether an encoded reply shows that a probe reached `address`, and the Reject itself.

    Raises RemoteProtocolError when it is not a Reject.
    """
    packet = ilp.decode(reply)
    if not isinstance(packet, ilp.Reject):
        raise RemoteProtocolError(
            "a probe that nobody can fulfill was answered by something else than a reject"
        )
    # An empty triggered_by is nobody's: it would be covered by no address, and by every prefix.
    at_target = bool(packet.triggered_by) and covers(address, packet.triggered_by)
    return at_target and packet.code[0] == "F", packet


async def probe(
    uplink: Uplink,
    address: str,
    number: int,
    amount: int = 0,
    *,
    wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
) -> Pong:
    """Send one probe of `amount`. Not raised for a lost reply or link: the Pong says it."""
    expires_at_ms = wall_ms() + round(PROBE_TIMEOUT_S * 1000)
    prepare = ilp.Prepare(amount, expires_at_ms, secrets.token_bytes(32), address, b"")
    started = trio.current_time()
    try:
        reply = await uplink.send(ilp.encode_prepare(prepare), timeout_s=PROBE_TIMEOUT_S + 1)
        reached, reject = interpret(address, reply)
    except (Unavailable, RemoteProtocolError) as error:
        return Pong(number, False, "", "", str(error), (trio.current_time() - started) * 1000)
    rtt_ms = (trio.current_time() - started) * 1000
    return Pong(number, reached, reject.code, reject.triggered_by, reject.message, rtt_ms)


async def ping(
    uplink: Uplink,
    address: str,
    *,
    count: int = 4,
    amount: int = 0,
    interval_s: float = PROBE_INTERVAL_S,
    on_pong: Callable[[Pong], None] = lambda pong: None,
) -> Summary:
    """Send `count` probes, one after the other, `interval_s` apart."""
    pongs: list[Pong] = []
    for number in range(1, count + 1):
        if pongs:
            await trio.sleep(interval_s)
        pong = await probe(uplink, address, number, amount)
        on_pong(pong)
        pongs.append(pong)
    return summarize(address, tuple(pongs))


def summarize(address: str, pongs: tuple[Pong, ...]) -> Summary:
    """Count and time them."""
    times = [pong.rtt_ms for pong in pongs if pong.reached]
    if not times:
        return Summary(address, len(pongs), 0, None, None, None, pongs)
    return Summary(
        address,
        len(pongs),
        len(times),
        min(times),
        sum(times) / len(times),
        max(times),
        pongs,
    )
