"""`connector config`: check, show and describe configuration files."""

from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import App, Parameter
from rich.console import Console

from connector.config import load_file, load_files
from connector.config.credit import with_terms
from connector.config.schema import hide_secret, json_schema

app = App(name="config", help="Check, show and describe configuration files.")


@app.command
def check(*configs: Path, json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Say whether configuration files can be used; exit status 78 and every reason if not.

    Parameters
    ----------
    configs
        TOML files, one for each node.
    json
        Print one JSON object.
    """
    loaded = load_files(configs)
    if json:
        print(msgspec.json.encode({"ok": True, "nodes": [config.node.name for config in loaded]}).decode())
    else:
        for path, config in zip(configs, loaded, strict=True):
            print(
                f"{path}: ok: node {config.node.name} ({config.node.address}), {len(config.peers)} peers, "
                f"{len(config.routes)} routes, {len(config.accounts)} accounts"
            )
    return 0


@app.command
def show(config: Path, json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Print a configuration as the node would use it: completed, defaults included, secrets as stars.

    Parameters
    ----------
    config
        A TOML file.
    json
        Print plain JSON (else it is indented and coloured).
    """
    text = msgspec.json.encode(with_terms(load_file(config)), enc_hook=hide_secret).decode()
    if json:
        print(text)
    else:
        Console().print_json(text)
    return 0


@app.command
def schema() -> int:
    """Print the JSON Schema of a configuration file."""
    print(msgspec.json.format(msgspec.json.encode(json_schema())).decode())
    return 0
