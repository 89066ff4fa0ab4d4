"""What a file may leave to its surroundings: where state is kept, and which TigerBeetle is there.

The file's own keys win. What is wrong with a variable is said with its name,
since its value stands in no file.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from connector.config.check import Problem, parse_cluster_id
from connector.ledger.replicas import parse_replicas
from connector.protocol.address import is_segment

_CLUSTER_ID = "TIGERBEETLE_CLUSTER_ID"
_REPLICAS = "TIGERBEETLE_REPLICAS"


def complete(tree: object, folder: Path, environment: Mapping[str, str]) -> Iterator[Problem]:
    """Complete the tree of a file in `folder`, in place; every (key, reason) that keeps it from that.

    What has another type than it should is left to the schema.
    """
    if isinstance(tree, dict):
        yield from _state_dir(tree.get("node"), folder, environment)
        yield from _ledger(tree.setdefault("ledger", {}), environment)


def _state_dir(node: object, folder: Path, environment: Mapping[str, str]) -> Iterator[Problem]:
    if not isinstance(node, dict):
        return
    stated, name = node.get("state_dir"), node.get("name")
    try:
        # An empty one, as of a variable that is not set, would be the folder of the file itself.
        if isinstance(stated, str) and stated:
            path = folder / stated
        elif stated in (None, "") and isinstance(name, str) and is_segment(name):
            path = _state_home(environment) / "connector" / name
        else:
            return
        # Links are followed, so that two names of one directory are seen to be one.
        node["state_dir"] = str(path.resolve())
        node["state_dir"].encode()
    except (OSError, RuntimeError, ValueError) as error:
        yield "node.state_dir", f"cannot be had: {error}"


def _state_home(environment: Mapping[str, str]) -> Path:
    """Where a user's programs keep state (XDG Base Directory). Raises RuntimeError without a home."""
    # The specification has relative paths ignored.
    stated = Path(environment.get("XDG_STATE_HOME", ""))
    if stated.is_absolute():
        return stated
    home = environment.get("HOME")
    return (Path(home) if home else Path.home()) / ".local" / "state"


def _ledger(ledger: object, environment: Mapping[str, str]) -> Iterator[Problem]:
    if not isinstance(ledger, dict):
        return
    if "replicas" not in ledger and (replicas := environment.get(_REPLICAS)):
        ledger["replicas"] = replicas
        try:
            parse_replicas(replicas)
        except ValueError as error:
            yield "ledger.replicas", f"the environment variable {_REPLICAS}: {error}"
    # A cluster's id alone, in an environment that several programs share, does not ask for TigerBeetle.
    if "replicas" in ledger and "cluster_id" not in ledger:
        ledger["cluster_id"] = cluster_id = environment.get(_CLUSTER_ID) or "0"
        try:
            parse_cluster_id(cluster_id)
        except ValueError as error:
            yield "ledger.cluster_id", f"the environment variable {_CLUSTER_ID} is {cluster_id!r}: {error}"
