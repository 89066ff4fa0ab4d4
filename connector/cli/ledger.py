"""`connector ledger`: how a running node's ledger does, and what mends it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import trio
from cyclopts import App, Parameter
from rich.console import Console
from rich.text import Text

from connector.cli.asking import AtNode, NotDone, confirm, print_json
from connector.cli.show import amount, console, print_table, table, when, word
from connector.config import load_file

if TYPE_CHECKING:
    from connector.config.schema import NodeConfig
    from connector.core.book import Book
    from connector.ledger.rebuild import Plan

Flag = Annotated[bool, Parameter(negative="")]

app = App(name="ledger", sort_key=6, help="The ledger behind a node: its state, and what mends it.")

_COLOURS = {"healthy": "green", "degraded": "yellow", "refusing": "red"}
_HERE = AtNode()


@app.command
def status(*, json: Flag = False, at: AtNode = _HERE) -> int:
    """Print what the ledger is, whether it is reached, and how far it is behind the journal.

    Parameters
    ----------
    json
        Print one JSON object.
    """
    answer = at.get("/api/ledger")
    if json:
        print_json(answer)
    else:
        print_status(answer, console())
    return 0


def print_status(answer: dict[str, Any], out: Console) -> None:
    """The state for people."""
    unposted = answer["unposted"]
    state = answer["state"]
    out.print(Text.assemble(word(answer["node"]), ": ", word(answer["ledger"] or "no ledger")))
    out.print(Text.assemble("  state     ", (state, _COLOURS.get(state, ""))))
    if answer["reason"]:
        out.print(f"  reason    {answer['reason']}")
    out.print(f"  posted    up to entry {answer['posted']}")
    behind = f"{unposted['entries']} entries"
    if unposted["entries"]:
        behind += f", about {unposted['octets']} octets, the oldest {unposted['age_ms'] / 1000:.1f} s old"
    out.print(f"  unposted  {behind}")
    out.print(f"  answered  {answer['transfers']} transfers in {answer['requests']} requests since the start")


@app.command(name="open")
def open_ledger(*, yes: Flag = False, json: Flag = False, at: AtNode = _HERE) -> int:
    """Confirm that an empty ledger is meant to be new: it is then opened with the journal's balances.

    Parameters
    ----------
    yes
        Do not ask.
    json
        Print one JSON object.
    """
    there = at.get("/api/ledger")
    if there["state"] == "healthy":
        raise NotDone("the ledger is open already")
    confirm(
        f"Fill {there['ledger'] or 'the ledger'}, if it is empty, with the balances of {there['node']}?",
        yes=yes,
    )
    answer = at.post("/api/ledger/open", {})
    if json:
        print_json(answer)
    else:
        print(
            f"Confirmed: tried again within {answer['retried_within_s']:g} s. See 'connector ledger status'."
        )
    return 0


@app.command
def repair(*, yes: Flag = False, json: Flag = False, at: AtNode = _HERE) -> int:
    """Void what is pending in the ledger and known to no journal, as 'connector doctor' finds it.

    Parameters
    ----------
    yes
        Do not ask.
    json
        Print one JSON object.
    """
    confirm("Void every transfer that is pending in the ledger, and that this node does not know?", yes=yes)
    answer = at.post("/api/ledger/repair", {})
    if json:
        print_json(answer)
        return 0
    out = console()
    if not answer["voided"]:
        out.print("Nothing was pending that the node does not know.")
        return 0
    made = table("time (UTC)", "packet", ">units", "debited", "credited")
    for each in answer["voided"]:
        made.add_row(
            when(each["time_ms"]), each["packet"], each["amount"], word(each["debit"]), word(each["credit"])
        )
    print_table(made, out)
    out.print(f"\n{len(answer['voided'])} transfers were voided.")
    return 0


@app.command
def rebuild(config: Path, *, yes: Flag = False, json: Flag = False) -> int:
    """Make a new journal from the ledger's balances, for a node whose journal was lost. The node is stopped.

    Entries that the lost journal held and the ledger does not are gone. What
    is pending in the ledger is voided. A journal that is there is kept beside
    the new one.

    Parameters
    ----------
    config
        The node's configuration file.
    yes
        Do not ask.
    json
        Print one JSON object.
    """
    loaded = load_file(config)
    if loaded.journal.sync == "off":
        raise NotDone(f"{config}: journal.sync is off: there is no journal to make")
    return trio.run(_rebuild, loaded, yes, json)


async def _rebuild(config: "NodeConfig", yes: bool, json: bool) -> int:
    from connector.ledger import rebuild as work
    from connector.ledger.store import lock_directory
    from connector.node.books import LEDGER_FILE, ledger_of

    assert config.node.state_dir is not None, "the loader fills it in"
    directory = Path(config.node.state_dir)
    if config.ledger.replicas is None and not (directory / LEDGER_FILE).exists():
        raise NotDone(
            f"{directory / LEDGER_FILE}: there is no ledger; restore it, or, if there have never been "
            "balances, just start the node"
        )
    holders = work.holders_of(
        [(peer.name, peer.asset) for peer in config.peers],
        [(account.name, account.asset) for account in config.accounts],
    )
    there = work.book_there(directory, config.node.address)
    with work.held(lock_directory(directory)):
        name, open_ledger = ledger_of(config)
        ledger = await open_ledger()
        try:
            plan = await work.plan(ledger, config.node.address, holders)
            out = console()
            if not json:
                print_plan(plan, name, out)
                print_given_up(plan, there, out)
            confirm(f"Make a new journal in {directory} from this?", yes=yes)
            done = await work.carry_out(plan, ledger, directory, config.journal.sync)
        finally:
            await ledger.aclose()
    if json:
        accounts = [
            {"kind": row.kind.word, "name": row.name, "asset": row.asset, "net": str(row.net)}
            for row in plan.book.accounts()
        ]
        voided = [{"transfer": f"{each.id:032x}", "amount": str(each.amount)} for each in plan.orphans]
        print_json({"accounts": accounts, "voided": voided, "kept": None if done is None else str(done)})
    else:
        kept = "" if done is None else f"; the journal that was there is {done}"
        out.print(Text.assemble(("Rebuilt", "green"), f": start the node, then run 'connector doctor'{kept}"))
    return 0


def print_given_up(plan: "Plan", there: "Book | None", out: Console) -> None:
    """What a journal that is there knows otherwise, for people."""
    if there is None:
        return
    ledger = {(row.kind, row.name, row.asset): row.net for row in plan.book.accounts()}
    made = table("kind", "name", "asset", ">net in the journal", ">in the ledger")
    for row in there.accounts():
        net = ledger.get((row.kind, row.name, row.asset), 0)
        if net != row.net:
            asset = {"code": row.asset.code, "scale": row.asset.scale}
            nets = amount(str(row.net), asset), amount(str(net), asset)
            made.add_row(row.kind.word, word(row.name), word(str(row.asset)), *nets)
    if made.row_count:
        out.print(
            "The journal that is there says otherwise. What it has, and the ledger has not, is given up:\n"
        )
        print_table(made, out)
        out.print()


def print_plan(plan: "Plan", name: str, out: Console) -> None:
    """What would be done, for people."""
    out.print(f"{name} holds, for {plan.node}:\n")
    made = table("kind", "name", "asset", ">debits", ">credits", ">net")
    for row in plan.book.accounts():
        asset = {"code": row.asset.code, "scale": row.asset.scale}
        amounts = (row.debits_posted, row.credits_posted, row.net)
        shown = [amount(str(units), asset) for units in amounts]
        made.add_row(row.kind.word, word(row.name), word(str(row.asset)), *shown)
    print_table(made, out)
    if plan.orphans:
        out.print(
            f"\n{len(plan.orphans)} transfers are pending, whose end only the lost journal knew; voided:\n"
        )
        made = table("time (UTC)", "packet", ">units", "debited", "credited")
        for each in plan.orphans:
            made.add_row(
                when(each.user_data_64),
                each.user_data_128.to_bytes(16, "little").hex(),
                str(each.amount),
                word(plan.name_of(each.debit_account_id)),
                word(plan.name_of(each.credit_account_id)),
            )
        print_table(made, out)
    out.print()
