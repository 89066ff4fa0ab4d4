"""ILDCP (RFC 31): a child asks its parent for an address and an asset.

The request is a Prepare of amount 0 to `peer.config` whose condition is the
hash of 32 zero octets; the reply is a Fulfill with those zeros and, as data,
address var-octets | asset scale u8 | asset code var-octets.
"""

from hashlib import sha256

import msgspec

from connector.errors import LocalProtocolError, RemoteProtocolError
from connector.protocol.address import is_address
from connector.protocol.ilp import Fulfill, Prepare
from connector.protocol.oer import read_uint, read_var_octets, var_octets

DESTINATION = "peer.config"
FULFILLMENT = bytes(32)
CONDITION = sha256(FULFILLMENT).digest()


class ChildConfig(msgspec.Struct, frozen=True):
    """What a child learns: its address, and the asset of its link (scale: decimal places)."""

    address: str
    asset_scale: int
    asset_code: str


def request(expires_at_ms: int) -> Prepare:
    """The Prepare that asks."""
    return Prepare(0, expires_at_ms, CONDITION, DESTINATION, b"")


def reply(config: ChildConfig) -> Fulfill:
    """The Fulfill that answers. Raises LocalProtocolError for values it cannot carry."""
    if not is_address(config.address):
        raise LocalProtocolError("child address: not an ILP address")
    if not (0 <= config.asset_scale <= 255 and config.asset_code.isascii()):
        raise LocalProtocolError("asset: a scale of one octet and an ASCII code expected")
    data = b"".join(
        (
            var_octets(config.address.encode("ascii")),
            bytes((config.asset_scale,)),
            var_octets(config.asset_code.encode("ascii")),
        ),
    )
    return Fulfill(FULFILLMENT, data)


def read_reply(fulfill: Fulfill) -> ChildConfig:
    """What a parent's Fulfill says. Raises RemoteProtocolError."""
    address, offset = read_var_octets(fulfill.data, 0, "child address")
    scale, offset = read_uint(fulfill.data, offset, 1, "asset scale")
    code, offset = read_var_octets(fulfill.data, offset, "asset code")
    if offset != len(fulfill.data):
        raise RemoteProtocolError(f"ildcp: {len(fulfill.data) - offset} bytes after its end")
    if not (address.isascii() and code.isascii() and is_address(address.decode("ascii"))):
        raise RemoteProtocolError("ildcp: an ILP address and an ASCII asset code expected")
    return ChildConfig(address.decode("ascii"), scale, code.decode("ascii"))
