"""`connector doctor`: whether a running node's books are right."""

from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.text import Text

from connector.cli.asking import AtNode, print_json
from connector.cli.show import console, word

_COLOURS = {"ok": "green", "warning": "yellow", "error": "red"}
_HERE = AtNode()


def doctor(*, json: Annotated[bool, Parameter(negative="")] = False, at: AtNode = _HERE) -> int:
    """Examine the books of a running node; exit status 1 if something is wrong. Changes nothing.

    Debits against credits, the book against journal and ledger, disk and
    journal, packets in doubt, and totals against those of connected peers.

    Parameters
    ----------
    json
        Print one JSON object.
    """
    report = at.get("/api/doctor")
    if json:
        print_json(report)
    else:
        print_report(report, console())
    return 0 if report["ok"] else 1


def print_report(report: dict[str, Any], out: Console) -> None:
    """The report for people."""
    width = max(len(check["name"]) for check in report["checks"])
    for check in report["checks"]:
        result = Text(f"{check['result']:<7}", _COLOURS[check["result"]])
        out.print(Text.assemble(result, f"  {check['name']:<{width}}  ", _long(check["explanation"])))
        if check["advice"]:
            out.print(Text.assemble(" " * (11 + width), _long(check["advice"])))
    wrong = [check for check in report["checks"] if check["result"] != "ok"]
    said = "all is well" if not wrong else ("see the warnings" if report["ok"] else "something is wrong")
    out.print(Text.assemble("\n", word(report["node"]), f": {len(report['checks'])} checks, {said}"))


def _long(text: str) -> Text:
    return Text("".join(character if character.isprintable() else "�" for character in text))
