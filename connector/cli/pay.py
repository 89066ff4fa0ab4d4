"""`connector pay`: send money to a payment pointer, a URL or an ILP address."""

import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec
import trio
from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from connector.cli.via import Via, first_line
from connector.errors import ConnectorError, PaymentError
from connector.limits import PAYMENT_TIMEOUT_S, U64_MAX
from connector.protocol.address import is_address
from connector.sender import stream_client
from connector.sender.controller import Terms
from connector.sender.report import Asset, Report, format_amount, format_rate
from connector.sender.stream_client import Receiver

_INCOMPLETE = 1


def pay(
    receiver: str,
    amount: int,
    *,
    link: Via,
    deliver: Annotated[bool, Parameter(negative="")] = False,
    send_max: int | None = None,
    min_rate: str | None = None,
    slippage: str = "0.01",
    packet_max: int = U64_MAX,
    secret: Annotated[str | None, Parameter(env_var="CONNECTOR_SECRET")] = None,
    secret_file: Path | None = None,
    timeout: float = PAYMENT_TIMEOUT_S,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Send money over Interledger, and report exactly what became of it.

    The exit status is 0 only when the payment is complete.

    Parameters
    ----------
    receiver
        Whom to pay: a payment pointer ('$host/name', quoted for the shell), an http(s) URL of an
        SPSP endpoint, or with a shared secret an ILP address.
    amount
        How much to send, in the smallest units of our own asset.
    deliver
        AMOUNT is what has to arrive instead, in the smallest units of the receiver's asset. It needs
        a limit: --send-max, --min-rate or both.
    send_max
        With --deliver: send no more than this in all, in units of our own asset.
    min_rate
        Least units to arrive for each unit sent: 0.99 or 99/100. Else the measured rate less --slippage,
        and nothing is sent at a measured rate below 0.9 when the receiver's asset is our own.
    slippage
        How much worse than the measured rate a packet may be: 0.01 is 1 %.
    packet_max
        Send no packet larger than this, in units of our own asset.
    secret
        The shared secret, base64, when RECEIVER is an ILP address. Others on this machine can see
        arguments: prefer --secret-file.
    secret_file
        File whose first line is the shared secret.
    timeout
        Seconds after which to stop with what was done.
    json
        Print one JSON object, amounts as decimal strings.
    """
    terms = Terms(
        amount=_positive("AMOUNT", amount),
        fixed_delivery=deliver,
        send_max=_send_max(send_max, deliver=deliver, limited=min_rate is not None),
        minimum_rate=None if min_rate is None else _ratio("--min-rate", min_rate),
        slippage=_slippage(slippage),
        packet_max=_positive("--packet-max", packet_max),
    )
    if secret_file is not None:
        secret = first_line("--secret-file", secret_file)
    report = trio.run(_pay, receiver, secret, link, terms, timeout, json)
    if json:
        print(msgspec.json.encode(report.as_json()).decode())
    else:
        print_report(report, Console(highlight=False))
    return 0 if report.complete else _INCOMPLETE


def _positive(name: str, amount: int) -> int:
    if not 0 < amount <= U64_MAX:
        raise PaymentError(f"{name}: {amount} is not between 1 and {U64_MAX}")
    return amount


def _send_max(units: int | None, *, deliver: bool, limited: bool) -> int:
    if units is not None and not deliver:
        raise PaymentError("--send-max goes with --deliver; without it AMOUNT itself is the most to send")
    if units is not None:
        return _positive("--send-max", units)
    if deliver and not limited:
        raise PaymentError("--deliver alone would pay any price: add --send-max UNITS or --min-rate RATE")
    return U64_MAX


def _ratio(name: str, text: str) -> Fraction:
    try:
        ratio = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise PaymentError(f"{name}: {text!r} is no number such as 0.99 or 99/100") from None
    if ratio < 0:
        raise PaymentError(f"{name}: {text} is below 0")
    return ratio


def _slippage(text: str) -> Fraction:
    ratio = _ratio("--slippage", text)
    if ratio > 1:
        raise PaymentError(f"--slippage: {text} is more than 1; 0.01 is 1 %")
    return ratio


async def resolve(receiver: str, secret: str | None) -> Receiver:
    """Where to pay. Raises PaymentError, Unavailable."""
    # httpx takes a tenth of a second to import: only who asks over HTTP pays for it.
    from connector.sender import spsp_client

    if is_address(receiver):
        if secret is None:
            raise PaymentError(f"{receiver} is an ILP address: --secret-file has to come with it")
        return Receiver(receiver, spsp_client.read_secret(secret))
    if secret is not None:
        raise PaymentError("a shared secret goes with an ILP address; an SPSP endpoint gives its own")
    return await spsp_client.query(receiver)


async def _pay(
    receiver: str,
    secret: str | None,
    link: Via,
    terms: Terms,
    timeout_s: float,
    json: bool,
) -> Report:
    where = await resolve(receiver, secret)
    show = sys.stderr.isatty() and not json
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %  {task.fields[packets]}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=not show,
        transient=True,
    )
    task = bar.add_task("measuring the rate", total=terms.amount, packets="")

    def on_progress(step: stream_client.Progress) -> None:
        packets = f"{step.packets_fulfilled} packets" + (
            f", {step.packets_rejected} rejected" if step.packets_rejected else ""
        )
        bar.update(task, completed=step.done, description="paying", packets=packets)

    async with link.connect() as uplink:
        with bar, trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            return await _interruptible(
                signals,
                lambda interrupt: stream_client.pay(
                    uplink,
                    where,
                    terms,
                    timeout_s=timeout_s,
                    on_progress=on_progress,
                    interrupt=interrupt,
                ),
            )


async def _interruptible(
    signals: AsyncIterator[int],
    run: Callable[[trio.Event], Awaitable[Report]],
) -> Report:
    """The first Ctrl-C stops sending and still reports; a second one does not wait."""
    interrupt = trio.Event()
    result: Report | ConnectorError = PaymentError("interrupted: what was in flight is not known")

    async def heed() -> None:
        async for _ in signals:
            if interrupt.is_set():
                nursery.cancel_scope.cancel()
            interrupt.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(heed)
        # Errors leave the nursery as they are, not as the group that trio would make of them.
        try:
            result = await run(interrupt)
        except ConnectorError as error:
            result = error
        nursery.cancel_scope.cancel()
    if isinstance(result, ConnectorError):
        raise result
    return result


def print_report(report: Report, console: Console) -> None:
    """The report for people."""
    # Words of other nodes are in it: nothing in them is markup.
    say = partial(console.print, markup=False, emoji=False, highlight=False, soft_wrap=True)
    source, destination = report.source_asset, report.destination_asset
    if report.complete:
        say(Text.assemble(("Paid", "green"), f" {report.destination}"))
    else:
        say(Text.assemble(("Not complete", "red"), f": {report.reason or 'unknown'}"))
        say(f"  to         {report.destination}")
    say(f"  sent       {_amount(report.sent, source)}")
    say(f"  delivered  {_amount(report.delivered, destination)}")
    if report.fees is not None and report.sent:
        share = 100 * report.fees / report.sent
        say(f"  fees       {_amount(report.fees, source)}, {share:.3g} %")
    if report.in_doubt:
        in_doubt = f"   {_amount(report.in_doubt, source)}: no reply came for it"
        say(Text.assemble("  ", ("in doubt", "yellow"), in_doubt))
    if report.rate is not None:
        rate = format_rate(report.effective_rate) or "none"
        say(
            f"  rate       {rate} (measured {format_rate(report.rate)}, "
            f"minimum {format_rate(report.minimum_rate)})",
        )
    say(f"  packets    {report.packets_fulfilled} fulfilled{_rejects(report.rejects)}")
    say(f"  took       {report.duration_ms / 1000:.2f} s")


def _amount(amount: int, asset: Asset | None) -> str:
    units = f"{amount} unit" + ("" if amount == 1 else "s")
    return units if asset is None else f"{format_amount(amount, asset)} ({units})"


def _rejects(rejects: dict[str, int]) -> str:
    if not rejects:
        return ", 0 rejected"
    by_code = ", ".join(f"{count} × {code}" for code, count in rejects.items())
    return f", {sum(rejects.values())} rejected ({by_code})"
