"""Rates and fees: exact rationals, rounded against whoever would gain from rounding."""

from fractions import Fraction

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from connector.core.rates import IDENTITY, PPM, Asset, Conversion, Rates, fee
from connector.limits import U64_MAX

USD2, USD6, EUR2, XRP9 = Asset("USD", 2), Asset("USD", 6), Asset("EUR", 2), Asset("XRP", 9)
PRICES = {"USD": Fraction(1), "EUR": Fraction("1.08"), "XRP": Fraction("0.57")}
AMOUNT = st.integers(1, U64_MAX)


def convert(source: Asset, target: Asset, amount: int) -> int:
    conversion = Rates(PRICES).conversion(source, target)
    assert conversion is not None
    return conversion.apply(amount)


@pytest.mark.parametrize(
    ("source", "target", "amount", "expected"),
    [
        (USD2, USD2, 7, 7),
        (USD2, USD6, 7, 70_000),
        (USD6, USD2, 70_000, 7),
        (USD6, USD2, 69_999, 6),
        (USD6, USD2, 9_999, 0),
        (EUR2, USD2, 100, 108),
        (EUR2, USD2, 1, 1),
        (USD2, EUR2, 108, 100),
        (USD2, EUR2, 107, 99),
        (USD2, XRP9, 57, 1_000_000_000),
        (XRP9, USD2, 1_000_000_000, 57),
        (XRP9, USD2, 999_999_999, 56),
        (USD2, USD6, U64_MAX, U64_MAX * 10_000),
    ],
)
def test_amounts_are_converted_exactly_and_rounded_down(
    source: Asset, target: Asset, amount: int, expected: int
) -> None:
    assert convert(source, target, amount) == expected


def test_a_rate_is_a_rational_that_no_float_has() -> None:
    rates = Rates({"A": Fraction(1, 3), "B": Fraction(1, 7)})
    assert rates.conversion(Asset("A", 0), Asset("B", 0)) == Conversion(7, 3)
    assert rates.conversion(Asset("A", 18), Asset("B", 0)) == Conversion(7, 3 * 10**18)
    assert convert(USD2, USD6, 2**53 + 1) == (2**53 + 1) * 10_000


def test_one_code_in_two_scales_needs_no_price() -> None:
    assert Rates({}).conversion(Asset("ABC", 2), Asset("ABC", 5)) == Conversion(1_000, 1)


def test_the_same_asset_is_not_converted() -> None:
    assert Rates({}).conversion(Asset("ABC", 2), Asset("ABC", 2)) is IDENTITY


def test_without_both_prices_there_is_no_rate() -> None:
    rates = Rates({"USD": Fraction(1)})
    assert rates.conversion(USD2, EUR2) is None
    assert rates.conversion(EUR2, USD2) is None
    assert rates.conversion(USD2, EUR2) is None


@given(
    st.fractions(min_value=Fraction(1, 10**9), max_value=10**9),
    st.integers(0, 18),
    st.integers(0, 18),
    AMOUNT,
)
def test_to_and_fro_never_makes_money(price: Fraction, one: int, other: int, amount: int) -> None:
    rates = Rates({"A": price, "B": Fraction(1)})
    there = rates.conversion(Asset("A", one), Asset("B", other))
    back = rates.conversion(Asset("B", other), Asset("A", one))
    assert there is not None
    assert back is not None
    converted = there.apply(amount)
    exact = amount * price * Fraction(10) ** (other - one)
    assert exact - 1 < converted <= exact
    assert isinstance(converted, int)
    assert back.apply(converted) <= amount


@given(st.integers(1, 10**20), st.integers(1, 10**20))
@example(1, 1)
@example(1, 10**20)
@example(10**20, 1)
def test_the_largest_amount_is_the_last_that_fits(numerator: int, denominator: int) -> None:
    conversion = Conversion(numerator, denominator)
    largest = conversion.largest()
    assert 0 <= largest <= U64_MAX
    assert conversion.apply(largest) <= U64_MAX
    assert largest == U64_MAX or conversion.apply(largest + 1) > U64_MAX


@pytest.mark.parametrize(
    ("amount", "spread_ppm", "expected"),
    [
        (0, 1_000, 0),
        (1_000, 0, 0),
        (1, 1, 1),
        (999, 1_000, 1),
        (1_000, 1_000, 1),
        (1_001, 1_000, 2),
        (1_000_000, 1, 1),
        (1_000_001, 1, 2),
        (U64_MAX, 999_999, U64_MAX - U64_MAX // PPM),
    ],
)
def test_the_fee_is_rounded_up(amount: int, spread_ppm: int, expected: int) -> None:
    assert fee(amount, spread_ppm) == expected


@given(AMOUNT, st.integers(0, PPM - 1))
def test_the_fee_is_never_less_than_agreed_nor_more_than_the_amount(amount: int, spread_ppm: int) -> None:
    kept = fee(amount, spread_ppm)
    assert kept - 1 < Fraction(amount * spread_ppm, PPM) <= kept <= amount


@given(AMOUNT, st.integers(0, PPM - 1), st.integers(2, 5))
def test_cutting_a_payment_into_packets_never_saves_a_fee(amount: int, spread_ppm: int, pieces: int) -> None:
    share, left = divmod(amount, pieces)
    assert pieces * fee(share, spread_ppm) + fee(left, spread_ppm) >= fee(amount, spread_ppm)


def test_a_price_of_nothing_is_a_bug() -> None:
    with pytest.raises(AssertionError):
        Rates({"USD": Fraction(0)})


@pytest.mark.parametrize("scale", [-1, 256])
def test_a_scale_is_one_octet(scale: int) -> None:
    with pytest.raises(msgspec.ValidationError, match=r"\$\.scale"):
        msgspec.convert({"code": "USD", "scale": scale}, Asset)


def test_an_asset_is_written_as_code_and_scale() -> None:
    assert str(USD6) == "USD/6"
