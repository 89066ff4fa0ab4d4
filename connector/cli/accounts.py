"""`connector accounts`: balances, what moved them, and what people book by hand."""

from typing import Annotated, Any, Literal

from cyclopts import App, Parameter
from rich.console import Console
from rich.text import Text

from connector.cli.asking import AtNode, NotDone, confirm, print_json, segment
from connector.cli.show import amount, console, print_table, read_amount, read_time, table, when, word
from connector.limits import HISTORY_ROWS_MAX

Flag = Annotated[bool, Parameter(negative="")]

app = App(
    name="accounts", sort_key=4, help="Balances of a running node, what moved them, and settlements by hand."
)

_PACKET_SHOWN = 12
#: Without --node, every command of this group asks the first node of the five-peer network.
_HERE = AtNode()


@app.command(name="list")
def list_accounts(
    *, kind: str = "", asset: str = "", raw: Flag = False, json: Flag = False, at: AtNode = _HERE
) -> int:
    """Print every account with its balance.

    Parameters
    ----------
    kind
        Only those of this kind: peer, local, fees, exchange, settlement, losses.
    asset
        Only those in this asset, as USD or USD/6.
    raw
        Amounts in smallest units.
    json
        Print one JSON object.
    """
    answer = at.get("/api/accounts", kind=kind, asset=asset)
    if json:
        print_json(answer)
    else:
        print_accounts(answer, console(), raw=raw)
    return 0


def print_accounts(answer: dict[str, Any], out: Console, *, raw: bool) -> None:
    """The accounts for people."""
    made = table("kind", "name", "asset", ">net", ">in flight", ">credit limit", ">settle at", "")
    for account in answer["accounts"]:
        made.add_row(
            account["kind"],
            word(account["name"]),
            word(f"{account['asset']['code']}/{account['asset']['scale']}"),
            amount(account["net"], account["asset"], raw=raw),
            _in_flight(account, raw=raw),
            amount(account["credit_limit"], account["asset"], raw=raw) if account["kind"] == "peer" else "",
            _threshold(account, raw=raw),
            _remarks(account),
        )
    print_table(made, out)
    out.print(
        "\nNet is positive when the holder owes us, and negative when we owe the holder; what we earned is"
        "\nthe negative net of fees. In flight: what the holder may come to owe, and to be owed."
    )


def _in_flight(account: dict[str, Any], *, raw: bool) -> str:
    debits, credits = account["debits_pending"], account["credits_pending"]
    if debits == credits == "0":
        return ""
    asset = account["asset"]
    return f"{amount(debits, asset, raw=raw)} / {amount(credits, asset, raw=raw)}"


def _threshold(account: dict[str, Any], *, raw: bool) -> str:
    threshold = account["settle_threshold"]
    return "" if threshold is None else amount(threshold, account["asset"], raw=raw)


def _remarks(account: dict[str, Any]) -> Text:
    remarks = []
    if account["settlement"] == "due":
        remarks.append("settlement is due")
    if account["in_doubt"]:
        remarks.append(f"{account['in_doubt']} in doubt")
    return Text(", ".join(remarks), "yellow")


@app.command
def show(
    name: str, *, kind: str = "", asset: str = "", raw: Flag = False, json: Flag = False, at: AtNode = _HERE
) -> int:
    """Print all that is known of one account.

    Parameters
    ----------
    name
        The peer's or account's name.
    kind
        Which kind, if several accounts have the name.
    asset
        Which asset, as USD or USD/6, if several accounts have the name.
    raw
        Amounts in smallest units.
    json
        Print one JSON object.
    """
    answer = at.get(f"/api/accounts/{segment(name)}", kind=kind, asset=asset)
    if json:
        print_json(answer)
        return 0
    print_account(answer["account"], console(), raw=raw)
    return 0


def print_account(account: dict[str, Any], out: Console, *, raw: bool) -> None:
    """One account for people."""
    asset = account["asset"]

    def line(label: str, key: str, remark: str = "") -> None:
        out.print(f"  {label:<16} {amount(account[key], asset, raw=raw)}{remark}")

    net = int(account["net"])
    has_holder = account["kind"] in ("peer", "local")
    meaning = "" if not net or not has_holder else (" (we are owed)" if net > 0 else " (we owe)")
    out.print(
        Text.assemble(f"{account['kind']} ", word(account["name"]), f" in {asset['code']}/{asset['scale']}")
    )
    line("net", "net", meaning)
    line("debits", "debits_posted")
    line("credits", "credits_posted")
    line("pending debits", "debits_pending")
    line("pending credits", "credits_pending")
    if account["kind"] == "peer":
        line("credit limit", "credit_limit")
        out.print(f"  {'settle at':<16} {_threshold(account, raw=raw) or 'never'}")
    remarks = _remarks(account)
    if remarks.plain:
        out.print(Text.assemble("  ", remarks))


