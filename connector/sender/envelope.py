"""One STREAM packet on its way: sealed into a Prepare, and its reply opened (RFC 29).

Pure: the IV and the condition of a test packet come in as arguments. A reply's
frames and amount are believed only when they are encrypted with the shared
secret, repeat the sequence, and name the type of the ILP packet they came in:
all else on the way back is the word of the connectors between.
"""

from typing import Final

import msgspec

from connector.errors import RemoteProtocolError
from connector.protocol import ilp, stream
from connector.protocol.stream_crypto import Keys, condition

F08_DATA_BYTES: Final = 16


class Reply(msgspec.Struct, frozen=True):
    """What came back for one packet.

    `code` is empty for a Fulfill. `delivered`, in the receiver's units, is what
    arrived there, or None when the receiver did not say so itself; then there
    are no frames either. `too_large` is (received, maximum) of an F08.
    """

    code: str
    triggered_by: str
    message: str
    delivered: int | None
    frames: tuple[stream.Frame, ...]
    too_large: tuple[int, int] | None = None

    @property
    def fulfilled(self) -> bool:
        """Whether the money was taken."""
        return not self.code


def seal(
    keys: Keys,
    request: stream.Packet,
    *,
    destination: str,
    amount: int,
    expires_at_ms: int,
    iv: bytes,
    unfulfillable: bytes | None = None,
) -> ilp.Prepare:
    """The Prepare that carries `request`; with a random `unfulfillable` as condition it is a test packet."""
    data = keys.encrypt(stream.encode(request), iv)
    opens = unfulfillable or condition(keys.fulfillment(data))
    return ilp.Prepare(amount, expires_at_ms, opens, destination, data)


def open_reply(keys: Keys, prepare: ilp.Prepare, sequence: int, reply: bytes) -> Reply:
    """Read the reply to a sealed Prepare.

    Raises RemoteProtocolError for what is no reply to it, a wrong fulfillment
    included. Not raised for data that cannot be authenticated.
    """
    packet = ilp.decode(reply)
    if isinstance(packet, ilp.Prepare):
        raise RemoteProtocolError("the reply to a prepare is a prepare")
    if isinstance(packet, ilp.Fulfill):
        if condition(packet.fulfillment) != prepare.condition:
            raise RemoteProtocolError("the fulfillment does not open the condition")
        answer = _authenticated(keys, packet.data, ilp.FULFILL, sequence)
        return Reply("", "", "", *answer)
    answer = _authenticated(keys, packet.data, ilp.REJECT, sequence)
    too_large = None
    if packet.code == "F08" and len(packet.data) >= F08_DATA_BYTES:
        too_large = (int.from_bytes(packet.data[:8], "big"), int.from_bytes(packet.data[8:16], "big"))
    return Reply(packet.code, packet.triggered_by, packet.message, *answer, too_large)


def _authenticated(
    keys: Keys,
    data: bytes,
    packet_type: int,
    sequence: int,
) -> tuple[int | None, tuple[stream.Frame, ...]]:
    try:
        answer = stream.decode(keys.decrypt(data))
    except RemoteProtocolError:
        return None, ()
    if answer.packet_type != packet_type or answer.sequence != sequence:
        # RFC 29, 5.2: "A sender MUST discard a STREAM packet in which the Sequence
        # does not match"; the same for a type that does not.
        return None, ()
    return answer.prepare_amount, answer.frames
