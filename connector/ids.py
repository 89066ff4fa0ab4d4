"""Identifiers that more than one layer speaks of."""


def packet_id(condition: bytes) -> str:
    """A packet's id, the same at every hop: the first 16 octets of its condition, in hex.

    It only correlates (two packets may share a condition); the key of a packet
    on a node is its link and request id.
    """
    return condition[:16].hex()
