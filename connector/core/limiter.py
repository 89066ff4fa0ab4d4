"""A token bucket in whole numbers: how many packets a link may send."""


class TokenBucket:
    """Lets `rate_per_s` through on average, `burst` at once.

    Invariant: 0 ≤ credit ≤ burst × 1000; one packet costs 1000 units, one
    millisecond earns `rate_per_s` of them, so nothing is lost to rounding.
    """

    __slots__ = ("_credit", "_full", "_rate_per_s", "_seen_ms")

    def __init__(self, rate_per_s: int, burst: int) -> None:
        assert rate_per_s > 0
        assert burst > 0
        self._rate_per_s = rate_per_s
        self._full = burst * 1000
        self._credit = self._full
        self._seen_ms = 0

    def take(self, now_ms: int) -> bool:
        """Whether one more packet may pass at `now_ms` (monotonic)."""
        if now_ms > self._seen_ms:
            earned = (now_ms - self._seen_ms) * self._rate_per_s
            self._credit = min(self._full, self._credit + earned)
            self._seen_ms = now_ms
        if self._credit < 1000:
            return False
        self._credit -= 1000
        return True
