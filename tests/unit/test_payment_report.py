"""What a payment's report shows to people."""

from fractions import Fraction

import pytest

from connector.sender.report import Asset, format_amount, format_rate
from connector.sender.stream_client import Receiver


def test_a_receiver_never_prints_its_secret() -> None:
    assert repr(Receiver("test.alice.token", b"secret" * 6)) == "Receiver('test.alice.token')"


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (Fraction(1), "1"),
        (Fraction(2, 3), "0.666666667"),
        (Fraction(997, 1000), "0.997"),
        (Fraction(1234567891234, 1000), "1234567891"),
        (Fraction(1, 3_000_000), "0.000000333333333"),
        (Fraction(0), "0"),
        (None, None),
    ],
)
def test_a_rate_is_written_in_nine_significant_digits(rate: Fraction | None, text: str | None) -> None:
    assert format_rate(rate) == text


def test_an_amount_is_written_in_its_asset() -> None:
    assert format_amount(1_250_000, Asset("USD", 6)) == "1.250000 USD"
    assert format_amount(5, Asset("USD", 2)) == "0.05 USD"
    assert format_amount(5, Asset("JPY", 0)) == "5 JPY"
    assert format_amount(5, None) == "5 units"
