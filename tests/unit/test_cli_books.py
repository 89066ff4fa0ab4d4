"""`connector accounts`, `doctor` and `ledger`: what people read, and what is asked of the node for it."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App

from connector.cli import accounts, ledger
from connector.cli.asking import AtNode, NotDone
from connector.cli.doctor import doctor
from connector.cli.show import read_amount, read_time
from connector.errors import ConnectorError, Unavailable

USD = {"code": "USD", "scale": 6}
BOB = {
    "name": "bob",
    "kind": "peer",
    "asset": USD,
    "debits_posted": "500000",
    "credits_posted": "2000000",
    "debits_pending": "7",
    "credits_pending": "0",
    "net": "-1500000",
    "credit_limit": "1000000000",
    "settle_threshold": "1000000",
    "settlement": "due",
    "in_doubt": 2,
}
DOUBT = {
    "number": 7,
    "packet": "ab" * 16,
    "prepared_ms": 1,
    "since_ms": 2,
    "incoming": {"peer": "alice", "asset": USD, "amount": "1000", "state": "open"},
    "outgoing": {"peer": "bob", "asset": USD, "amount": "999", "state": "owed"},
    "evidence": "a valid Fulfill was received from bob",
}

app = App()
app.command(accounts.app)
app.command(ledger.app)
app.command(doctor)


class FakeNode:
    """Answers by path, and remembers what it was asked to change."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {
            "/api/accounts": {"node": "n", "address": "test.n", "accounts": [BOB]},
            "/api/accounts/bob": {"node": "n", "account": BOB},
            "/api/in-doubt": {"node": "n", "in_doubt": [DOUBT]},
        }
        self.queries: list[dict[str, str | int]] = []
        self.posted: list[tuple[str, Any]] = []


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> FakeNode:
    fake = FakeNode()

    def get(at: AtNode, path: str, **query: str | int) -> Any:
        fake.queries.append({key: value for key, value in query.items() if value != ""})
        return fake.answers[path]

    def post(at: AtNode, path: str, body: Any) -> Any:
        fake.posted.append((path, body))
        return fake.answers["POST " + path]

    monkeypatch.setattr(AtNode, "get", get)
    monkeypatch.setattr(AtNode, "post", post)
    return fake


def run(*arguments: str) -> int:
    status = app(arguments, result_action="return_value")
    assert isinstance(status, int)
    return status


def rows(text: str) -> list[list[str]]:
    """The columns of each line of a table."""
    return [[part.strip() for part in line.split("   ") if part.strip()] for line in text.splitlines()]


