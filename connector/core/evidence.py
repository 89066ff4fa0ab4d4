"""What is known of a packet in doubt, in words for the person who decides it."""

from datetime import UTC, datetime

from connector.core.accounts import Doubt
from connector.core.entries import Side


def evidence(doubt: Doubt) -> str:
    """What happened to the packet, and what each side follows from."""
    source = doubt.incoming.name
    prepared = f"prepared at {_time(doubt.time_ms)}"
    since = f"in doubt since {_time(doubt.since_ms)}"
    if doubt.outgoing is None:
        return (
            f"fulfilled, and owed to the next hop; the Fulfill may not have left for {source} before its "
            f"link or this connector was lost; {since}: {source} owes it if it has the Fulfill"
        )
    target = doubt.outgoing.name
    incoming, outgoing = doubt.incoming_side, doubt.outgoing_side
    if incoming is Side.OPEN and outgoing is Side.OPEN:
        return (
            f"{prepared}, and this connector stopped while it was in flight: no Fulfill was received from "
            f"{target}; {since}"
        )
    if outgoing is Side.OWED:
        return (
            f"{prepared}; a valid Fulfill was received from {target}, or what it is owed was decided; the "
            f"link to {source} was lost before it could be relayed; {since}"
        )
    if outgoing is Side.OPEN:
        upstream = "was decided to owe it" if incoming is Side.OWED else "owes nothing for it"
        return (
            f"{prepared}; the link to {target} or this connector was lost before an answer came from it: no "
            f"Fulfill was received; {source} {upstream}; {since}"
        )
    return f"{prepared}; {target} is owed nothing for it, as was decided; {source} may owe it; {since}"


def _time(wall_ms: int) -> str:
    return (
        datetime.fromtimestamp(wall_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )
