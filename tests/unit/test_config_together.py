"""Nodes of one process: what they cannot both have is said before any of them starts."""

from pathlib import Path

import pytest

from connector.config import load_files
from connector.errors import ConfigError
from tests.unit.test_config_books import keep_in
from tests.unit.test_config_load import NODE


def together(folder: Path, one: str, other: str) -> list[str]:
    """What is wrong with two nodes in one process, each of them right by itself."""
    (folder / "one.toml").write_text(one)
    (folder / "two.toml").write_text(other)
    load_files((folder / "one.toml",))
    load_files((folder / "two.toml",))
    try:
        load_files((folder / "one.toml", folder / "two.toml"))
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []


OTHER = NODE.replace('"node"', '"other"').replace("test.node", "test.other")
HTTP = '[http]\nlisten = "127.0.0.1:7801"\n'


def test_nodes_that_share_nothing_are_taken_together(tmp_path: Path) -> None:
    assert together(tmp_path, NODE + HTTP, OTHER + HTTP.replace("7801", "0")) == []


@pytest.mark.parametrize(
    ("one", "other", "problem"),
    [
        (
            NODE,
            keep_in("b", OTHER.replace('"other"', '"node"')),
            "node.name: 'node' is {one}'s node.name too",
        ),
        (
            NODE,
            OTHER.replace("test.other", "test.node"),
            "node.address: 'test.node' is {one}'s node.address too",
        ),
        (
            NODE.replace(":0", ":7701"),
            OTHER.replace(":0", ":7701"),
            "btp.listen: '127.0.0.1:7701' is {one}'s btp.listen too",
        ),
        (NODE + HTTP, OTHER + HTTP, "http.listen: '127.0.0.1:7801' is {one}'s http.listen too"),
        (
            NODE + HTTP,
            OTHER.replace(":0", ":7801"),
            "btp.listen: '127.0.0.1:7801' is {one}'s http.listen too",
        ),
        (
            NODE,
            OTHER + '[log]\nlevel = "DEBUG"\n',
            "log: the nodes of one process share a log; level DEBUG, format auto differs from {one}",
        ),
    ],
)
def test_what_two_nodes_cannot_both_have(tmp_path: Path, one: str, other: str, problem: str) -> None:
    assert together(tmp_path, one, other) == [
        f"{tmp_path / 'two.toml'}: {problem.format(one=tmp_path / 'one.toml')}"
    ]


def test_a_state_directory_is_one_by_whatever_path(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    found = together(tmp_path, keep_in("real/a"), keep_in("link/a", OTHER))
    same = f"'{tmp_path}/real/a' is {tmp_path / 'one.toml'}'s node.state_dir too"
    assert found == [f"{tmp_path / 'two.toml'}: node.state_dir: {same}"]


def test_a_file_named_twice_is_said(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text(NODE)
    with pytest.raises(ConfigError) as refused:
        load_files((path, path))
    assert str(refused.value) == f"{path}: is named twice"
