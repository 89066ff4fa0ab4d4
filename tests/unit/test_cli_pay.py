"""`connector pay` and `connector ping`: arguments in, a report worth reading and an exit status out."""

import json
import sys
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cyclopts import App

from connector.cli.pay import pay
from connector.cli.ping import ping
from connector.cli.via import Via
from connector.errors import PaymentError
from connector.protocol import ildcp, ilp
from connector.receiver.stream_server import StreamServer
from connector.sender.controller import SAME_ASSET_RATE_MIN
from connector.sender.uplink import Uplink

SERVER = StreamServer(bytes(range(32)), "test.node.alice", "USD", 6)
DESTINATION, SECRET = SERVER.generate_credentials(bytes(18))
LINK = ("--via", "ws://127.0.0.1:7701", "--token", "t")
WITH_SECRET = ("--secret", b64encode(SECRET).decode())

app = App()
app.command(pay)
app.command(ping)


class Wire:
    """An uplink to SERVER that keeps 4 in 1000."""

    sent = 0

    async def send(self, packet: bytes, *, timeout_s: float) -> bytes:
        prepare = ilp.decode_prepare(packet)
        if prepare.destination == ildcp.DESTINATION:
            return ilp.encode_fulfill(ildcp.reply(ildcp.ChildConfig("test.node.me", 6, "USD")))
        self.sent += 1
        arrived = ilp.decode_prepare(
            ilp.rewrite_prepare(packet, prepare, prepare.amount * 996 // 1000, prepare.expires_at_ms)
        )
        reply = SERVER.handle(arrived, self.sent.to_bytes(12, "big"))
        return ilp.encode_fulfill(reply) if isinstance(reply, ilp.Fulfill) else ilp.encode_reject(reply)


@pytest.fixture(autouse=True)
def wire(monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def connect(link: Via) -> AsyncIterator[Uplink]:
        assert link.via == "ws://127.0.0.1:7701"
        yield Wire()

    monkeypatch.setattr(Via, "connect", connect)


def run(*arguments: str) -> int:
    status = app(arguments, result_action="return_value")
    assert isinstance(status, int)
    return status


def test_a_payment_prints_what_left_arrived_and_was_kept(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("pay", DESTINATION, "1000", *WITH_SECRET, *LINK) == 0
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[:6] == [
        f"Paid {DESTINATION}",
        "  sent       0.001000 USD (1000 units)",
        "  delivered  0.000996 USD (996 units)",
        "  fees       0.000004 USD (4 units), 0.4 %",
        "  rate       0.996 (measured 0.996, minimum 0.98604)",
        "  packets    1 fulfilled, 0 rejected",
    ]
    assert lines[6].startswith("  took       0.")


def test_json_is_one_object_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("pay", DESTINATION, "5000", "--packet-max", "1000", "--json", *WITH_SECRET, *LINK) == 0
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    report = json.loads(printed)
    assert (report["sent"], report["delivered"], report["packets_fulfilled"]) == ("5000", "4980", 5)


def test_an_incomplete_payment_says_why_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("pay", DESTINATION, "1000", "--min-rate", "999/1000", *WITH_SECRET, *LINK) == 1
    out = capsys.readouterr().out
    assert out.startswith("Not complete: the rate is 0.996, below the minimum of 0.999\n")


def test_deliver_means_what_arrives(capsys: pytest.CaptureFixture[str]) -> None:
    most = ("--send-max", "100100")
    assert run("pay", DESTINATION, "99600", "--deliver", *most, "--json", *WITH_SECRET, *LINK) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["sent"], report["delivered"]) == ("100001", "99600")


@pytest.mark.parametrize("limit", [("--send-max", "100099"), ("--min-rate", "0.9961")])
def test_a_delivery_above_its_limit_is_not_begun(
    capsys: pytest.CaptureFixture[str], limit: tuple[str, str]
) -> None:
    assert run("pay", DESTINATION, "99700", "--deliver", *limit, "--json", *WITH_SECRET, *LINK) == 1
    assert json.loads(capsys.readouterr().out)["sent"] == "0"


def test_the_help_says_the_least_rate_between_equal_assets() -> None:
    assert f"at a measured rate below {float(SAME_ASSET_RATE_MIN)} when" in (pay.__doc__ or "")


def test_an_asset_code_that_is_markup_does_not_lose_the_report(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = StreamServer(bytes(range(32)), "test.node.alice", "[/foo]\x1b[2J", 6)
    monkeypatch.setattr(sys.modules[__name__], "SERVER", hostile)
    assert run("pay", DESTINATION, "1000", *WITH_SECRET, *LINK) == 0
    assert "  delivered  0.000996 [/foo]�[2J (996 units)\n" in capsys.readouterr().out
    assert run("pay", DESTINATION, "1000", "--json", *WITH_SECRET, *LINK) == 0
    printed = capsys.readouterr().out
    assert printed.removesuffix("\n").isprintable()
    assert json.loads(printed)["destination_asset"] == {"code": "[/foo]�[2J", "scale": 6}


def test_the_shared_secret_need_not_be_an_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret"
    path.write_text(f"{WITH_SECRET[1]} \nnot this\n")
    assert run("pay", DESTINATION, "1000", "--secret-file", str(path), "--json", *LINK) == 0
    monkeypatch.setenv("CONNECTOR_SECRET", WITH_SECRET[1])
    assert run("pay", DESTINATION, "1000", "--json", *LINK) == 0
    with pytest.raises(PaymentError, match=r"^--secret-file .*missing: No such file"):
        run("pay", DESTINATION, "1000", "--secret-file", str(tmp_path / "missing"), *LINK)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("pay", DESTINATION, "5"), "--secret-file has to come with it"),
        (("pay", "https://a.example", "5", *WITH_SECRET), "a shared secret goes with an ILP address"),
        (("pay", DESTINATION, "5", "--deliver", *WITH_SECRET), "add --send-max UNITS or --min-rate"),
        (("pay", DESTINATION, "5", "--send-max", "9", *WITH_SECRET), "--send-max goes with --deliver"),
        (("pay", DESTINATION, "5", "--deliver", "--send-max", "0"), "--send-max: 0 is not between 1 and"),
        (("pay", "alice", "5"), "neither a payment pointer"),
        (("pay", DESTINATION, "0", *WITH_SECRET), "AMOUNT: 0 is not between 1 and"),
        (("pay", DESTINATION, "5", "--min-rate", "x", *WITH_SECRET), "--min-rate: 'x' is no number"),
        (("pay", DESTINATION, "5", "--slippage", "2", *WITH_SECRET), "--slippage: 2 is more than 1"),
        (("ping", "alice"), "'alice' is not an ILP address"),
        (("ping", "test.alice", "--count", "0"), "--count: 0 is not between 1 and"),
    ],
)
def test_arguments_that_cannot_be_used_are_explained(arguments: tuple[str, ...], reason: str) -> None:
    with pytest.raises(PaymentError) as caught:
        run(*arguments, *LINK)
    assert reason in str(caught.value)


def test_ping_fails_unless_every_probe_reached(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("ping", "test.node.alice", "--count", "2", "--interval", "0", "--json", *LINK) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["sent"], summary["reached"], summary["pongs"][0]["code"]) == (2, 2, "F06")
    assert run("ping", "test.node.bob", "--count", "1", *LINK) == 1
    assert "test.node.bob: 0 of 1 probes reached it" in capsys.readouterr().out


def test_a_token_comes_from_a_file_its_first_line_alone(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("s3cret \nnot this\n")
    assert Via(via="ws://x", token="other", token_file=path).read_token() == "s3cret"
    assert Via(via="ws://x", token="other").read_token() == "other"
    assert Via(via="ws://x").read_token() == ""
    with pytest.raises(PaymentError, match="No such file"):
        Via(via="ws://x", token_file=tmp_path / "missing").read_token()
