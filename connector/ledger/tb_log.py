"""What TigerBeetle's client says, as log lines: errors as warnings, the rest for debugging.

Its own channel is one per process, and goes to stderr unless somebody listens.
An unreachable cluster is worth a line now and then, not ten a second: each
level has LEDGER_LOG_LINES_MAX at once and one each LEDGER_LOG_INTERVAL_S after.
"""

import ctypes
import time
from collections.abc import Callable

import tigerbeetle
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


# Called on any thread, by the library one line at a time.
@bindings.LogHandler  # type: ignore[untyped-decorator]  # ctypes has no types
def _on_line(level: int, message: int, size: int) -> None:
    shown = "WARNING" if level == bindings.LogLevel.ERR else "DEBUG"
    text = ctypes.string_at(message, size).decode("utf-8", "replace")[:REASON_SHOWN_MAX]
    line = _levels[shown].line(text)
    if line is not None:
        logger.log(shown, "TigerBeetle's client: {}", line)


_listening = False


def to_loguru() -> None:
    """Make the library say here what it has to say, from now on."""
    global _listening
    if not _listening:
        _listening = True
        tigerbeetle.configure_logging(debug=False, handler=_on_line)
