"""The chart of accounts: what accounts there are, and what a ledger knows them by.

Accounts of one asset share a ledger number, so that no transfer can mix two.
Account ids follow from (node, kind, name, asset): any number of connectors
share one cluster without meeting, and a connector that starts anew finds its
own again.
"""

from enum import IntEnum
from functools import cache
from hashlib import sha256

from connector.core.rates import Asset


class Kind(IntEnum):
    """What an account is for; the number is its `code` in the ledger."""

    #: What a peer owes us (debits) and we owe it (credits).
    PEER = 1
    #: The same for an account that lives in this node.
    LOCAL = 2
    #: What we earned: the spread.
    FEES = 3
    #: The two sides of a packet that changes its asset, and what rounding leaves.
    EXCHANGE = 4
    #: The other side of every settlement.
    SETTLEMENT = 5
    #: What moves on a chain: deposits, redemptions, payouts.
    CHAIN = 6
    #: The other side of what is in doubt.
    LOSSES = 7
    #: Balances brought into a new ledger.
    OPENING = 8
    #: No balance: says which journal feeds the ledger.
    JOURNAL = 9

    @property
    def word(self) -> str:
        """As people and JSON have it."""
        return self.name.lower()


#: Kinds that each asset has once; all others have a holder and a number.
ONE_PER_ASSET = frozenset({Kind.FEES, Kind.EXCHANGE, Kind.SETTLEMENT, Kind.LOSSES})
#: Kinds whose balance over time the ledger keeps.
WITH_HISTORY = frozenset({Kind.PEER, Kind.LOCAL, Kind.SETTLEMENT})


class Code(IntEnum):
    """Why a transfer was made: its `code` in the ledger."""

    PACKET = 1
    FEE = 2
    EXCHANGE = 3
    SETTLEMENT = 4
    DOUBT = 5
    OPENING = 6


def _number(*words: object) -> int:
    # Words are joined by a character that none of them can hold.
    return int.from_bytes(sha256("\0".join(map(str, words)).encode()).digest()[:16], "little")


@cache
def ledger_number(asset: Asset) -> int:
    """The ledger's number of an asset: 31 bits of a hash, never 0."""
    return _number("ledger", asset.code, asset.scale) % (2**31 - 1) + 1


def account_id(node: str, kind: Kind, name: str, asset: Asset) -> int:
    """The ledger's id of an account; `node` is the node's ILP address."""
    return _number("account", node, kind.word, name, asset.code, asset.scale) or 1


def journal_account_id(node: str, journal_id: int) -> int:
    """The id of the account that says that a journal feeds a ledger."""
    return _number("journal", node, journal_id) or 1


def node_number(node: str) -> int:
    """The `user_data_128` of accounts that belong to `node`."""
    return _number("node", node) or 1
