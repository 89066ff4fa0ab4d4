"""Where books are kept, in which ledger, and on what terms: what a configuration says of money."""

import json
import tomllib
from pathlib import Path

import pytest

from connector.cli import config as commands
from connector.config import load_file
from connector.config.check import parse_cluster_id
from connector.config.credit import CreditTerms, terms
from connector.errors import ConfigError
from connector.ledger.replicas import parse_replicas
from tests.unit.test_config_load import (
    BOB,
    FIVE_PEERS,
    KID,
    NODE,
    SCHEMA,
    USD,
    load,
    peer,
    problems,
    violations,
)

REPLICAS = '[ledger]\nreplicas = "3001"\n'
#: Bob and Kid without a credit limit of their own.
BARE_BOB = BOB.replace("credit_limit = 5\n", "")
BARE_KID = KID.replace("credit_limit = 5\n", "")
#: TigerBeetle by the environment.
CLUSTER = {"TIGERBEETLE_REPLICAS": "10.0.0.1:3001,10.0.0.2:3001", "TIGERBEETLE_CLUSTER_ID": "0x2a"}


def credit(text: str) -> str:
    return f"[[credit]]\n{USD}{text}"


def keep_in(state_dir: str, text: str = NODE) -> str:
    return text.replace("[btp]", f'state_dir = "{state_dir}"\n[btp]')


# --- the state directory ---


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"XDG_STATE_HOME": "/var/state", "HOME": "/home/ada"}, "/var/state/connector/node"),
        ({"HOME": "/home/ada"}, "/home/ada/.local/state/connector/node"),
        ({"XDG_STATE_HOME": "", "HOME": "/home/ada"}, "/home/ada/.local/state/connector/node"),
        ({"XDG_STATE_HOME": "state", "HOME": "/home/ada"}, "/home/ada/.local/state/connector/node"),
    ],
)
def test_state_is_kept_where_the_user_keeps_state(
    tmp_path: Path, environment: dict[str, str], folder: str
) -> None:
    assert load(tmp_path, NODE, environment).node.state_dir == folder
    assert load(tmp_path, keep_in("${STATE_DIR:-}"), environment).node.state_dir == folder


def test_a_home_that_no_variable_names_is_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load(tmp_path, NODE, {}).node.state_dir == f"{tmp_path}/.local/state/connector/node"


def test_without_a_home_the_state_directory_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def homeless(_: object) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", classmethod(homeless))
    assert problems(tmp_path, NODE, {}) == [
        ("node.state_dir", "cannot be had: Could not determine home directory.")
    ]


@pytest.mark.parametrize(
    ("stated", "folder"),
    [("state", "{folder}/state"), ("../x/./y", "{folder.parent}/x/y"), ("/srv/node", "/srv/node")],
)
def test_the_state_directory_is_relative_to_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stated: str, folder: str
) -> None:
    monkeypatch.chdir("/")
    assert load(tmp_path, keep_in(stated)).node.state_dir == folder.format(folder=tmp_path)


def test_what_cannot_be_a_state_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert problems(tmp_path, keep_in("file")) == [("node.state_dir", f"{tmp_path}/file is not a directory")]
    null = problems(tmp_path, keep_in("a\\u0000b"))
    assert null == [("node.state_dir", "cannot be had: embedded null byte")]
    [(key, reason)] = problems(tmp_path, NODE, {"XDG_STATE_HOME": "/\udcff"})
    assert key == "node.state_dir"
    assert reason.startswith("cannot be had: 'utf-8' codec can't encode character '\\udcff'")


def test_a_wrong_name_is_no_path(tmp_path: Path) -> None:
    text = NODE.replace('"node"', '"../../node"')
    assert [key for key, _ in problems(tmp_path, text)] == ["node.name"]
    assert problems(tmp_path, keep_in("x").replace('"x"', "5")) == [
        ("node.state_dir", "Expected `str | null`, got `int`")
    ]


def test_the_five_peers_keep_state_apart_and_beside_the_log() -> None:
    folder = FIVE_PEERS[0].parents[2] / ".dev"
    kept = [load_file(path, {}).node.state_dir for path in FIVE_PEERS]
    assert kept == [str(folder / path.stem) for path in FIVE_PEERS]


# --- journal and ledger ---


