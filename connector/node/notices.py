"""The forwarder's notices as log lines, without letting a peer flood the log."""

from loguru import logger

from connector.core.forwarding import Notice
from connector.core.instant import Instant
from connector.limits import NOTICE_INTERVAL_MS

#: What a person must know of; all else is for debugging.
_WARNINGS = frozenset({"fulfill lost", "ignored fulfill", "wrong fulfillment"})


class NoticeLog:
    """Logs a warning of one kind about one hop at once, and repetitions as a number."""

    def __init__(self) -> None:
        # Bounded: kinds are few and hops are configured.
        self._last_ms: dict[tuple[str, str], int] = {}
        self._withheld: dict[tuple[str, str], int] = {}

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
            self._withheld[key] = self._withheld.get(key, 0) + 1
            return
        self._last_ms[key] = now.mono_ms
        more = self._withheld.pop(key, 0)
        logger.bind(peer=notice.hop, packet=notice.packet_id, amount=notice.amount).warning(
            "{}: {}{}", notice.kind, notice.reason, f" ({more} more since the last line)" if more else ""
        )