@app.command
def history(
    name: str,
    *,
    kind: str = "",
    asset: str = "",
    limit: int = 20,
    since: str = "",
    until: str = "",
    cursor: str = "",
    raw: Flag = False,
    json: Flag = False,
    at: AtNode = _HERE,
) -> int:
    """Print an account's transfers as the ledger has them, the newest first.

    Parameters
    ----------
    name
        The peer's or account's name.
    kind
        Which kind, if several accounts have the name.
    asset
        Which asset, as USD or USD/6, if several accounts have the name.
    limit
        How many.
    since
        Only those posted from then on: a time such as 2026-01-31T12:00 (UTC), or milliseconds.
    until
        Only those posted up to then.
    cursor
        Go on where the page before ended; it said how.
    raw
        Amounts in smallest units.
    json
        Print one JSON object.
    """
    if not 1 <= limit <= HISTORY_ROWS_MAX:
        raise NotDone(f"--limit: {limit} is not between 1 and {HISTORY_ROWS_MAX}")
    answer = at.get(
        f"/api/accounts/{segment(name)}/history",
        kind=kind,
        asset=asset,
        limit=limit,
        cursor=cursor,
        from_ms=read_time("--since", since) if since else "",
        to_ms=read_time("--until", until) if until else "",
    )
    if json:
        print_json(answer)
    else:
        print_history(answer, console(), raw=raw)
    return 0


def print_history(answer: dict[str, Any], out: Console, *, raw: bool) -> None:
    """A page of history for people."""
    asset = answer["account"]["asset"]
    if not answer["lines"]:
        out.print("The ledger has no transfers for it.")
        return
    made = table("time (UTC)", "what", ">debit", ">credit", "with", "packet", ">net after it")
    for line in answer["lines"]:
        shown = amount(line["amount"], asset, raw=raw)
        is_debit = line["direction"] == "debit"
        balance = line["balance"]
        made.add_row(
            when(line["time_ms"] or line["posted_ms"]),
            line["code"] if line["state"] == "posted" else f"{line['code']}, {line['state']}",
            shown if is_debit else "",
            "" if is_debit else shown,
            _other(line["other"]),
            (line["packet"] or "")[:_PACKET_SHOWN],
            "" if balance is None else amount(balance["net"], asset, raw=raw),
        )
    print_table(made, out)
    if answer["cursor"] is not None:
        out.print(f"\nThere is more: --cursor {answer['cursor']}")


def _other(other: dict[str, Any]) -> Text:
    """An account that its asset has once is called as its kind."""
    kind, name = other["kind"], other["name"]
    return word(name if name == kind else f"{kind} {name}")


@app.command
def settle(
    name: str,
    *,
    amount: str,
    reference: str,
    paid: Flag = False,
    received: Flag = False,
    kind: str = "",
    asset: str = "",
    yes: Flag = False,
    json: Flag = False,
    at: AtNode = _HERE,
) -> int:
    """Book that a debt was paid by other means: by us (--paid) or to us (--received).

    Parameters
    ----------
    name
        The peer's or account's name.
    amount
        In smallest units, or with the asset's code as 1.5USD.
    reference
        What the payment is known by, such as the bank's number: the same is booked once.
    paid
        We paid the peer.
    received
        The peer paid us.
    kind
        Which kind, if several accounts have the name.
    asset
        Which asset, as USD or USD/6, if several accounts have the name.
    yes
        Do not ask.
    json
        Print one JSON object.
    """
    if paid == received:
        raise NotDone("say who paid: --paid (we paid) or --received (the peer paid us)")
    account = at.get(f"/api/accounts/{segment(name)}", kind=kind, asset=asset)["account"]
    units = read_amount(amount, account["asset"])
    shown = _shown(units, account["asset"])
    did = f"we paid {name} {shown}" if paid else f"{name} paid us {shown}"
    confirm(f"Book that {did}, reference {reference!r}?", yes=yes)
    body = {
        "amount": str(units),
        "direction": "paid" if paid else "received",
        "reference": reference,
        "asset": f"{account['asset']['code']}/{account['asset']['scale']}",
        "kind": account["kind"],
    }
    answer = at.post(f"/api/accounts/{segment(name)}/settle", body)
    if json:
        print_json(answer)
        return 0
    out = console()
    if answer["already_booked"]:
        out.print(
            Text.assemble(("Nothing changed", "yellow"), f": reference {reference!r} has been booked already")
        )
    else:
        out.print(Text.assemble(("Booked", "green"), f": {did}"))
    print_account(answer["account"], out, raw=False)
    return 0


