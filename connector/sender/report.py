"""What a payment came to, for people and for programs.

Amounts are integers in the smallest unit of their asset; as JSON they are decimal
strings, because u64 breaks JavaScript's numbers.
"""

from fractions import Fraction
from typing import Any

import msgspec

from connector.limits import REASON_SHOWN_MAX, STREAM_ASSET_CODE_SHOWN_MAX

_RATE_DIGITS = 9


class Asset(msgspec.Struct, frozen=True):
    """An asset, and its decimal places."""

    code: str
    scale: int


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one payment.

    `complete` only when all that was asked for has happened and `reason` is
    None. `delivered` is what the receiver itself reported. `in_doubt` is the part
    of which it is not known whether it was paid; it is not in `sent`.
    `rejects` counts by code; test packets that measured the rate are in none.
    """

    complete: bool
    reason: str | None
    destination: str
    source_asset: Asset
    destination_asset: Asset | None
    sent: int
    delivered: int
    in_doubt: int
    rate: Fraction | None
    minimum_rate: Fraction | None
    packets_fulfilled: int
    packets_rejected: int
    rejects: dict[str, int]
    duration_ms: int

    @property
    def fees(self) -> int | None:
        """What the connectors between kept, in source units; None when the assets differ or are unknown."""
        if self.destination_asset != self.source_asset or self.in_doubt:
            return None
        return self.sent - self.delivered

    @property
    def effective_rate(self) -> Fraction | None:
        """Delivered for each source unit sent."""
        return Fraction(self.delivered, self.sent) if self.sent else None

    def as_json(self) -> dict[str, Any]:
        """The report as one JSON object: amounts and rates are decimal strings, absent values null."""
        return {
            "complete": self.complete,
            "reason": self.reason,
            "destination": self.destination,
            "source_asset": msgspec.to_builtins(self.source_asset),
            "destination_asset": msgspec.to_builtins(self.destination_asset),
            "sent": str(self.sent),
            "delivered": str(self.delivered),
            "fees": None if self.fees is None else str(self.fees),
            "in_doubt": str(self.in_doubt),
            "rate": format_rate(self.effective_rate),
            "quoted_rate": format_rate(self.rate),
            "minimum_rate": format_rate(self.minimum_rate),
            "packets_fulfilled": self.packets_fulfilled,
            "packets_rejected": self.packets_rejected,
            "rejects": self.rejects,
            "duration_ms": self.duration_ms,
        }


def printable(text: str, most: int = REASON_SHOWN_MAX) -> str:
    """Words of other nodes, without what could steer a terminal, and not more than `most` characters."""
    shown = "".join(character if character.isprintable() else "�" for character in text[:most])
    return shown + ("…" if len(text) > most else "")


def asset_from_wire(code: str, scale: int) -> Asset:
    """The asset that another node names, its code made printable and short."""
    return Asset(printable(code, STREAM_ASSET_CODE_SHOWN_MAX), scale)


def format_rate(rate: Fraction | None) -> str | None:
    """Nine significant digits, no exponent: for reading, never for reckoning."""
    if rate is None:
        return None
    if rate == 0:
        return "0"
    whole = len(str(int(rate))) if rate >= 1 else 0
    places = max(0, _RATE_DIGITS - whole)
    if rate < 1:
        places += len(str(int(1 / rate))) - 1
    scaled = str(round(rate * 10**places)).rjust(places + 1, "0")
    if not places:
        return scaled
    return f"{scaled[:-places]}.{scaled[-places:]}".rstrip("0").rstrip(".")


def format_amount(amount: int, asset: Asset | None) -> str:
    """The amount in the asset itself, `1.25 USD`; in bare units when the asset is unknown."""
    if asset is None:
        return f"{amount} units"
    if not asset.scale:
        return f"{amount} {asset.code}"
    digits = str(amount).rjust(asset.scale + 1, "0")
    return f"{digits[: -asset.scale]}.{digits[-asset.scale :]} {asset.code}"
