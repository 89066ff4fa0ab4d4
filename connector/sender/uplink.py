"""What a sender needs from a link: send one ILP packet, get its reply.

`connector.links.client.Client` is one over BTP; tests have one in memory.
"""

from typing import Protocol

from connector.errors import PaymentError, RemoteProtocolError
from connector.limits import ILDCP_TIMEOUT_MS
from connector.protocol import ildcp, ilp
from connector.sender.report import printable


class Uplink(Protocol):
    """The way from this program to the network."""

    async def send(self, packet: bytes, *, timeout_s: float) -> bytes:
        """The encoded Fulfill or Reject that answers `packet`, an encoded Prepare.

        Raises Unavailable when the link is gone or nothing came within
        `timeout_s`: whether the packet was fulfilled is then unknown.
        """
        ...


async def own_config(uplink: Uplink, now_ms: int) -> ildcp.ChildConfig:
    """Our own address and asset, as our parent gives them (ILDCP, RFC 31).

    `now_ms` is the wall clock. Raises PaymentError, Unavailable.
    """
    prepare = ildcp.request(now_ms + ILDCP_TIMEOUT_MS)
    reply = await uplink.send(ilp.encode_prepare(prepare), timeout_s=ILDCP_TIMEOUT_MS / 1000)
    try:
        packet = ilp.decode(reply)
        if isinstance(packet, ilp.Fulfill):
            return ildcp.read_reply(packet)
    except RemoteProtocolError as error:
        raise PaymentError(f"the connector's answer to ILDCP cannot be read: {error}") from None
    if isinstance(packet, ilp.Reject):
        raise PaymentError(
            f"the connector gave us no address: {packet.code} {printable(packet.message)}. "
            "Is this link configured there as a child?",
        )
    raise PaymentError("the connector answered ILDCP with a prepare")