def test_the_books_are_durable_by_default(tmp_path: Path) -> None:
    config = load(tmp_path, NODE)
    assert config.journal.sync == "always"
    ledger = config.ledger
    assert (ledger.cluster_id, ledger.replicas, ledger.open_empty) == (None, None, "confirm")
    assert (ledger.unposted_max, ledger.unposted_age_max_s) == (100_000_000, 86_400)
    assert ledger.unposted_max_bytes == 4 * 1_024**3


@pytest.mark.parametrize(
    ("text", "environment", "cluster_id", "replicas"),
    [
        ("", CLUSTER, "0x2a", "10.0.0.1:3001,10.0.0.2:3001"),
        ("", {"TIGERBEETLE_REPLICAS": "3001"}, "0", "3001"),
        ("", {"TIGERBEETLE_REPLICAS": "", "TIGERBEETLE_CLUSTER_ID": "7"}, None, None),
        ("", {"TIGERBEETLE_CLUSTER_ID": "not used"}, None, None),
        (REPLICAS, {}, "0", "3001"),
        (REPLICAS, CLUSTER, "0x2a", "3001"),
        (REPLICAS + 'cluster_id = "7"\n', CLUSTER, "7", "3001"),
        (REPLICAS + 'cluster_id = "7"\n', dict.fromkeys(CLUSTER, "rubbish"), "7", "3001"),
        ('[ledger]\ncluster_id = "7"\n', CLUSTER, "7", "10.0.0.1:3001,10.0.0.2:3001"),
    ],
)
def test_the_file_says_which_tigerbeetle_and_then_the_environment(
    tmp_path: Path, text: str, environment: dict[str, str], cluster_id: str | None, replicas: str | None
) -> None:
    ledger = load(tmp_path, NODE + text, environment).ledger
    assert (ledger.cluster_id, ledger.replicas) == (cluster_id, replicas)


@pytest.mark.parametrize(
    ("variable", "key", "reason"),
    [
        (
            "TIGERBEETLE_REPLICAS",
            "ledger.replicas",
            ": HOST:PORT is expected, for instance 127.0.0.1:3001, not 'rubbish'",
        ),
        (
            "TIGERBEETLE_CLUSTER_ID",
            "ledger.cluster_id",
            " is 'rubbish': a number of 128 bits is expected, for instance 0 or 0x1f",
        ),
    ],
)
def test_a_variable_that_is_wrong_is_named(tmp_path: Path, variable: str, key: str, reason: str) -> None:
    found = problems(tmp_path, NODE, CLUSTER | {variable: "rubbish"})
    assert found == [(key, f"the environment variable {variable}{reason}")]


def test_both_variables_that_are_wrong_are_named(tmp_path: Path) -> None:
    found = problems(tmp_path, NODE, dict.fromkeys(CLUSTER, "rubbish"))
    assert [key for key, _ in found] == ["ledger.replicas", "ledger.cluster_id"]


def test_a_ledger_that_is_no_table_is_said_once(tmp_path: Path) -> None:
    assert problems(tmp_path, "ledger = 5\n" + NODE, CLUSTER) == [("ledger", "Expected `object`, got `int`")]


OFF = '[journal]\nsync = "off"\n'
OFF_REASON = (
    "without a journal (journal.sync is off) nothing is posted: leave out replicas, and the variable "
    "TIGERBEETLE_REPLICAS"
)
NEEDED = "credit_limit is needed, or default_limit in a table [[credit]] for USD/2"


