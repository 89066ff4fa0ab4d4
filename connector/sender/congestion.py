"""How many packets may be in flight, and how large one may be.

The window counts packets: it doubles per flight until the first refusal for lack
of capacity, halves at each flight that meets one, and then grows by one per
flight. The packet limit is an amount: F08 sets a ceiling that never rises again,
T04 halves it and fulfilled packets of that size raise it by an eighth. It does
not go below the floor, which rises when rounding leaves too little of a packet.

Refusals of packets that were sent before the last reaction say nothing new and
change nothing. Pure: `now_ms` is any clock that does not step back.
"""

from connector.limits import (
    STREAM_BACKOFF_MAX_MS,
    STREAM_BACKOFF_MIN_MS,
    STREAM_SENDER_IN_FLIGHT_MAX,
    STREAM_SETBACKS_MAX,
    STREAM_WINDOW_START,
)


class Congestion:
    """The state of one payment's path. `packet_max` bounds a packet's amount from the start."""

    def __init__(self, packet_max: int) -> None:
        self.window = STREAM_WINDOW_START
        self.ceiling = packet_max
        self.packet_limit = packet_max
        self.floor = 1
        self.retry_at_ms = 0
        self.setbacks = 0
        self._slow_start = True
        self._acknowledged = 0
        self._reacted_at = 0

    @property
    def exhausted(self) -> bool:
        """Whether nothing has got through for so long that it is not worth trying."""
        return self.setbacks >= STREAM_SETBACKS_MAX

    def bound(self, amount: int) -> None:
        """No packet may be larger than `amount`, whatever comes."""
        self.ceiling = min(self.ceiling, amount)
        self.packet_limit = min(self.packet_limit, self.ceiling)
        self.floor = min(self.floor, self.ceiling)

    def fulfilled(self, amount: int) -> None:
        """A packet of `amount` got through."""
        self.setbacks = 0
        self._acknowledged += 1
        if self._slow_start or self._acknowledged >= self.window:
            self._acknowledged = 0
            self.window = min(self.window + 1, STREAM_SENDER_IN_FLIGHT_MAX)
        # Payments are split evenly, so a packet may be a little below the limit it tested.
        if amount * 2 > self.packet_limit:
            self.packet_limit = min(self.packet_limit + max(1, self.packet_limit // 8), self.ceiling)

    def _is_news(self, sequence: int, next_sequence: int) -> bool:
        if sequence < self._reacted_at:
            return False
        self._reacted_at = next_sequence
        self.setbacks += 1
        return True

    def back_off(self, sequence: int, next_sequence: int, now_ms: int) -> bool:
        """The path lacked capacity for packet `sequence`; `next_sequence` is the next to be sent.

        Returns whether that was news.
        """
        if not self._is_news(sequence, next_sequence):
            return False
        self._slow_start = False
        self._acknowledged = 0
        self.window = max(1, self.window // 2)
        self.retry_at_ms = now_ms + min(
            STREAM_BACKOFF_MIN_MS << min(self.setbacks - 1, 8), STREAM_BACKOFF_MAX_MS
        )
        return True

    def lacking_liquidity(self, sequence: int, next_sequence: int, now_ms: int, amount: int) -> None:
        """T04: packets of `amount`, as many as were in flight, are more than somebody may owe."""
        if self.back_off(sequence, next_sequence, now_ms):
            self.packet_limit = max(self.floor, min(self.packet_limit, amount) // 2)

    def too_small(self, amount: int) -> None:
        """Rounding left too little of a packet of `amount`: none is to be that small again."""
        self.floor = min(max(self.floor, amount * 2), self.ceiling)
        self.packet_limit = max(self.packet_limit, self.floor)

    def too_large(self, sequence: int, next_sequence: int, amount: int, said: tuple[int, int] | None) -> None:
        """F08 for a packet of `amount`; `said` is (received, maximum) in the rejecting node's units.

        Leaves a ceiling of 0 when not even one unit may pass.
        """
        self._is_news(sequence, next_sequence)
        received, maximum = said or (0, 0)
        largest = amount * maximum // received if received > maximum else amount // 2
        self.bound(min(largest, max(amount - 1, 0)))
