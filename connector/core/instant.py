"""The two clocks a decision needs, read once per batch by the shell."""

import msgspec


class Instant(msgspec.Struct, frozen=True, gc=False):
    """A moment: `wall_ms` since the Unix epoch, `mono_ms` on a clock that never steps.

    Expiries on the wire are wall time. What we wait for is kept in monotonic
    time, so that a step of the system's clock neither expires what is in
    flight nor keeps it alive.
    """

    wall_ms: int
    mono_ms: int
