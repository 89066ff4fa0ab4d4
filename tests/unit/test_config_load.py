"""Reading a configuration: defaults, the environment, other files; secrets are never shown."""

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trustme

from connector.cli import config as commands
from connector.config import NodeConfig, load_file
from connector.config.schema import Secret, hide_secret, json_schema
from connector.core.rates import Asset
from connector.errors import ConfigError
from connector.limits import U64_MAX

FIVE_PEERS = sorted((Path(__file__).parents[2] / "infra" / "five-peer").glob("*.toml"))
TOKEN = "hunter2-hunter2-hunter2"
NODE = '[node]\nname = "node"\naddress = "test.node"\n[btp]\nlisten = "127.0.0.1:0"\n'
USD = 'asset = { code = "USD", scale = 2 }\n'
BOB = f'name = "bob"\nrelation = "peer"\naddress = "test.bob"\ntoken = "t"\ncredit_limit = 5\n{USD}'
KID = f'name = "kid"\nrelation = "child"\ntoken = "k"\ncredit_limit = 5\n{USD}'


def peer(text: str) -> str:
    return f"[[peers]]\n{text}"


def load(folder: Path, text: str, environment: Mapping[str, str] | None = None) -> NodeConfig:
    path = folder / "node.toml"
    path.write_text(text)
    return load_file(path, environment or {})


def problems(folder: Path, text: str, environment: Mapping[str, str] | None = None) -> list[tuple[str, str]]:
    """(key, reason) of everything found wrong; the file is named each time."""
    with pytest.raises(ConfigError) as refused:
        load(folder, text, environment)
    found = refused.value.problems
    lines = str(refused.value).splitlines()
    assert [problem.source for problem in found] == [str(folder / "node.toml")] * len(found)
    assert lines == [str(problem) for problem in found]
    return [(problem.key, problem.reason) for problem in found]


