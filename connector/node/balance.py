"""The BTP sub-protocol `connector-balance`: two connectors tell each other what they hold.

A Message whose first sub-protocol has that name, with no data, is answered
with a JSON object: the account that the asked connector keeps with the asking
one, seen from its own side. Amounts are decimal strings in the asset's
smallest unit.

    {"version": 1, "asset": {"code": "USD", "scale": 9}, "debits": "1200",
     "credits": "300", "pending_debits": "0", "pending_credits": "50"}

What is said changes nothing: it is only compared. Each other's totals are what
both keep of the other anyway.
"""

from typing import Annotated, Final

import msgspec
import trio
from msgspec import Meta

from connector.core.accounts import Account
from connector.core.rates import Asset
from connector.limits import BALANCE_DIGITS_MAX
from connector.links.link import Link
from connector.links.registry import Registry
from connector.node.diagnosis import PeerAnswer

NAME: Final = "connector-balance"
_VERSION = 1

_Amount = Annotated[str, Meta(pattern=r"^[0-9]+\Z", max_length=BALANCE_DIGITS_MAX)]


class _Holding(msgspec.Struct, frozen=True):
    """An account as its keeper sees it."""

    version: int
    asset: Asset
    debits: _Amount
    credits: _Amount
    pending_debits: _Amount
    pending_credits: _Amount


def answer(account: Account) -> bytes:
    """What we hold of the peer whose `account` it is."""
    debits, credits_, pending_debits, pending_credits = map(str, account.balance())
    holding = _Holding(_VERSION, account.asset, debits, credits_, pending_debits, pending_credits)
    return msgspec.json.encode(holding)


def read(peer: str, asset: Asset, data: bytes | None) -> PeerAnswer:
    """What `peer` said; an answer that cannot be read, or is of another asset than ours, is an error."""
    if data is None:
        return PeerAnswer(peer, asset, error="it does not know connector-balance, or did not answer in time")
    try:
        holding = msgspec.json.decode(data, type=_Holding)
    except msgspec.MsgspecError as error:
        return PeerAnswer(peer, asset, error=f"its answer cannot be read: {error}")
    if holding.version != _VERSION:
        return PeerAnswer(peer, asset, error=f"it speaks version {holding.version}, we speak {_VERSION}")
    if holding.asset != asset:
        return PeerAnswer(peer, asset, error=f"it keeps the account in {holding.asset}, we in {asset}")
    return PeerAnswer(
        peer,
        asset,
        int(holding.debits),
        int(holding.credits),
        int(holding.pending_debits),
        int(holding.pending_credits),
    )


async def ask_peers(registry: Registry, accounts: dict[str, Account]) -> list[PeerAnswer]:
    """Ask everybody who is connected, at once; `accounts` by the name of the peer."""
    answers: list[PeerAnswer] = []

    async def ask(link: Link, account: Account) -> None:
        answers.append(read(account.name, account.asset, await link.ask(NAME, b"")))

    async with trio.open_nursery() as nursery:
        for link in registry.links():
            account = accounts.get(link.peer)
            if account is not None:
                nursery.start_soon(ask, link, account)
    return sorted(answers, key=lambda each: each.peer)
