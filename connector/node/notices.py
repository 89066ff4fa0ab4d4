"""The forwarder's notices as log lines, without letting a peer flood the log."""

from loguru import logger

from connector.core.forwarding import Notice
from connector.core.instant import Instant
from connector.limits import NOTICE_INTERVAL_MS

#: What a person must know of; all else is for debugging.
_WARNINGS = frozenset({"fulfill lost", "ignored fulfill", "wrong fulfillment"})


class NoticeLog:
    """Logs a warning of one kind about one hop at once, and repetitions as a number and a sum."""

    def __init__(self) -> None:
        # Bounded: kinds are few and hops are configured.
        self._last_ms: dict[tuple[str, str], int] = {}
        #: How many were not logged since, and the sum of their amounts.
        self._withheld: dict[tuple[str, str], tuple[int, int]] = {}

    def log(self, notices: list[Notice], now: Instant) -> None:
        """Log what a batch gave notice of."""
        for notice in notices:
            if notice.kind in _WARNINGS:
                self._warn(notice, now)
            else:
                logger.bind(peer=notice.hop, packet=notice.packet_id).debug(
                    "{}: {}", notice.kind, notice.reason
                )

    def _warn(self, notice: Notice, now: Instant) -> None:
        key = (notice.kind, notice.hop)
        last_ms = self._last_ms.get(key)
        if last_ms is not None and now.mono_ms - last_ms < NOTICE_INTERVAL_MS:
            count, amount = self._withheld.get(key, (0, 0))
            self._withheld[key] = (count + 1, amount + notice.amount)
            return
        self._last_ms[key] = now.mono_ms
        count, amount = self._withheld.pop(key, (0, 0))
        more = f" ({count} more since the last line, worth {amount})" if count else ""
        logger.bind(peer=notice.hop, packet=notice.packet_id, amount=notice.amount).warning(
            "{}: {}{}", notice.kind, notice.reason, more
        )
