"""What TigerBeetle's client says, as log lines: errors as warnings, the rest for debugging.

Its own channel is one per process, and goes to stderr unless somebody listens.
An unreachable cluster is worth a line now and then, not ten a second: each
level has LEDGER_LOG_LINES_MAX at once and one each LEDGER_LOG_INTERVAL_S after.

Lines come on the library's threads and are written on trio's: a slow terminal
does not hold up the library, and Python keeps no notes of threads it did not
start. What is said when no trio runs is dropped.
"""

import ctypes
import time
from collections.abc import Callable

import tigerbeetle
import trio
from loguru import logger
from tigerbeetle import bindings

from connector.limits import LEDGER_LOG_INTERVAL_S, LEDGER_LOG_LINES_MAX, REASON_SHOWN_MAX


class Thinned:
    """Which of many lines are written, with how many were left out before each."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._allowance = float(LEDGER_LOG_LINES_MAX)
        self._at_s = now_s()
        self._left_out = 0

    def line(self, text: str) -> str | None:
        """What to write for `text`; None is nothing."""
        now_s = self._now_s()
        earned = (now_s - self._at_s) / LEDGER_LOG_INTERVAL_S
        self._allowance = min(self._allowance + earned, LEDGER_LOG_LINES_MAX)
        self._at_s = now_s
        if self._allowance < 1:
            self._left_out += 1
            return None
        self._allowance -= 1
        left_out, self._left_out = self._left_out, 0
        return f"{text} ({left_out} lines left out before)" if left_out else text


_levels = {"WARNING": Thinned(time.monotonic), "DEBUG": Thinned(time.monotonic)}


_token: trio.lowlevel.TrioToken | None = None


# Called on any thread, by the library one line at a time.
@bindings.LogHandler  # type: ignore[untyped-decorator]  # ctypes has no types
def _on_line(level: int, message: int, size: int) -> None:
    shown = "WARNING" if level == bindings.LogLevel.ERR else "DEBUG"
    text = ctypes.string_at(message, size).decode("utf-8", "replace")[:REASON_SHOWN_MAX]
    line = _levels[shown].line(text)
    if line is None or _token is None:
        return
    try:
        _token.run_sync_soon(_write, shown, line)
    except trio.RunFinishedError:
        pass


def _write(level: str, line: str) -> None:
    logger.log(level, "TigerBeetle's client: {}", line)


def to_loguru() -> None:
    """Make the library say here what it has to say, from now on, by the loop that runs now."""
    global _token
    if _token is None:
        tigerbeetle.configure_logging(debug=False, handler=_on_line)
    _token = trio.lowlevel.current_trio_token()
