"""What a payment's report shows to people."""

import io
import json
from fractions import Fraction

import msgspec
import pytest
from rich.console import Console

from connector.cli.pay import print_report
from connector.sender.report import Asset, Report, asset_from_wire, format_amount, format_rate
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


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        ("USD", "USD"),
        ("[/foo]", "[/foo]"),
        ("U\x1b[2J\nD\x9b\u202e\u2028", "U�[2J�D���"),
        ("x" * 33, "x" * 32 + "…"),
    ],
)
def test_an_asset_code_from_the_wire_is_made_printable_and_short(wire: str, code: str) -> None:
    assert asset_from_wire(wire, 2) == Asset(code, 2)


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize("code", ["[/foo]", "[red]x", "x\\", ":dog:", "x\r\n\x1b[31m", "y" * 255])
def test_a_report_survives_every_asset_code(code: str, complete: bool) -> None:
    asset = asset_from_wire(code, 0)
    report = Report(
        complete=complete,
        reason=None if complete else "F99 from test.node: [/bar] :dog:",
        destination="test.alice",
        source_asset=asset,
        destination_asset=asset,
        sent=5,
        delivered=4,
        in_doubt=0 if complete else 2,
        rate=Fraction(4, 5),
        minimum_rate=Fraction(3, 5),
        packets_fulfilled=1,
        packets_rejected=0,
        rejects={},
        duration_ms=10,
    )
    out = io.StringIO()
    print_report(report, Console(file=out, width=40))
    printed = out.getvalue()
    head = "Paid test.alice" if complete else "Not complete: F99 from test.node: [/bar] :dog:"
    assert printed.splitlines()[0] == head
    assert f"  sent       5 {asset.code} (5 units)\n" in printed
    assert f"  delivered  4 {asset.code} (4 units)\n" in printed
    assert printed.replace("\n", "").isprintable()

    line = msgspec.json.encode(report.as_json()).decode()
    assert line.isprintable()
    assert json.loads(line)["destination_asset"] == {"code": asset.code, "scale": 0}