@pytest.mark.parametrize(
    ("text", "key", "reason"),
    [
        ('[journal]\nsync = "never"\n', "journal.sync", "Invalid enum value 'never'"),
        (OFF + REPLICAS, "ledger.replicas", OFF_REASON),
        ('[ledger]\nopen_empty = "never"\n', "ledger.open_empty", "Invalid enum value 'never'"),
        ("[ledger]\nunposted_max = 0\n", "ledger.unposted_max", "Expected `int` >= 1"),
        ("[ledger]\nunposted_age_max_s = 0\n", "ledger.unposted_age_max_s", "Expected `int` >= 1"),
        ("[ledger]\nunposted_age_max_s = inf\n", "ledger.unposted_age_max_s", "Expected `int`, got `float`"),
        ("[ledger]\nunposted_max_bytes = 0\n", "ledger.unposted_max_bytes", "Expected `int` >= 1"),
        (
            REPLICAS + 'cluster_id = "ten"\n',
            "ledger.cluster_id",
            "'ten': a number of 128 bits is expected, for instance 0 or 0x1f",
        ),
        (
            '[ledger]\ncluster_id = "7"\n',
            "ledger.cluster_id",
            "a cluster is reached through its replicas: give them too",
        ),
        (
            '[ledger]\nreplicas = "tb:3001,"\n',
            "ledger.replicas",
            "HOST:PORT is expected, for instance 127.0.0.1:3001, not ''",
        ),
        ('[ledger]\nreplicas = "1,2,3,4,5,6,7"\n', "ledger.replicas", "at most 6 replicas, not 7"),
        (peer(BARE_BOB), "peers[0].credit_limit", NEEDED),
        (credit("ceiling = 9\n") + peer(BARE_BOB), "peers[0].credit_limit", NEEDED),
        (
            credit("default_limit = 9\n") + peer(BARE_BOB.replace("scale = 2", "scale = 3")),
            "peers[0].credit_limit",
            "credit_limit is needed, or default_limit in a table [[credit]] for USD/3",
        ),
        (credit("") + credit(""), "credit: the asset", "'USD/2' stands 2 times"),
        (
            '[[credit]]\nasset = { code = "", scale = 2 }\n',
            "credit[0].asset.code",
            "1 to 255 printable ASCII characters, for instance USD",
        ),
        ("[[credit]]\nceiling = 9\n", "credit[0]", "Object missing required field `asset`"),
        (credit("default_limit = -1\n"), "credit[0].default_limit", "Expected `int` >= 0"),
        (credit("ceiling = -1\n"), "credit[0].ceiling", "Expected `int` >= 0"),
        (credit("settle_threshold = 0\n"), "credit[0].settle_threshold", "Expected `int` >= 1"),
        (peer(BOB + "settle_threshold = 0\n"), "peers[0].settle_threshold", "Expected `int` >= 1"),
        (peer(BOB + "settle_threshold = -1\n"), "peers[0].settle_threshold", "Expected `int` >= 1"),
        (credit("") * 1_025, "credit", "Expected `array` of length <= 1024"),
    ],
)
def test_what_is_wrong_is_said_with_its_key(tmp_path: Path, text: str, key: str, reason: str) -> None:
    assert problems(tmp_path, NODE + text) == [(key, reason)]


def test_a_ledger_of_the_environment_needs_a_journal_too(tmp_path: Path) -> None:
    assert problems(tmp_path, NODE + OFF, CLUSTER) == [("ledger.replicas", OFF_REASON)]
    assert load(tmp_path, NODE + OFF).journal.sync == "off"


@pytest.mark.parametrize(
    ("text", "cluster_id"),
    [
        ("0", 0),
        ("42", 42),
        ("007", 7),
        ("0x2A", 42),
        (str(2**128 - 1), 2**128 - 1),
        ("0x" + "f" * 32, 2**128 - 1),
    ],
)
def test_a_cluster_id(text: str, cluster_id: int) -> None:
    assert parse_cluster_id(text) == cluster_id


@pytest.mark.parametrize(
    "text",
    ["", "-1", "+1", " 1", "1\n", "1_0", "1.0", "0x", "ff", "0b1", "\uff11", str(2**128), "0x1" + "0" * 32],
)
def test_what_is_no_cluster_id(text: str) -> None:
    with pytest.raises(ValueError, match="a number of 128 bits is expected"):
        parse_cluster_id(text)


