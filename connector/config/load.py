"""A configuration file into a `NodeConfig`, or a `ConfigError` that says what and where."""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from connector.config.check import listens, problems
from connector.config.schema import NodeConfig, Secret
from connector.config.surroundings import complete
from connector.errors import ConfigError, ConfigProblem
from connector.limits import CONFIG_FILE_MAX_BYTES, SECRET_FILE_MAX_BYTES

#: `$${` is a literal `${`.
_VARIABLE = re.compile(r"\$(\$)?\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
#: msgspec says where as `$.peers[0].token`.
_VALIDATION_ERROR = re.compile(r"(.*?)(?: - at `(?:key in )?\$\.?(.*)`)?", re.DOTALL)
#: The keys that name a file which holds a secret, and the key that they stand for.
_SECRET_FILES = {"token_file": "token", "secret_file": "secret"}
_PATHS = ("tls_cert_file", "tls_key_file", "ca_file")


def load_file(path: Path, environment: Mapping[str, str] = os.environ) -> NodeConfig:
    """Read, complete and check the configuration of one node. Raises ConfigError."""
    document = _Document(path, environment)
    tree = document.complete(_parse(path), "")
    found = complete(tree, path.resolve().parent, environment)
    document.problems += [ConfigProblem(path, key, reason) for key, reason in found]
    document.problems += _prices(path, tree)
    if document.problems:
        raise ConfigError(document.problems)
    try:
        config = msgspec.convert(tree, NodeConfig, strict=False, dec_hook=_decode_secret)
    except msgspec.ValidationError as error:
        match = _VALIDATION_ERROR.fullmatch(str(error))
        assert match is not None
        raise ConfigError([ConfigProblem(path, match[2] or "", match[1])]) from None
    wrong = [ConfigProblem(path, key, reason) for key, reason in problems(config)]
    if wrong:
        raise ConfigError(wrong)
    return config


def load_files(paths: tuple[Path, ...]) -> list[NodeConfig]:
    """Read every file; ConfigError names what is wrong in any of them, or between them."""
    if not paths:
        raise ConfigError([ConfigProblem("configuration", "", "name at least one configuration file")])
    problems: list[ConfigProblem] = []
    loaded: dict[Path, NodeConfig] = {}
    for path in paths:
        if path in loaded:
            problems.append(ConfigProblem(path, "", "is named twice"))
            continue
        try:
            loaded[path] = load_file(path)
        except ConfigError as error:
            problems += error.problems
    problems += _clashes(loaded)
    if problems:
        raise ConfigError(problems)
    return list(loaded.values())


def _clashes(loaded: dict[Path, NodeConfig]) -> Iterator[ConfigProblem]:
    """What nodes of one process cannot each have for themselves."""
    holders: dict[object, tuple[Path, str]] = {}
    for path, config in loaded.items():
        texts = {
            "node.name": config.node.name,
            "node.address": config.node.address,
            "node.state_dir": config.node.state_dir,
            "btp.listen": config.btp.listen,
            "http.listen": config.http.listen,
        }
        names = ("node.name", "node.address", "node.state_dir")
        unique: list[tuple[str, object]] = [(key, (key, texts[key])) for key in names]
        # One port is one port, whatever it is for.
        for key, value in (*unique, *listens(config)):
            other, other_key = holders.setdefault(value, (path, key))
            if other != path:
                yield ConfigProblem(path, key, f"{texts[key]!r} is {other}'s {other_key} too")
    first = next(iter(loaded), None)
    for path, config in loaded.items():
        assert first is not None
        log = config.log
        if log != loaded[first].log:
            said = f"level {log.level}, format {log.format} differs from {first}"
            yield ConfigProblem(path, "log", f"the nodes of one process share a log; {said}")


def _parse(path: Path) -> dict[str, object]:
    try:
        text = _read(path, CONFIG_FILE_MAX_BYTES)
        return tomllib.loads(text)
    except OSError as error:
        raise ConfigError([ConfigProblem(path, "", f"cannot be read: {error.strerror}")]) from None
    except (ValueError, tomllib.TOMLDecodeError) as error:
        raise ConfigError([ConfigProblem(path, "", f"is not TOML: {error}")]) from None


def _read(path: Path, max_bytes: int) -> str:
    with path.open("rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"more than {max_bytes} bytes")
    return content.decode("utf-8")


def _prices(path: Path, tree: object) -> list[ConfigProblem]:
    """TOML's own numbers look like prices and are floats: said here, where the key is known."""
    prices = tree.get("prices") if isinstance(tree, dict) else None
    return [
        ConfigProblem(path, f"prices.{code}", 'an exact price stands in quotes, for instance "1.08"')
        for code, price in (prices.items() if isinstance(prices, dict) else ())
        if not isinstance(price, str)
    ]


def _decode_secret(kind: type, value: object) -> Secret:
    assert kind is Secret
    if not isinstance(value, str):
        raise TypeError("Expected a string")
    return Secret(value)


class _Document:
    """Completes a file's tree: variables, secrets from files, and paths relative to the file."""

    def __init__(self, path: Path, environment: Mapping[str, str]) -> None:
        self.problems: list[ConfigProblem] = []
        self._path = path
        self._environment = environment

    def complete(self, value: object, key: str) -> object:
        if isinstance(value, str):
            return _VARIABLE.sub(lambda match: self._variable(match, key), value)
        if isinstance(value, list):
            return [self.complete(item, f"{key}[{index}]") for index, item in enumerate(value)]
        if isinstance(value, dict):
            below = f"{key}." if key else ""
            table = {name: self.complete(item, below + name) for name, item in value.items()}
            self._files(table, below)
            return table
        return value

    def _variable(self, match: re.Match[str], key: str) -> str:
        literal, name, default = match.groups()
        if literal:
            return match[0][1:]
        value = self._environment.get(name)
        if not value and default is not None:
            value = default
        if value is None:
            reason = f"the environment variable {name} is not set (a default: ${{{name}:-value}})"
        elif any("\ud800" <= character <= "\udfff" for character in value):
            # So Python stands for octets that it cannot decode.
            reason = f"the environment variable {name} is not UTF-8"
        else:
            return value
        self.problems.append(ConfigProblem(self._path, key, reason))
        return ""

    def _files(self, table: dict[str, object], below: str) -> None:
        folder = self._path.resolve().parent
        for name in _PATHS:
            if isinstance(path := table.get(name), str):
                table[name] = str(folder / path)
        for name, secret in _SECRET_FILES.items():
            path = table.get(name)
            if not isinstance(path, str):
                continue
            if secret in table:
                reason = f"give either {secret} or {name}"
                self.problems.append(ConfigProblem(self._path, below + name, reason))
                continue
            try:
                table[secret] = _read(folder / path, SECRET_FILE_MAX_BYTES).strip()
            except (OSError, ValueError) as error:
                reason = f"{path} cannot be read: {getattr(error, 'strerror', None) or error}"
                self.problems.append(ConfigProblem(self._path, below + name, reason))
