"""Notices in the log: the first at once, repetitions as a number and a sum, so that no peer floods it."""

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from loguru import logger

from connector.core.forwarding import Notice
from connector.core.instant import Instant
from connector.limits import NOTICE_INTERVAL_MS
from connector.node.notices import NoticeLog
from connector.telemetry import logs


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    logs.configure("DEBUG", "json", stream)
    yield stream
    logger.remove()


def said(out: io.StringIO) -> list[tuple[str, str]]:
    """(level, message) of what was logged since the last call."""
    lines: list[dict[str, Any]] = [json.loads(line) for line in out.getvalue().splitlines()]
    out.seek(0)
    out.truncate()
    return [(line["level"], line["message"]) for line in lines]


def at(ms: int) -> Instant:
    return Instant(0, ms)


LOST = Notice("fulfill lost", "bob", "abc", 7, "its link was lost")


def test_a_warning_says_who_what_and_how_much(out: io.StringIO) -> None:
    NoticeLog().log([LOST], at(0))
    line = json.loads(out.getvalue())
    assert (line["level"], line["message"]) == ("WARNING", "fulfill lost: its link was lost")
    assert (line["peer"], line["packet"], line["amount"]) == ("bob", "abc", 7)


@pytest.mark.parametrize("kind", ["refused", "rejected", "ignored reject"])
def test_the_rest_is_for_debugging(out: io.StringIO, kind: str) -> None:
    NoticeLog().log([Notice(kind, "bob", "", 0, "F02 no route")] * 2, at(0))
    assert said(out) == [("DEBUG", f"{kind}: F02 no route")] * 2


@pytest.mark.parametrize("kind", ["fulfill lost", "ignored fulfill", "wrong fulfillment"])
def test_what_may_cost_money_is_a_warning(out: io.StringIO, kind: str) -> None:
    NoticeLog().log([Notice(kind, "bob", "abc", 7, "why")], at(0))
    assert said(out) == [("WARNING", f"{kind}: why")]


def test_repetitions_are_counted_and_summed(out: io.StringIO) -> None:
    log = NoticeLog()
    log.log([LOST] * 3, at(0))
    assert len(said(out)) == 1
    log.log([LOST], at(NOTICE_INTERVAL_MS - 1))
    assert said(out) == []
    log.log([LOST], at(NOTICE_INTERVAL_MS))
    assert said(out) == [
        ("WARNING", "fulfill lost: its link was lost (3 more since the last line, worth 21)")
    ]
    log.log([LOST], at(2 * NOTICE_INTERVAL_MS))
    assert said(out) == [("WARNING", "fulfill lost: its link was lost")]


def test_each_kind_and_each_hop_is_counted_by_itself(out: io.StringIO) -> None:
    log = NoticeLog()
    notices = [
        Notice(kind, hop, "", 1, "why") for kind in ("fulfill lost", "wrong fulfillment") for hop in "ab"
    ]
    log.log(notices * 2, at(0))
    assert len(said(out)) == 4
