"""`connector` as its user runs it: processes, signals, exit statuses, log lines, the HTTP port."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trio_websocket as tw
import trustme

from tests.integration.peers import Peer, prepare

CONFIG = """
[node]
name = "{name}"
address = "test.{name}"
drain_timeout_s = 30
[btp]
listen = "127.0.0.1:0"
[http]
listen = "127.0.0.1:0"
[[accounts]]
name = "till"
asset = {{ code = "USD", scale = 6 }}
[[peers]]
name = "alice"
relation = "child"
token = "alice-secret-token"
asset = {{ code = "USD", scale = 6 }}
credit_limit = 1_000_000
[[peers]]
name = "bob"
relation = "child"
token = "bob-secret-token"
asset = {{ code = "USD", scale = 6 }}
credit_limit = 1_000_000
"""


class Process:
    """A running `connector run`, its log read line by line."""

    def __init__(self, *configs: Path) -> None:
        command = [sys.executable, "-m", "connector", "run", *map(str, configs)]
        self.popen = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.lines: list[dict[str, Any]] = []

    def read_until(self, text: str) -> dict[str, Any]:
        """The next log line whose message has `text`."""
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            entry: dict[str, Any] = json.loads(line)
            self.lines.append(entry)
            if text in entry["message"]:
                return entry
        raise AssertionError(f"the process ended without saying {text!r}: {self.lines}")

    def ports(self) -> tuple[int, int]:
        """(BTP, HTTP) of the node that says next that it has started."""
        words = self.read_until("started: btp")["message"].replace(",", "").split()
        return int(words[-3]), int(words[-1])

    def wait(self) -> int:
        """The exit status; the rest of the log is read."""
        assert self.popen.stderr is not None
        with self.popen.stderr as log:
            self.lines += [json.loads(line) for line in log]
        return self.popen.wait(timeout=20)

    def end(self) -> None:
        """Leave nothing behind, whatever the test did."""
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()
        assert self.popen.stderr is not None
        self.popen.stderr.close()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "node.toml"
    path.write_text(CONFIG.format(name="node"))
    return path


@pytest.fixture
def process(config: Path) -> Iterator[Process]:
    started = Process(config)
    yield started
    started.end()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """One `connector` command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "connector", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_exits_0(process: Process, number: signal.Signals) -> None:
    process.ports()
    process.popen.send_signal(number)
    assert process.wait() == 0
    # The ledger is opened at its own pace.
    said = [line["message"] for line in process.lines if "posting to" not in line["message"]]
    assert said[-2:] == [f"{number.name}: draining", "node test.node stopped"]


async def test_a_second_signal_stops_at_once_whatever_is_in_flight(process: Process) -> None:
    btp, _ = await trio.to_thread.run_sync(process.ports)
    async with trio.open_nursery() as nursery:
        peers = []
        for name in ("alice", "bob"):
            stream = await trio.open_tcp_stream("127.0.0.1", btp)
            peer = Peer(await tw.wrap_client_stream(nursery, stream, "node", "/"), stream)
            await peer.authenticate(f"{name}-secret-token")
            peers.append(peer)
        soon_ms = time.time_ns() // 1_000_000 + 20_000
        await peers[0].ask(prepare(expires_at_ms=soon_ms))
        await peers[1].receive()  # bob has the packet and does not answer.
        process.popen.send_signal(signal.SIGTERM)
        await trio.to_thread.run_sync(process.read_until, "draining")
        assert process.popen.poll() is None
        process.popen.send_signal(signal.SIGTERM)
        assert await trio.to_thread.run_sync(process.wait) == 130
        for peer in peers:
            await trio.aclose_forcefully(peer.stream)
        nursery.cancel_scope.cancel()


async def test_health_says_what_the_node_can_do(process: Process) -> None:
    _, port = await trio.to_thread.run_sync(process.ports)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as web:
        alive = await web.get("/healthz")
        assert (alive.status_code, alive.json()) == (200, {"node": "node", "alive": True})
        await trio.to_thread.run_sync(process.read_until, "posting to")
        ready = await web.get("/readyz")
        assert ready.status_code == 200
        told = ready.json()
        components = {each["name"]: (each["up"], each["reason"]) for each in told.pop("components")}
        assert told == {"node": "node", "address": "test.node", "status": "ready"}
        assert components == {"journal": (True, ""), "ledger": (True, "")}
        accounts = (await web.get("/api/accounts")).json()["accounts"]
        assert {(row["kind"], row["name"]) for row in accounts} == {
            ("peer", "alice"),
            ("peer", "bob"),
            ("local", "till"),
            ("fees", "fees"),
            ("exchange", "exchange"),
            ("settlement", "settlement"),
            ("losses", "losses"),
        }
        assert all(row["net"] == "0" for row in accounts)
        spsp = await web.get("/till", headers={"accept": "application/spsp4+json"})
        assert spsp.json()["destination_account"].startswith("test.node.till.")
        assert (await web.get("/nobody")).status_code == 404
        assert (await web.get("/api/nothing")).status_code == 404
        assert (await web.post("/readyz")).status_code == 405


