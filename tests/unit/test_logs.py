"""Log lines: one JSON object each, or lines for people; what is bound is there, what is secret is not."""

import io
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from connector.cli.run import run
from connector.config.schema import Secret
from connector.errors import ConnectorError, Unavailable
from connector.telemetry import logs

TOKEN = "hunter2-hunter2"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Leaves both loggers as they were."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logger.remove()
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def configured(level: str = "INFO", form: str = "json", out: io.StringIO | None = None) -> io.StringIO:
    out = out or io.StringIO()
    logs.configure(level, form, out)
    return out


def fail_with_a_secret() -> None:
    token = TOKEN
    secret = {"auth_token": token.encode()}
    assert len(secret) == 1
    raise ValueError(f"refused after {len(token)} characters")


# --- JSON ---


def test_a_line_is_one_json_object_with_what_is_bound() -> None:
    out = configured()
    logger.bind(node="peer1", peer="bob", packet="abc", amount=7).info("link {}", "open")
    logger.warning("two\nlines and \x1b[31mcolour")
    first, second = lines(out)
    assert first.pop("time").startswith("20")
    assert first == {
        "level": "INFO",
        "message": "link open",
        "node": "peer1",
        "peer": "bob",
        "packet": "abc",
        "amount": 7,
    }
    assert (second["level"], second["message"]) == ("WARNING", "two\nlines and \x1b[31mcolour")


def test_time_has_milliseconds_and_a_zone() -> None:
    out = configured()
    logger.info("now")
    assert len(lines(out)[0]["time"]) == len("2026-01-01T12:00:00.000+00:00")


def test_lines_below_the_level_are_not_written() -> None:
    out = configured("WARNING")
    logger.info("no")
    logger.warning("yes")
    assert [line["message"] for line in lines(out)] == ["yes"]


def test_braces_in_what_others_say_are_only_text() -> None:
    out = configured()
    logger.info("peer said {}", "{extra[token]} {0} {")
    assert lines(out)[0]["message"] == "peer said {extra[token]} {0} {"


def test_whatever_is_bound_is_written_somehow() -> None:
    out = configured()
    logger.bind(large=2**70, odd="\udcff", secret=Secret(TOKEN), path=object).info("odd \udcff")
    [line] = lines(out)
    assert line["message"] == "odd \udcff"
    assert line["large"] == 2**70
    assert line["secret"] == "***"


def test_what_is_bound_does_not_replace_what_a_line_is() -> None:
    out = configured()
    logger.bind(level="none", message="none", time="never").info("said")
    [line] = lines(out)
    assert (line["level"], line["message"]) == ("INFO", "said")
    assert line["time"] != "never"


def test_an_exception_is_named_with_its_place_and_without_variables() -> None:
    out = configured()
    try:
        fail_with_a_secret()
    except ValueError:
        logger.exception("failed")
    assert TOKEN not in out.getvalue()
    [line] = lines(out)
    assert line["exception"] == "ValueError('refused after 15 characters')"
    assert "in fail_with_a_secret" in line["traceback"]
    assert line["level"] == "ERROR"


# --- for people ---


def test_on_a_terminal_lines_are_for_people() -> None:
    out = Terminal()
    configured(form="auto", out=out)
    logger.bind(node="peer1", peer="bob", other="x").info("link {}", "open")
    line = out.getvalue()
    assert "link open" in line
    assert "peer1 bob" in line
    assert "INFO" in line
    assert not line.startswith("{")
    assert line.endswith("\n")
    assert line.count("\n") == 1


def test_elsewhere_they_are_json() -> None:
    out = configured(form="auto")
    logger.info("said")
    assert lines(out)[0]["message"] == "said"


@pytest.mark.parametrize(("form", "out"), [("human", io.StringIO()), ("json", Terminal())])
def test_a_format_that_was_chosen_is_used(form: str, out: io.StringIO) -> None:
    configured(form=form, out=out)
    logger.info("said")
    assert out.getvalue().startswith("{") is (form == "json")


def test_markup_and_braces_in_what_others_say_are_only_text() -> None:
    out = configured(form="human")
    logger.bind(peer="<red>{x}").info("{}", "<bold>{message}</bold> {")
    assert "<red>{x} <bold>{message}</bold> {\n" in out.getvalue()


def test_a_traceback_for_people_has_no_variables() -> None:
    out = configured(form="human")
    try:
        fail_with_a_secret()
    except ValueError:
        logger.exception("failed")
    shown = out.getvalue()
    assert "in fail_with_a_secret" in shown
    assert "ValueError: refused after 15 characters" in shown
    assert TOKEN not in shown


# --- other libraries ---


def test_what_libraries_say_comes_out_here_too() -> None:
    out = configured("DEBUG")
    logging.getLogger("hypercorn").warning("careful: %s", "{}")
    logging.getLogger("hypercorn").info("chatter")
    assert [(line["level"], line["message"]) for line in lines(out)] == [("WARNING", "careful: {}")]


def test_levels_that_only_logging_knows_are_no_trouble() -> None:
    out = configured()
    logging.getLogger("library").log(35, "in between")
    logging.getLogger("library").critical("worst")
    assert [(line["level"], line["message"]) for line in lines(out)] == [
        ("Level 35", "in between"),
        ("CRITICAL", "worst"),
    ]


def test_exceptions_of_libraries_have_no_variables_either() -> None:
    out = configured()
    try:
        fail_with_a_secret()
    except ValueError:
        logging.getLogger("library").exception("failed")
    [line] = lines(out)
    assert line["exception"] == "ValueError('refused after 15 characters')"
    assert TOKEN not in out.getvalue()


def test_configuring_again_replaces_the_output() -> None:
    first = configured()
    second = configured()
    logger.info("once")
    logging.getLogger("library").warning("once")
    assert first.getvalue() == ""
    assert [line["message"] for line in lines(second)] == ["once", "once"]


# --- what ends `connector run` ---

NODE = '[node]\nname = "node"\naddress = "test.node"\n[log]\nformat = "json"\nlevel = "WARNING"\n'


def run_into(error: Exception, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """`connector run` of a node that ends in `error`; the exit status."""

    async def run_nodes(_nodes: object) -> int:
        raise error

    monkeypatch.setitem(run.__globals__, "run_nodes", run_nodes)
    path = folder / "node.toml"
    path.write_text(NODE)
    return run(path)


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("a bug"), ExceptionGroup("of tasks", [ZeroDivisionError("a bug")])]
)
def test_a_bug_is_a_log_line_and_an_exit_status(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_into(error, tmp_path, monkeypatch) == os.EX_SOFTWARE == 70
    [line] = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (line["level"], line["exception"]) == ("CRITICAL", repr(error))
    assert "in run_nodes" in line["traceback"]
    assert "ZeroDivisionError: a bug" in line["traceback"]


def test_an_error_that_the_message_explains_is_left_to_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConnectorError, match="the port is taken"):
        run_into(Unavailable("the port is taken"), tmp_path, monkeypatch)
    assert capsys.readouterr().err == ""
