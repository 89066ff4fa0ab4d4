"""The keys and the encryption of STREAM (RFC 29, sections 5.1 and 6).

Two keys follow from the 32-octet secret that both ends share: one encrypts the
packets of both directions (AES-256-GCM), one turns the encrypted data of a
Prepare into its fulfillment.

    encrypted = IV 12 | authentication tag 16 | ciphertext

An IV must never be used twice under one key; it comes in as an argument.
"""

import hmac
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from connector.errors import LocalProtocolError, RemoteProtocolError
from connector.limits import ILP_DATA_MAX_BYTES

SECRET_BYTES: Final = 32
IV_BYTES: Final = 12
TAG_BYTES: Final = 16
#: What encryption adds to a packet.
OVERHEAD_BYTES: Final = IV_BYTES + TAG_BYTES


def derive(key: bytes, text: bytes) -> bytes:
    """HMAC-SHA256: 32 octets that only who knows `key` can make."""
    return hmac.digest(key, text, "sha256")


def condition(fulfillment: bytes) -> bytes:
    """The condition that `fulfillment` opens."""
    return sha256(fulfillment).digest()


class Keys:
    """What follows from one shared secret. Raises LocalProtocolError unless it has 32 octets."""

    __slots__ = ("_cipher", "_fulfillment_key")

    def __init__(self, shared_secret: bytes) -> None:
        if len(shared_secret) != SECRET_BYTES:
            raise LocalProtocolError(f"shared secret: {len(shared_secret)} bytes, {SECRET_BYTES} expected")
        self._cipher = AESGCM(derive(shared_secret, b"ilp_stream_encryption"))
        self._fulfillment_key = derive(shared_secret, b"ilp_stream_fulfillment")

    def encrypt(self, plain: bytes, iv: bytes) -> bytes:
        """Encrypt a packet under an IV that was never used with this secret before."""
        if len(iv) != IV_BYTES:
            raise LocalProtocolError(f"IV: {len(iv)} bytes, {IV_BYTES} expected")
        if len(plain) > ILP_DATA_MAX_BYTES - OVERHEAD_BYTES:
            raise LocalProtocolError(f"stream packet: {len(plain)} bytes do not fit in an ILP packet")
        sealed = self._cipher.encrypt(iv, plain, None)
        return b"%b%b%b" % (iv, sealed[-TAG_BYTES:], sealed[:-TAG_BYTES])

    def decrypt(self, data: bytes) -> bytes:
        """Open what the other end encrypted. Raises RemoteProtocolError if it did not, or not for us."""
        if len(data) < OVERHEAD_BYTES:
            raise RemoteProtocolError(
                f"encrypted data: {len(data)} bytes, at least {OVERHEAD_BYTES} expected",
            )
        try:
            return self._cipher.decrypt(
                data[:IV_BYTES],
                data[OVERHEAD_BYTES:] + data[IV_BYTES:OVERHEAD_BYTES],
                None,
            )
        except InvalidTag:
            raise RemoteProtocolError("encrypted data: changed on its way, or another secret") from None

    def fulfillment(self, data: bytes) -> bytes:
        """What fulfils a Prepare whose data is `data`, encrypted."""
        return hmac.digest(self._fulfillment_key, data, "sha256")