def test_a_node_whose_only_peer_is_gone_is_not_ready(tmp_path: Path) -> None:
    path = tmp_path / "lonely.toml"
    peer = (
        '[[peers]]\nname = "gone"\nrelation = "peer"\naddress = "test.gone"\nurl = "ws://127.0.0.1:1"\n'
        'token = "gone-secret-token"\nasset = { code = "USD", scale = 6 }\ncredit_limit = 1\n'
    )
    path.write_text(CONFIG.format(name="lonely") + peer)
    process = Process(path)
    try:
        _, port = process.ports()
        process.read_until("cannot connect to 127.0.0.1:1")
        ready = httpx.get(f"http://127.0.0.1:{port}/readyz")
        assert ready.status_code == 503
        assert ready.json()["status"] == "unavailable"
        [component] = [each for each in ready.json()["components"] if each["name"] == "link gone"]
        assert "cannot connect" in component["reason"]
    finally:
        process.popen.terminate()
        assert process.wait() == 0
    # However often it tries, it says so once, and never what the token is.
    assert sum("cannot connect" in line["message"] for line in process.lines) == 1
    assert "secret-token" not in json.dumps(process.lines)


def test_several_nodes_run_in_one_process(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.toml" for name in ("one", "two")]
    for path in paths:
        path.write_text(CONFIG.format(name=path.stem))
    process = Process(*paths)
    ports = [process.ports(), process.ports()]
    assert {httpx.get(f"http://127.0.0.1:{http}/healthz").json()["node"] for _, http in ports} == {
        "one",
        "two",
    }
    process.popen.terminate()
    assert process.wait() == 0


def test_two_nodes_peer_over_wss_as_their_configurations_say(tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate = ca.issue_cert("localhost")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    (tmp_path / "token").write_text("a token from a file\n")
    peer = (
        '[[peers]]\nname = "{0}"\nrelation = "peer"\naddress = "test.{0}"\ntoken_file = "token"\n'
        'asset = {{ code = "USD", scale = 6 }}\ncredit_limit = 1\n'
    )
    listener = tmp_path / "listener.toml"
    tls = 'listen = "127.0.0.1:0"\ntls_cert_file = "cert.pem"\ntls_key_file = "key.pem"'
    text = CONFIG.format(name="listener").replace('listen = "127.0.0.1:0"', tls, 1)
    listener.write_text(text + peer.format("dialler"))
    first = Process(listener)
    second = None
    try:
        btp, _ = first.ports()
        dialler = tmp_path / "dialler.toml"
        url = f'url = "wss://localhost:{btp}"\nca_file = "ca.pem"\n'
        dialler.write_text(CONFIG.format(name="dialler") + peer.format("listener") + url)
        second = Process(dialler)
        _, http = second.ports()
        assert second.read_until("link open")["peer"] == "listener"
        assert first.read_until("link open")["peer"] == "dialler"
        assert httpx.get(f"http://127.0.0.1:{http}/readyz").json()["status"] == "ready"
        for process in (first, second):
            process.popen.terminate()
            assert process.wait() == 0
    finally:
        for started in (first, second):
            if started is not None:
                started.end()


def test_a_configuration_that_cannot_be_used_exits_78_and_says_why(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(CONFIG.format(name="bad") + '[[routes]]\nprefix = "test.x"\nnext_hop = "nobody"\n')
    for command in (("run",), ("config", "check")):
        done = run(*command, str(path), str(tmp_path / "absent.toml"))
        assert done.returncode == os.EX_CONFIG == 78
        assert f"{path}: routes[0].next_hop: there is no peer 'nobody'" in done.stderr
        assert f"{tmp_path / 'absent.toml'}: cannot be read: No such file or directory" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_port_in_use_exits_1_and_names_it(config: Path, process: Process, tmp_path: Path) -> None:
    btp, _ = process.ports()
    path = tmp_path / "second.toml"
    path.write_text(CONFIG.format(name="second").replace('"127.0.0.1:0"', f'"127.0.0.1:{btp}"', 1))
    done = run("run", str(path))
    assert done.returncode == 1
    assert done.stderr.strip().endswith(
        f"connector: cannot listen on 127.0.0.1:{btp}: Address already in use"
    )
    assert "Traceback" not in done.stderr


def test_config_show_hides_secrets_and_shows_defaults(config: Path) -> None:
    done = run("config", "show", str(config), "--json")
    assert done.returncode == 0
    shown = json.loads(done.stdout)
    assert shown["peers"][0]["token"] == "***"
    assert "secret-token" not in done.stdout
    assert shown["limits"]["hold_max_ms"] == 30_000


def test_help_and_version_are_there() -> None:
    for arguments in ((), ("--help",), ("run", "--help"), ("pay", "--help"), ("config", "--help")):
        done = run(*arguments)
        assert done.returncode == 0
        assert "Usage" in done.stdout
    assert run("--version").stdout.strip() == "0.1.0"
    assert run("fly").returncode == 2