def write_certificates(folder: Path) -> None:
    """`ca.pem`, and `cert.pem` with `key.pem` from it."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")


# --- what is there ---


def test_a_small_file_is_completed_with_defaults(tmp_path: Path) -> None:
    config = load(tmp_path, NODE + peer(BOB))
    assert config.node.drain_timeout_s == 10
    assert config.fees.spread_ppm == 0
    assert config.limits.hold_max_ms == 30_000
    bob = config.peers[0]
    assert (bob.name, bob.relation, bob.asset, bob.max_packet_amount) == (
        "bob",
        "peer",
        Asset("USD", 2),
        U64_MAX,
    )
    assert bob.token is not None
    assert bob.token.reveal() == "t"


@pytest.mark.parametrize("path", FIVE_PEERS, ids=lambda path: path.stem)
def test_the_five_peers_are_configured(path: Path) -> None:
    config = load_file(path, {})
    assert config.node.name == path.stem
    assert [account.name for account in config.accounts] == ["alice"]


def test_there_are_five_of_them() -> None:
    assert [path.stem for path in FIVE_PEERS] == [f"peer{number}" for number in range(1, 6)]


# --- what cannot be read ---


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[node", r"is not TOML: Expected ']'"),
        (b"\xff\xfe", r"is not TOML: .*utf-8"),
        (b"a = 1\na = 2", r"is not TOML: Cannot overwrite a value"),
    ],
)
def test_what_is_no_toml(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "node.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        load_file(path, {})
    [problem] = refused.value.problems
    assert (problem.source, problem.key) == (str(path), "")
    assert re.match(reason, problem.reason)


def test_a_file_that_is_not_there_or_a_folder_or_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError) as refused:
        load_file(tmp_path / "no.toml", {})
    assert str(refused.value) == f"{tmp_path / 'no.toml'}: cannot be read: No such file or directory"
    with pytest.raises(ConfigError) as refused:
        load_file(tmp_path, {})
    assert str(refused.value) == f"{tmp_path}: cannot be read: Is a directory"
    monkeypatch.setattr("connector.config.load.CONFIG_FILE_MAX_BYTES", 10)
    assert problems(tmp_path, NODE) == [("", "is not TOML: more than 10 bytes")]


# --- the environment ---


@pytest.mark.parametrize(
    ("text", "environment", "expected"),
    [
        ("${NAME}", {"NAME": "bob"}, "bob"),
        ("${NAME:-eve}", {"NAME": "bob"}, "bob"),
        ("${NAME:-eve}", {}, "eve"),
        ("${NAME:-eve}", {"NAME": ""}, "eve"),
        ("${NAME:-}", {}, ""),
        ("${NAME}", {"NAME": ""}, ""),
        ("a-${A}-${B:-b}-c", {"A": "1"}, "a-1-b-c"),
        ("$${NAME}", {"NAME": "bob"}, "${NAME}"),
        ("$${NAME:-x}", {}, "${NAME:-x}"),
        ("$NAME ${} ${1} {NAME}", {"NAME": "bob"}, "$NAME ${} ${1} {NAME}"),
        ("${NAME}", {"NAME": "${OTHER}", "OTHER": "no"}, "${OTHER}"),
    ],
)
def test_variables_stand_in_strings(
    tmp_path: Path, text: str, environment: dict[str, str], expected: str
) -> None:
    config = load(tmp_path, NODE + peer(BOB + f'username = "{text}"\n'), environment)
    assert config.peers[0].username == expected


def test_a_variable_may_be_a_number(tmp_path: Path) -> None:
    text = NODE + peer(BOB.replace("credit_limit = 5", 'credit_limit = "${LIMIT:-12}"'))
    assert load(tmp_path, text).peers[0].credit_limit == 12
    assert load(tmp_path, text, {"LIMIT": "7"}).peers[0].credit_limit == 7
    assert problems(tmp_path, text, {"LIMIT": "x"}) == [
        ("peers[0].credit_limit", "Expected `int | null`, got `str`")
    ]


def test_every_variable_that_is_not_set_is_named(tmp_path: Path) -> None:
    text = NODE.replace("test.node", "${ADDRESS}") + peer(BOB.replace('"t"', '"${TOKEN}"'))
    assert problems(tmp_path, text) == [
        ("node.address", "the environment variable ADDRESS is not set (a default: ${ADDRESS:-value})"),
        ("peers[0].token", "the environment variable TOKEN is not set (a default: ${TOKEN:-value})"),
    ]


def test_a_variable_is_utf_8(tmp_path: Path) -> None:
    text = NODE + peer(BOB.replace('"t"', '"${TOKEN}"'))
    found = problems(tmp_path, text, {"TOKEN": "hunter2\udcff"})
    assert found == [("peers[0].token", "the environment variable TOKEN is not UTF-8")]


# --- files named in the file ---


def test_secrets_come_from_files_beside_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "bob").write_text(f"  {TOKEN}\n")
    (tmp_path / "seed").write_text("0123456789abcdef\n")
    text = (
        NODE
        + '[receiver]\nsecret_file = "seed"\n'
        + peer(BOB.replace('token = "t"', 'token_file = "${DIR}/bob"'))
    )
    config = load(tmp_path, text, {"DIR": "secrets"})
    token, secret = config.peers[0].token, config.receiver.secret
    assert token is not None
    assert secret is not None
    assert (token.reveal(), secret.reveal()) == (TOKEN, "0123456789abcdef")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "secret cannot be read: No such file or directory"),
        (
            b"\xff",
            "secret cannot be read: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
        ),
        (bytes(65_537), "secret cannot be read: more than 65536 bytes"),
    ],
)
def test_a_secret_file_that_cannot_be_read(tmp_path: Path, content: bytes | None, reason: str) -> None:
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    text = NODE + peer(BOB.replace('token = "t"', 'token_file = "secret"'))
    assert problems(tmp_path, text) == [("peers[0].token_file", reason)]


def test_a_secret_stands_in_one_place(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(TOKEN)
    text = NODE + peer(BOB + 'token_file = "secret"\n')
    assert problems(tmp_path, text) == [("peers[0].token_file", "give either token or token_file")]


def test_paths_are_relative_to_the_file_that_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    write_certificates(tmp_path)
    text = (
        NODE
        + f'tls_cert_file = "cert.pem"\ntls_key_file = "{tmp_path}/key.pem"\n'
        + peer(BOB + 'ca_file = "./ca.pem"\n')
    )
    config = load(tmp_path, text)
    assert config.btp.tls_cert_file == str(tmp_path / "cert.pem")
    assert config.btp.tls_key_file == str(tmp_path / "key.pem")
    assert config.peers[0].ca_file == str(tmp_path / "ca.pem")


# --- secrets stay secret ---

SECRETIVE = NODE + f'[receiver]\nsecret = "{TOKEN}"\n' + peer(BOB.replace('"t"', f'"{TOKEN}-t"'))


def test_a_secret_is_shown_by_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = load(tmp_path, SECRETIVE)
    secret = config.receiver.secret
    assert secret is not None
    shown = [
        repr(config),
        str(config),
        f"{config.peers[0]}",
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!s:>40}",
        repr([secret]),
        msgspec.json.encode(config, enc_hook=hide_secret).decode(),
    ]
    path = tmp_path / "node.toml"
    assert commands.show(path, json=True) == 0
    assert commands.show(path) == 0
    assert commands.check(path) == 0
    assert commands.check(path, json=True) == 0
    captured = capsys.readouterr()
    shown += [captured.out, captured.err]
    assert "test.node" in captured.out
    for text in shown:
        assert TOKEN not in text
    assert json.loads(shown[8])["receiver"] == {"secret": "***", "secret_file": None}


@pytest.mark.parametrize(
    "text",
    [
        SECRETIVE + "surprise = 1\n",
        SECRETIVE.replace("USD", "€"),
        SECRETIVE.replace("test.bob", "nowhere"),
        SECRETIVE + f'url = "btp+ws://:{TOKEN}@host:7768"\n',
        SECRETIVE + f'url = "http://:{TOKEN}@host:7768"\n',
        SECRETIVE + f'url = "ws://host:{TOKEN}"\n',
        SECRETIVE + peer(KID.replace('"k"', f'"{TOKEN}-t"')),
        SECRETIVE.replace(f'"{TOKEN}"', f'["{TOKEN}"]'),
        SECRETIVE.replace(f'"{TOKEN}"\n', f'"{TOKEN}\n'),
        SECRETIVE.replace(f'"{TOKEN}-t"', f'"{"x" * 2_000}{TOKEN}"'),
        SECRETIVE.replace("secret =", f'secret_file = "no"\n{"surprise"} ='),
    ],
)
def test_no_error_shows_a_secret(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, text)
    error: BaseException | None = refused.value
    while error is not None:
        # What a traceback would print, causes included.
        assert TOKEN not in str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_a_secret_is_encoded_only_as_stars() -> None:
    assert hide_secret(Secret(TOKEN)) == "***"
    with pytest.raises(TypeError):
        msgspec.json.encode(Secret(TOKEN))


# --- the schema ---


def violations(schema: dict[str, Any], value: Any, path: str = "$") -> list[str]:
    """What of `value` breaks `schema`: as much of JSON Schema as `connector config schema` uses."""
    known = {
        "$ref", "$defs", "title", "description", "default", "type", "properties", "required", "enum", "anyOf",
        "additionalProperties", "items", "minimum", "maximum", "exclusiveMaximum", "maxItems", "writeOnly",
    }  # fmt: skip
    found = [f"{path}: {keyword} is not understood here" for keyword in schema.keys() - known]
    if "$ref" in schema:
        return found + violations(DEFINITIONS[schema["$ref"].removeprefix("#/$defs/")], value, path)
    if "anyOf" in schema:
        if all(violations(option, value, path) for option in schema["anyOf"]):
            found.append(f"{path}: none of anyOf")
        return found
    types = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "null": type(None),
    }
    if "type" in schema and not isinstance(value, types[schema["type"]]):  # type: ignore[arg-type]
        return [*found, f"{path}: {schema['type']} expected"]
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{path}: none of {schema['enum']}")
    if isinstance(value, int):
        if value < schema.get("minimum", value) or value > schema.get("maximum", value):
            found.append(f"{path}: out of range")
        if value >= schema.get("exclusiveMaximum", value + 1):
            found.append(f"{path}: out of range")
    if isinstance(value, list):
        for index, item in enumerate(value):
            found += violations(schema["items"], item, f"{path}[{index}]")
    if isinstance(value, dict):
        found += [f"{path}: {name} is missing" for name in schema.get("required", []) if name not in value]
        others = schema.get("additionalProperties", True)
        for name, item in value.items():
            below = schema.get("properties", {}).get(name, others)
            if below is False:
                found.append(f"{path}: {name} is not allowed")
            elif below is not True:
                found += violations(below, item, f"{path}.{name}")
    return found


SCHEMA = json_schema()
DEFINITIONS: dict[str, Any] = SCHEMA["$defs"]  # type: ignore[assignment]


@pytest.mark.parametrize("path", FIVE_PEERS, ids=lambda path: path.stem)
def test_the_schema_accepts_the_five_peers(path: Path) -> None:
    assert violations(SCHEMA, tomllib.loads(path.read_text())) == []


@pytest.mark.parametrize(
    ("text", "violation"),
    [
        ("", "$: node is missing"),
        (NODE + "surprise = 1\n", "$.btp: surprise is not allowed"),
        (NODE + "[fees]\nspread_ppm = 1_000_000\n", "$.fees.spread_ppm: out of range"),
        (NODE + peer(BOB.replace("scale = 2", "scale = 256")), "$.peers[0].asset.scale: out of range"),
        (
            NODE + peer(BOB.replace('"peer"', '"friend"')),
            "$.peers[0].relation: none of ['child', 'parent', 'peer']",
        ),
        (NODE + "[prices]\nUSD = 1.08\n", "$.prices.USD: string expected"),
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(tmp_path: Path, text: str, violation: str) -> None:
    assert violations(SCHEMA, tomllib.loads(text)) == [violation]
    with pytest.raises(ConfigError):
        load(tmp_path, text)


def test_the_schema_is_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.schema() == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(msgspec.json.encode(SCHEMA))
    assert printed["$defs"]["Peer"]["properties"]["token"]["anyOf"][0] == {
        "type": "string",
        "writeOnly": True,
    }