def test_accounts_are_shown_in_their_asset_and_none_is_cut(
    node: FakeNode, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert run("accounts", "list", "--kind", "peer") == 0
    heading, bob, *_ = rows(capsys.readouterr().out)
    assert heading == ["kind", "name", "asset", "net", "in flight", "credit limit", "settle at"]
    assert bob == [
        "peer",
        "bob",
        "USD/6",
        "-1.500000 USD",
        "0.000007 USD / 0.000000 USD",
        "1000.000000 USD",
        "1.000000 USD",
        "settlement is due, 2 in doubt",
    ]
    assert node.queries == [{"kind": "peer"}]
    assert run("accounts", "list", "--raw") == 0
    assert rows(capsys.readouterr().out)[1][3:7] == ["-1500000", "7 / 0", "1000000000", "1000000"]


def test_json_is_what_the_node_said(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("accounts", "show", "bob", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"node": "n", "account": BOB}


def test_one_account_says_who_owes(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("accounts", "show", "bob") == 0
    out = capsys.readouterr().out
    assert "peer bob in USD/6\n  net              -1.500000 USD (we owe)\n" in out
    assert "  settle at        1.000000 USD\n" in out


def test_history_names_direction_state_and_what_is_left(
    node: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    line = {
        "time_ms": 1_767_225_600_123,
        "posted_ms": 1_767_225_600_500,
        "transfer": "00",
        "packet": "cd" * 16,
        "settlement": None,
        "amount": "1000",
        "direction": "debit",
        "code": "packet",
        "state": "voided",
        "other": {"kind": "peer", "name": "alice"},
        "balance": {"net": "-1500000"},
    }
    plain = {**line, "state": "posted", "code": "fee", "direction": "credit", "packet": None, "balance": None}
    other = {**plain, "other": {"kind": "fees", "name": "fees"}}
    node.answers["/api/accounts/bob/history"] = {"account": BOB, "lines": [line, other], "cursor": "55"}
    assert run("accounts", "history", "bob", "--since", "2026-01-01", "--limit", "2") == 0
    out = capsys.readouterr().out
    assert rows(out)[1:3] == [
        [
            "2026-01-01 00:00:00.123",
            "packet, voided",
            "0.001000 USD",
            "peer alice",
            "cdcdcdcdcdcd",
            "-1.500000 USD",
        ],
        ["2026-01-01 00:00:00.123", "fee", "0.001000 USD", "fees"],
    ]
    assert "There is more: --cursor 55" in out
    assert node.queries == [{"limit": 2, "from_ms": 1_767_225_600_000}]


def test_nothing_is_booked_that_nobody_said_yes_to(node: FakeNode) -> None:
    with pytest.raises(NotDone, match=r"we paid bob 0.500000 USD \(500000 units\).*\n.*repeat it with --yes"):
        run("accounts", "settle", "bob", "--amount", "0.5USD", "--paid", "--reference", "r")
    with pytest.raises(NotDone, match=r"--paid .* or --received"):
        run("accounts", "settle", "bob", "--amount", "1", "--reference", "r", "--yes")
    with pytest.raises(NotDone, match="Nothing was done"):
        run("ledger", "repair")
    assert node.posted == []


@pytest.mark.parametrize(("already", "says"), [(False, "Booked: bob paid us"), (True, "Nothing changed")])
def test_a_settlement_says_what_was_booked(
    node: FakeNode, capsys: pytest.CaptureFixture[str], already: bool, says: str
) -> None:
    node.answers["POST /api/accounts/bob/settle"] = {"already_booked": already, "account": BOB}
    assert (
        run("accounts", "settle", "bob", "--amount", "12", "--received", "--reference", "r 1", "--yes") == 0
    )
    assert capsys.readouterr().out.startswith(says)
    body = {"amount": "12", "direction": "received", "reference": "r 1", "asset": "USD/6", "kind": "peer"}
    assert node.posted == [("/api/accounts/bob/settle", body)]


def test_what_is_in_doubt_is_shown_with_its_evidence_and_closed(
    node: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("accounts", "in-doubt") == 0
    out = capsys.readouterr().out
    assert "   incoming  alice  0.001000 USD  may owe us\n" in out
    assert "   outgoing  bob  0.000999 USD  is owed\n" in out
    assert "   a valid Fulfill was received from bob\n" in out
    with pytest.raises(NotDone, match="the outgoing side of packet 7 is not in doubt"):
        run("accounts", "in-doubt", "--close", "7", "--side", "outgoing", "--owed", "--yes")
    with pytest.raises(NotDone, match="say what is decided"):
        run("accounts", "in-doubt", "--close", "7", "--side", "incoming", "--yes")
    with pytest.raises(NotDone, match="go with --close"):
        run("accounts", "in-doubt", "--owed")
    node.answers["POST /api/in-doubt/7"] = {"account": BOB}
    assert run("accounts", "in-doubt", "--close", "7", "--side", "incoming", "--clear", "--yes") == 0
    assert node.posted == [("/api/in-doubt/7", {"side": "incoming", "owed": False})]
    assert "Decided: alice owes us nothing (of 0.001000 USD)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("result", "status", "said"),
    [("ok", 0, "all is well"), ("warning", 0, "see the warnings"), ("error", 1, "something is wrong")],
)
def test_the_doctor_exits_with_what_it_found(
    node: FakeNode, capsys: pytest.CaptureFixture[str], result: str, status: int, said: str
) -> None:
    check = {"name": "disk", "result": result, "explanation": "as it is", "advice": "make room"}
    node.answers["/api/doctor"] = {"node": "n", "ok": result != "error", "checks": [check]}
    assert run("doctor") == status
    out = capsys.readouterr().out
    assert out == f"{result:<7}  disk  as it is\n{' ' * 15}make room\n\nn: 1 checks, {said}\n"


def test_the_ledger_says_how_far_it_is_behind(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    node.answers["/api/ledger"] = {
        "node": "n",
        "ledger": "the embedded ledger in x",
        "state": "degraded",
        "reason": "gone",
        "posted": 5,
        "unposted": {"entries": 3, "octets": 120, "age_ms": 1500},
        "requests": 1,
        "transfers": 2,
    }
    assert run("ledger", "status") == 0
    out = capsys.readouterr().out
    assert "  state     degraded\n  reason    gone\n  posted    up to entry 5\n" in out
    assert "  unposted  3 entries, about 120 octets, the oldest 1.5 s old\n" in out
    node.answers["POST /api/ledger/open"] = {"confirmed": True, "retried_within_s": 30.0}
    assert run("ledger", "open", "--yes") == 0
    assert "within 30 s" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "units"),
    [("1", 1), ("1_000", 1000), ("1.5USD", 1_500_000), ("2 USD", 2_000_000), ("0.10USD", 100_000)],
)
def test_amounts_are_smallest_units_or_carry_their_asset(text: str, units: int) -> None:
    assert read_amount(text, USD) == units


@pytest.mark.parametrize("text", ["", "1.5", "-1", "0", "1.5EUR", "0.0000001USD", "USD", "1e3", str(2**64)])
def test_other_amounts_are_refused(text: str) -> None:
    with pytest.raises(NotDone, match="--amount"):
        read_amount(text, USD)


def test_times_are_in_utc_or_milliseconds() -> None:
    assert read_time("--since", "1767225600000") == read_time("--since", "2026-01-01") == 1_767_225_600_000
    assert read_time("--since", "2026-01-01T01:00+01:00") == 1_767_225_600_000
    with pytest.raises(NotDone, match="--since yesterday: write a time"):
        read_time("--since", "yesterday")


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("127.0.0.1:7801", "http://127.0.0.1:7801"),
        ("0.0.0.0:80", "http://127.0.0.1:80"),
        ("[::]:80", "http://[::1]:80"),
        ("[::1]:81", "http://[::1]:81"),
    ],
)
def test_a_configuration_file_tells_where_its_node_is(tmp_path: Path, listen: str, url: str) -> None:
    path = tmp_path / "node.toml"
    path.write_text(f'[node]\nname = "n"\naddress = "test.n"\n[http]\nlisten = "{listen}"\n')
    assert AtNode(node=str(path)).url() == url


def test_a_configuration_without_http_cannot_be_asked(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text('[node]\nname = "n"\naddress = "test.n"\n')
    with pytest.raises(NotDone, match=r"has no http\.listen"):
        AtNode(node=str(path)).url()


def test_where_nobody_answers_the_error_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, unused_port: int
) -> None:
    monkeypatch.setenv("CONNECTOR_NODE", f"http://127.0.0.1:{unused_port}")
    with pytest.raises(
        Unavailable, match=rf"no connector answers at http://127\.0\.0\.1:{unused_port}: is it"
    ):
        run("accounts", "list")


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_a_rebuild_needs_a_ledger_and_leaves_what_it_finds(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    text = f'[node]\nname = "n"\naddress = "test.n"\nstate_dir = "{tmp_path / "state"}"\n'
    path.write_text(text)
    with pytest.raises(ConnectorError, match="there is no ledger"):
        run("ledger", "rebuild", str(path), "--yes")
    assert not (tmp_path / "state").exists()
    path.write_text(text + '[journal]\nsync = "off"\n')
    with pytest.raises(NotDone, match="there is no journal to make"):
        run("ledger", "rebuild", str(path), "--yes")