@pytest.mark.parametrize(
    ("text", "replicas"),
    [
        ("3001", [("127.0.0.1", 3001)]),
        ("10.0.0.1:3001, tb-2.example:65535", [("10.0.0.1", 3001), ("tb-2.example", 65_535)]),
        ("[::1]:1,[2001:DB8::2]:3002", [("::1", 1), ("2001:db8::2", 3002)]),
        ("1,2,3,4,5,6", [("127.0.0.1", port) for port in range(1, 7)]),
    ],
)
def test_replicas_in_their_order(text: str, replicas: list[tuple[str, int]]) -> None:
    assert parse_replicas(text) == replicas


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            ",",
            "tb",
            "tb:",
            ":3001",
            "0",
            "tb:0",
            "tb:65536",
            "tb:-1",
            "tb:\uff11",
            "tb:1\n2",
            "::1:3001",
        ),
        *("[::1]", "[::g]:1", "[1.2.3.4]:1", "http://tb:3001", "a b:1", "3001;3002"),
    ],
)
def test_what_is_no_replica(text: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT is expected"):
        parse_replicas(text)


# --- credit ---


@pytest.mark.parametrize(
    ("asset", "own", "expected"),
    [
        ("", "credit_limit = 5\n", CreditTerms(5, None)),
        ("", "credit_limit = 5\nsettle_threshold = 3\n", CreditTerms(5, 3)),
        ("default_limit = 100\nsettle_threshold = 50\n", "", CreditTerms(100, 50)),
        ("default_limit = 100\nsettle_threshold = 50\n", "credit_limit = 0\n", CreditTerms(0, 50)),
        ("default_limit = 100\nsettle_threshold = 50\n", "settle_threshold = 7\n", CreditTerms(100, 7)),
        ("ceiling = 60\n", "credit_limit = 100\n", CreditTerms(60, None)),
        ("ceiling = 60\n", "credit_limit = 10\n", CreditTerms(10, None)),
        ("ceiling = 0\n", "credit_limit = 10\n", CreditTerms(0, None)),
        ("default_limit = 100\nceiling = 60\nsettle_threshold = 80\n", "", CreditTerms(60, 80)),
    ],
)
def test_a_peer_has_its_own_terms_or_its_assets_below_the_ceiling(
    tmp_path: Path, asset: str, own: str, expected: CreditTerms
) -> None:
    config = load(tmp_path, NODE + (credit(asset) if asset else "") + peer(BARE_BOB + own))
    assert terms(config, config.peers[0]) == expected


def test_terms_are_those_of_the_same_code_and_scale(tmp_path: Path) -> None:
    other = credit("ceiling = 1\n").replace("scale = 2", "scale = 6")
    config = load(tmp_path, NODE + other + credit("default_limit = 9\n") + peer(BARE_BOB) + peer(BARE_KID))
    assert [terms(config, each) for each in config.peers] == [CreditTerms(9, None)] * 2


def test_what_is_shown_are_the_terms_that_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = keep_in("state") + REPLICAS + credit("default_limit = 100\nceiling = 60\nsettle_threshold = 50\n")
    load(tmp_path, text + peer(BARE_BOB))
    assert commands.show(tmp_path / "node.toml", json=True) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["node"]["state_dir"] == str(tmp_path / "state")
    assert (shown["ledger"]["replicas"], shown["ledger"]["cluster_id"]) == ("3001", "0")
    assert (shown["peers"][0]["credit_limit"], shown["peers"][0]["settle_threshold"]) == (60, 50)
    assert (shown["credit"][0]["default_limit"], shown["credit"][0]["ceiling"]) == (100, 60)


@pytest.mark.parametrize("path", FIVE_PEERS, ids=lambda path: path.stem)
def test_the_five_peers_settle_halfway_to_the_limit(path: Path) -> None:
    config = load_file(path, {})
    assert config.ledger.open_empty == "always"
    links = [terms(config, each) for each in config.peers if each.relation == "peer"]
    assert links == [CreditTerms(1_000_000_000, 500_000_000)] * len(links)


# --- the schema ---


@pytest.mark.parametrize(
    ("text", "violation"),
    [
        ('[journal]\nsync = "never"\n', "$.journal.sync: none of ['always', 'interval', 'off']"),
        ("[ledger]\nunposted_max = 0\n", "$.ledger.unposted_max: out of range"),
        ("[ledger]\nsurprise = 0\n", "$.ledger: surprise is not allowed"),
        (credit("settle_threshold = 0\n"), "$.credit[0].settle_threshold: none of anyOf"),
        ("[[credit]]\nceiling = 9\n", "$.credit[0]: asset is missing"),
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(tmp_path: Path, text: str, violation: str) -> None:
    assert violations(SCHEMA, tomllib.loads(NODE + text)) == [violation]
    with pytest.raises(ConfigError):
        load(tmp_path, NODE + text)
