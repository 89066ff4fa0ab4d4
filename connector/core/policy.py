"""What the operator decided for the whole node."""

import msgspec

from connector.limits import EXPIRY_MARGIN_MS, HOLD_MAX_MS, IN_FLIGHT_MAX, IN_FLIGHT_PER_LINK_MAX


class Policy(msgspec.Struct, frozen=True):
    """Fees, times and bounds of a node. Amounts of time in milliseconds."""

    spread_ppm: int = 0
    expiry_margin_ms: int = EXPIRY_MARGIN_MS
    hold_max_ms: int = HOLD_MAX_MS
    in_flight_max: int = IN_FLIGHT_MAX
    in_flight_per_link_max: int = IN_FLIGHT_PER_LINK_MAX
