"""A stateless STREAM receiver (RFC 29): one account that takes money.

Every connection's address ends in a token, `account.TOKEN`:

    token = base64url(nonce 18 | MAC 15)

The MAC shows that we gave the address out; the shared secret is derived from the
token. So nothing is stored between packets, nodes that know the server secret
can answer for each other, and a restart forgets nothing.

Pure and synchronous: it is called on the node's event loop for each packet.

Invariants: a Fulfill is returned only for a packet that decrypts, is a Prepare
inside too, holds at least the sender's minimum, and whose condition our
fulfillment opens. Every Reject names the account. What cannot be authenticated
gets no encrypted answer.
"""

import hmac
from base64 import b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from typing import Final

from connector.errors import LocalProtocolError, RemoteProtocolError
from connector.limits import STREAM_CONNECTIONS_CACHED_MAX, STREAM_FRAMES_MAX, U32_MAX, U64_MAX
from connector.protocol import ilp, stream
from connector.protocol.address import child
from connector.protocol.stream_crypto import Keys, condition, derive

NONCE_BYTES: Final = 18
#: 120 bits; with the nonce a multiple of three, so that base64 has no spare bits
#: and each token has exactly one spelling.
_MAC_BYTES: Final = 15
_TOKEN_CHARS: Final = (NONCE_BYTES + _MAC_BYTES) * 4 // 3
_SERVER_SECRET_MIN_BYTES: Final = 32

_MONEY_ONLY: Final = "this account takes money, not data"
_ODD_STREAMS: Final = "a client's streams have odd ids"


