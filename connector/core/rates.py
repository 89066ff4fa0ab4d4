"""Assets, exchange rates and the fee, in exact integers.

Invariants: the fee is taken in the incoming asset and rounded up, conversion
rounds down, so a connector never gives more than it was promised; no float
anywhere. A rate is the price of one whole unit of an asset in a common
reference; between two assets it is scaled to their smallest units.
"""

from fractions import Fraction
from typing import Annotated

import msgspec

from connector.limits import U64_MAX

PPM = 1_000_000


class Asset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A currency and its precision: an amount of 1 is 10^-scale of one `code`."""

    code: str
    #: One octet, as ILDCP and STREAM carry it.
    scale: Annotated[int, msgspec.Meta(ge=0, le=255)]

    def __str__(self) -> str:
        return f"{self.code}/{self.scale}"


class Conversion(msgspec.Struct, frozen=True, gc=False):
    """How amounts of one hop's asset become another's: times `numerator` / `denominator`."""

    numerator: int
    denominator: int

    def apply(self, amount: int) -> int:
        """`amount` converted, rounded down."""
        return amount * self.numerator // self.denominator

    def largest(self) -> int:
        """The largest amount that, converted, still fits in 64 bits."""
        return min(U64_MAX, ((U64_MAX + 1) * self.denominator - 1) // self.numerator)


IDENTITY = Conversion(1, 1)


class Rates:
    """Prices by asset code, and the conversions that follow from them."""

    def __init__(self, prices: dict[str, Fraction]) -> None:
        assert all(price > 0 for price in prices.values())
        self._prices = prices
        # Bounded by the pairs of assets that the configuration names.
        self._known: dict[tuple[Asset, Asset], Conversion | None] = {}

    def conversion(self, source: Asset, target: Asset) -> Conversion | None:
        """The conversion from `source` to `target`; None without a price for both."""
        if source == target:
            return IDENTITY
        pair = (source, target)
        if pair not in self._known:
            self._known[pair] = self._compute(source, target)
        return self._known[pair]

    def _compute(self, source: Asset, target: Asset) -> Conversion | None:
        if source.code == target.code:
            price = Fraction(1)
        elif source.code in self._prices and target.code in self._prices:
            price = self._prices[source.code] / self._prices[target.code]
        else:
            return None
        rate = price * Fraction(10) ** (target.scale - source.scale)
        return Conversion(rate.numerator, rate.denominator)


def fee(amount: int, spread_ppm: int) -> int:
    """What we keep of `amount`: `spread_ppm` parts per million, rounded up."""
    return -(-amount * spread_ppm // PPM)
