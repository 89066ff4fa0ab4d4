"""Transfers as TigerBeetle has them: 128 octets each, little-endian.

Both ledgers take transfers in this layout, so what is recorded is what is
sent, octet for octet. Source: TigerBeetle's reference, "Transfer".
"""

from struct import Struct
from typing import Final

import msgspec

TRANSFER_BYTES: Final = 128

# Flags.
LINKED: Final = 1 << 0
PENDING: Final = 1 << 1
POST_PENDING: Final = 1 << 2
VOID_PENDING: Final = 1 << 3

#: id, debit account, credit account, amount (low, high), pending id, user_data_128, user_data_64,
#: user_data_32, timeout, ledger, code, flags, timestamp.
LAYOUT: Final = Struct("<16s16s16sQQ16s16sQIIIHHQ")
assert LAYOUT.size == TRANSFER_BYTES


class Transfer(msgspec.Struct, frozen=True, kw_only=True):
    """One transfer. Ids are 128-bit integers, `amount` is in the asset's smallest unit."""

    id: int
    debit_account_id: int = 0
    credit_account_id: int = 0
    amount: int = 0
    pending_id: int = 0
    user_data_128: int = 0
    user_data_64: int = 0
    user_data_32: int = 0
    timeout: int = 0
    ledger: int = 0
    code: int = 0
    flags: int = 0
    #: When the ledger posted it, in nanoseconds; 0 in a request.
    timestamp: int = 0


def pack(transfer: Transfer) -> bytes:
    """The 128 octets of `transfer`."""
    return LAYOUT.pack(
        transfer.id.to_bytes(16, "little"),
        transfer.debit_account_id.to_bytes(16, "little"),
        transfer.credit_account_id.to_bytes(16, "little"),
        transfer.amount & 0xFFFF_FFFF_FFFF_FFFF,
        transfer.amount >> 64,
        transfer.pending_id.to_bytes(16, "little"),
        transfer.user_data_128.to_bytes(16, "little"),
        transfer.user_data_64,
        transfer.user_data_32,
        transfer.timeout,
        transfer.ledger,
        transfer.code,
        transfer.flags,
        transfer.timestamp,
    )


def unpack(octets: bytes | memoryview) -> list[Transfer]:
    """Every transfer in `octets`, whose length must be a multiple of 128."""
    found = []
    for row in LAYOUT.iter_unpack(octets):
        ident, debit, credit, low, high, pending, data_128, *rest = row
        found.append(
            Transfer(
                id=int.from_bytes(ident, "little"),
                debit_account_id=int.from_bytes(debit, "little"),
                credit_account_id=int.from_bytes(credit, "little"),
                amount=high << 64 | low,
                pending_id=int.from_bytes(pending, "little"),
                user_data_128=int.from_bytes(data_128, "little"),
                user_data_64=rest[0],
                user_data_32=rest[1],
                timeout=rest[2],
                ledger=rest[3],
                code=rest[4],
                flags=rest[5],
                timestamp=rest[6],
            )
        )
    return found