class StreamServer:
    """Receives STREAM payments for `account_address`, whose asset is `asset_code` of `asset_scale` decimals.

    `server_secret` is at least 32 octets and must be kept, else addresses given
    out before are lost. Raises LocalProtocolError for unusable arguments.
    """

    def __init__(
        self,
        server_secret: bytes,
        account_address: str,
        asset_code: str,
        asset_scale: int,
    ) -> None:
        if len(server_secret) < _SERVER_SECRET_MIN_BYTES:
            raise LocalProtocolError(f"server secret: at least {_SERVER_SECRET_MIN_BYTES} bytes expected")
        child(account_address, "-" * _TOKEN_CHARS)
        self.account_address: Final = account_address
        self.asset_code: Final = asset_code
        self.asset_scale: Final = asset_scale
        # With the address in the keys, accounts that share a server secret
        # cannot answer for each other.
        root = derive(server_secret, account_address.encode("ascii"))
        self._token_key = derive(root, b"connector_stream_token")
        self._secret_key = derive(root, b"connector_stream_shared_secret")
        self._connections: dict[str, Keys] = {}
        self._introduction = (
            # Streams cost a stateless receiver nothing.
            stream.MaxStreamId(U32_MAX),
            stream.AssetDetails(asset_code, asset_scale),
        )
        stream.encode(stream.Packet(0, ilp.FULFILL, 0, self._introduction))

    def generate_credentials(self, nonce: bytes) -> tuple[str, bytes]:
        """A new connection's (destination address, shared secret) from 18 octets never used before."""
        if len(nonce) != NONCE_BYTES:
            raise LocalProtocolError(f"nonce: {len(nonce)} bytes, {NONCE_BYTES} expected")
        token = urlsafe_b64encode(nonce + self._mac(nonce)).decode("ascii")
        return child(self.account_address, token), self._shared_secret(token)

    def _mac(self, nonce: bytes) -> bytes:
        return derive(self._token_key, nonce)[:_MAC_BYTES]

    def _shared_secret(self, token: str) -> bytes:
        return derive(self._secret_key, token.encode("ascii"))

    def handle(self, prepare: ilp.Prepare, iv: bytes) -> ilp.Fulfill | ilp.Reject:
        """Answer a Prepare that has come for this account or below it.

        `iv` is 12 random octets for this call alone. Never raises for what a
        sender did. Expiry is the caller's business: it has the clock.
        """
        if prepare.destination == self.account_address:
            # Also how `connector ping` learns that it has reached the account.
            return self._reject("F06", "payments go to the addresses that this account's SPSP endpoint gives")
        keys = self._connection(prepare.destination)
        if keys is None:
            return self._reject("F02", "this account did not give out that address")
        try:
            request = stream.decode(keys.decrypt(prepare.data))
        except RemoteProtocolError as error:
            return self._reject("F06", str(error))
        if request.packet_type != ilp.PREPARE:
            return self._reject("F06", "the encrypted packet is not for a prepare")
        return self._answer(prepare, request, keys, iv)

    def _answer(
        self,
        prepare: ilp.Prepare,
        request: stream.Packet,
        keys: Keys,
        iv: bytes,
    ) -> ilp.Fulfill | ilp.Reject:
        fulfillment = keys.fulfillment(prepare.data)
        refusal: str | None
        if not hmac.compare_digest(condition(fulfillment), prepare.condition):
            refusal = "the condition is not one that this connection can fulfill"
        elif prepare.amount < request.prepare_amount:
            refusal = "less arrived than the sender's minimum"
        else:
            refusal = _violation(request.frames)
        packet_type = ilp.REJECT if refusal else ilp.FULFILL
        frames = self._frames(request.frames, 0 if refusal else prepare.amount)
        reply = stream.Packet(request.sequence, packet_type, prepare.amount, frames)
        data = keys.encrypt(stream.encode(reply), iv)
        if refusal:
            return self._reject("F99", refusal, data)
        return ilp.Fulfill(fulfillment, data)

    def _frames(self, asked: tuple[stream.Frame, ...], received: int) -> tuple[stream.Frame, ...]:
        """What answers the frames of a Prepare of which `received` is taken."""
        frames: list[stream.Frame] = []
        shares: dict[int, int] = {}
        introduce = False
        for frame in asked:
            if isinstance(frame, stream.StreamMoney):
                if frame.stream_id % 2 == 0:
                    frames.append(stream.ConnectionClose(stream.PROTOCOL_VIOLATION, _ODD_STREAMS))
                    continue
                shares[frame.stream_id] = shares.get(frame.stream_id, 0) + frame.shares
            elif isinstance(frame, stream.NewAddress):
                introduce = True
            elif isinstance(frame, stream.StreamData):
                frames.append(stream.StreamClose(frame.stream_id, stream.APPLICATION_ERROR, _MONEY_ONLY))
        total = sum(shares.values()) or 1
        frames += [
            # Without state the total so far is unknown: this packet's part of it
            # is a true lower bound, and senders keep the highest they have seen.
            stream.StreamMaxMoney(stream_id, U64_MAX, received * share // total)
            for stream_id, share in shares.items()
        ]
        return (*self._introduction, *frames)[:STREAM_FRAMES_MAX] if introduce else tuple(frames)

    def _connection(self, destination: str) -> Keys | None:
        """The keys of the connection at `destination`, or None if we never gave it out."""
        prefix, _, token = destination.rpartition(".")
        if prefix != self.account_address:
            return None
        keys = self._connections.get(token)
        if keys is None:
            if not self._is_ours(token):
                return None
            if len(self._connections) >= STREAM_CONNECTIONS_CACHED_MAX:
                self._connections.clear()
            keys = self._connections[token] = Keys(self._shared_secret(token))
        return keys

    def _is_ours(self, token: str) -> bool:
        if len(token) != _TOKEN_CHARS:
            return False
        try:
            octets = b64decode(token, b"-_", validate=True)
        except (Base64Error, ValueError):
            return False
        nonce, mac = octets[:NONCE_BYTES], octets[NONCE_BYTES:]
        return hmac.compare_digest(mac, self._mac(nonce))

    def _reject(self, code: str, message: str, data: bytes = b"") -> ilp.Reject:
        return ilp.Reject(code, self.account_address, message, data)


def _violation(frames: tuple[stream.Frame, ...]) -> str | None:
    """Why a packet whose money is in order must be refused all the same.

    A reply acknowledges every frame of its packet. This receiver keeps no data,
    so it may not acknowledge any: it refuses the packet, money included, and
    closes the stream, which tells the sender's application why and stops it from
    sending the same again.
    """
    for frame in frames:
        if isinstance(frame, stream.StreamData):
            return _MONEY_ONLY
        if isinstance(frame, stream.StreamMoney) and frame.stream_id % 2 == 0:
            # RFC 29, 4.4.1: "If an endpoint sends a packet for an unopened stream with
            # the wrong number, the receiving endpoint MUST close the connection".
            return _ODD_STREAMS
    return None
