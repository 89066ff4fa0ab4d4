"""Amounts, times and tables for people."""

import re
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from connector.cli.asking import NotDone
from connector.limits import U64_MAX
from connector.sender.report import asset_from_wire, format_amount, printable

#: Wider than any row.
_WIDTH_MAX = 10_000
_AMOUNT = re.compile(r"([0-9]+)(?:\.([0-9]+))?\s*([^0-9.\s]\S*)?").fullmatch


def console() -> Console:
    """Where people read; colours on a terminal only."""
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=True)


def amount(units: str, asset: dict[str, Any], *, raw: bool = False) -> str:
    """`-1.500000 USD`; with `raw`, the smallest units alone."""
    if raw:
        return units
    named = asset_from_wire(str(asset["code"]), int(asset["scale"]))
    sign = "-" if units.startswith("-") else ""
    return sign + format_amount(int(units.removeprefix("-")), named)


def read_amount(text: str, asset: dict[str, Any]) -> int:
    """Smallest units from `1500000` or, with its asset's code, `1.5USD`. Raises NotDone."""
    match = _AMOUNT(text.replace("_", ""))
    code, scale = str(asset["code"]), int(asset["scale"])
    example = f"write smallest units such as {15 * 10 ** max(0, scale - 1)}, or an amount such as 1.5{code}"
    if match is None or (match[2] and not match[3]):
        raise NotDone(f"--amount {text}: {example}")
    whole, fraction, unit = match[1], match[2] or "", match[3]
    if unit is not None:
        if unit != code:
            raise NotDone(f"--amount {text}: this account is in {code}")
        if len(fraction.rstrip("0")) > scale:
            raise NotDone(f"--amount {text}: {code} has {scale} decimal places here")
        units = int(whole + fraction.rstrip("0").ljust(scale, "0"))
    else:
        units = int(whole)
    if not 1 <= units <= U64_MAX:
        raise NotDone(f"--amount {text}: not between 1 and {U64_MAX} smallest units")
    return units


def when(wall_ms: int | None) -> str:
    """`2026-01-31 12:00:00.123`, in UTC."""
    if wall_ms is None:
        return ""
    moment = datetime.fromtimestamp(wall_ms / 1000, UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S.") + f"{wall_ms % 1000:03d}"


def read_time(option: str, text: str) -> int:
    """Milliseconds from `2026-01-31`, `2026-01-31T12:00`, with a zone or in UTC, or from milliseconds."""
    if text.isascii() and text.isdecimal():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise NotDone(f"{option} {text}: write a time such as 2026-01-31T12:00, in UTC") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def table(*headings: str) -> Table:
    """A table without lines; a heading that begins with `>` is that of a column of numbers."""
    made = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for heading in headings:
        right = heading.startswith(">")
        made.add_column(heading.removeprefix(">"), justify="right" if right else "left", no_wrap=True)
    return made


def print_table(made: Table, out: Console) -> None:
    """The whole table, however wide: what does not fit is for the terminal to wrap, never cut."""
    wide = Console(file=out.file, width=_WIDTH_MAX, highlight=False, markup=False, emoji=False)
    width = Measurement.get(wide, wide.options, made).maximum
    wide.print(made, width=width)


def word(text: object) -> Text:
    """Words of others, which steer no terminal."""
    return Text(printable(str(text)))
