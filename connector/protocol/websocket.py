"""Whole binary WebSocket frames, in and out (RFC 6455, section 5.2).

Only what the packet path needs: unfragmented binary frames without extension
bits. Everything else on the connection (handshake, ping, pong, close, text,
fragments, frames that break the protocol) is left to the WebSocket library,
octet for octet.

    FIN, RSV, opcode | MASK, length 7 / 7+16 / 7+64 | mask 4 if masked | payload
"""

import msgspec

try:
    from websockets.speedups import apply_mask
except ImportError:  # No wheel with C code for this machine.
    from websockets.utils import apply_mask

_FIN_BINARY = 0x82
_MASKED = 0x80
_FIN = 0x80
_CONTROL = 0x08
_CLOSE = 0x88


class Split(msgspec.Struct, frozen=True):
    """What one read held."""

    #: Payloads of whole binary frames, in order.
    payloads: list[bytes]
    #: Octets for the WebSocket library, in order.
    rest: bytes
    #: How many octets were used; what follows is an unfinished frame.
    used: int


class FrameSplitter:
    """Takes whole binary frames out of one direction of a connection.

    `masked` says what frames of this direction must be (from a client: true).
    A frame longer than `max_bytes` is never buffered, and one whose length is
    not in the shortest form breaks the protocol: from its header on, all goes
    to the library, which refuses it. The same after a close frame.
    """

    def __init__(self, *, masked: bool, max_bytes: int) -> None:
        assert max_bytes >= 125, "lengths of one octet are not compared with it"
        self._masked = masked
        self._max_bytes = max_bytes
        #: Inside a fragmented message: until its last frame all goes to the library.
        self._in_message = False
        #: The rest of the connection is the library's.
        self._handed_over = False

    def hand_over(self) -> None:
        """From now on everything is the library's."""
        self._handed_over = True

    def split(self, data: bytes) -> Split:
        """Take the whole frames from the front of `data`."""
        if self._handed_over:
            return Split([], data, len(data))
        payloads: list[bytes] = []
        rest: list[bytes] = []
        position, end = 0, len(data)
        wanted = _MASKED if self._masked else 0
        while position + 2 <= end:
            first, second = data[position], data[position + 1]
            length = second & 0x7F
            start = position + 2
            if length >= 126:
                octets, shortest = (2, 126) if length == 126 else (8, 65_536)
                if start + octets > end:
                    break
                length = int.from_bytes(data[start : start + octets], "big")
                start += octets
                if length < shortest or length > self._max_bytes:
                    return self._hand_over(payloads, rest, data[position:], end)
            masked = second & _MASKED
            body = start + 4 if masked else start
            stop = body + length
            if stop > end:
                break
            if first == _FIN_BINARY and masked == wanted and not self._in_message:
                payload = data[body:stop]
                payloads.append(apply_mask(payload, data[start:body]) if masked else payload)
            else:
                rest.append(data[position:stop])
                if first == _CLOSE:
                    return self._hand_over(payloads, rest, data[stop:], end)
                if not first & _CONTROL:
                    self._in_message = not first & _FIN
            position = stop
        return Split(payloads, b"".join(rest), position)

    def _hand_over(self, payloads: list[bytes], rest: list[bytes], remainder: bytes, end: int) -> Split:
        self.hand_over()
        rest.append(remainder)
        return Split(payloads, b"".join(rest), end)


def binary_frame(payload: bytes, mask: bytes = b"") -> bytes:
    """One unfragmented binary frame; masked when a client sends it."""
    length = len(payload)
    flag = _MASKED if mask else 0
    if mask:
        payload = apply_mask(payload, mask)
    if length < 126:
        return b"\x82%c%b%b" % (flag | length, mask, payload)
    if length < 65_536:
        return b"\x82%c%b%b%b" % (flag | 126, length.to_bytes(2, "big"), mask, payload)
    return b"\x82%c%b%b%b" % (flag | 127, length.to_bytes(8, "big"), mask, payload)