def _shown(units: int, asset: dict[str, Any]) -> str:
    return f"{amount(str(units), asset)} ({units} units)"


@app.command(name="in-doubt")
def in_doubt(
    *,
    close: int | None = None,
    side: Literal["incoming", "outgoing"] | None = None,
    owed: Flag = False,
    clear: Flag = False,
    yes: Flag = False,
    raw: Flag = False,
    json: Flag = False,
    at: AtNode = _HERE,
) -> int:
    """Print packets of which nobody knows whether they were paid for; decide one with --close.

    Parameters
    ----------
    close
        The number of a packet, one side of which is decided.
    side
        Which side: incoming (the peer may owe us) or outgoing (we may owe the peer).
    owed
        It is owed: it is posted, against losses.
    clear
        Nothing is owed: what is pending is taken back.
    yes
        Do not ask.
    raw
        Amounts in smallest units.
    json
        Print one JSON object.
    """
    if close is not None:
        return _close(close, side, owed=owed, clear=clear, yes=yes, json=json, at=at)
    if side is not None or owed or clear:
        raise NotDone("--side, --owed and --clear go with --close NUMBER")
    answer = at.get("/api/in-doubt")
    if json:
        print_json(answer)
    else:
        print_doubts(answer, console(), raw=raw)
    return 0


def _close(
    number: int,
    side: Literal["incoming", "outgoing"] | None,
    *,
    owed: bool,
    clear: bool,
    yes: bool,
    json: bool,
    at: AtNode,
) -> int:
    if side is None or owed == clear:
        raise NotDone("say what is decided: --side incoming or outgoing, and --owed or --clear")
    found = [each for each in at.get("/api/in-doubt")["in_doubt"] if each["number"] == number]
    if not found:
        raise NotDone(f"no packet in doubt has number {number}: 'connector accounts in-doubt' lists them")
    about = found[0][side]
    if about is None or about["state"] != "open":
        raise NotDone(f"the {side} side of packet {number} is not in doubt")
    value = amount(about["amount"], about["asset"])
    who = f"{about['peer']} owes us" if side == "incoming" else f"we owe {about['peer']}"
    decided = f"{who} {value}" if owed else f"{who} nothing (of {value})"
    confirm(f"Decide for packet {number} that {decided}?", yes=yes)
    answer = at.post(f"/api/in-doubt/{number}", {"side": side, "owed": owed})
    if json:
        print_json(answer)
        return 0
    out = console()
    out.print(Text.assemble(("Decided", "green"), f": {decided}"))
    print_account(answer["account"], out, raw=False)
    return 0


def print_doubts(answer: dict[str, Any], out: Console, *, raw: bool) -> None:
    """What is in doubt, for people."""
    if not answer["in_doubt"]:
        out.print("No packet is in doubt.")
        return
    for doubt in answer["in_doubt"]:
        out.print(Text.assemble((f"{doubt['number']}", "bold"), f"  packet {doubt['packet']}"))
        for side, meaning in (("incoming", "may owe us"), ("outgoing", "may be owed")):
            about = doubt[side]
            if about is None:
                continue
            states = {"open": meaning, "owed": "is owed" if side == "outgoing" else "owes us"}
            state = states.get(about["state"], "nothing is owed")
            value = amount(about["amount"], about["asset"], raw=raw)
            out.print(Text.assemble(f"   {side}  ", word(about["peer"]), f"  {value}  ", (state, "yellow")))
        out.print(Text.assemble("   ", word(doubt["evidence"])))
    out.print(
        "\nAgree with the peers, then close each side:"
        "\n  connector accounts in-doubt --close NUMBER --side incoming|outgoing --owed|--clear"
    )
