"""Accounts over HTTP.

    GET  /api/accounts?name=&kind=&asset=       every account that fits, with its balance
    GET  /api/accounts/NAME                     one account
    GET  /api/accounts/NAME/history?from_ms=&to_ms=&limit=&cursor=
                                                its transfers in the ledger, newest first
    POST /api/accounts/NAME/settle              a payment made by other means is booked
    GET  /api/in-doubt                          packets with a side that nobody knows the end of
    POST /api/in-doubt/NUMBER                   one side is decided

`?kind=` and `?asset=` (USD or USD/6) tell accounts of one name apart.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Literal, TypeVar

import msgspec
import trio
from msgspec import Meta
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from connector.core.accounts import Account
from connector.limits import (
    BALANCE_SLICE_ACCOUNTS,
    HISTORY_ROWS_DEFAULT,
    HISTORY_ROWS_MAX,
    REFERENCE_MAX_CHARACTERS,
    U64_MAX,
)
from connector.node.api import body_of, change, number_of, read
from connector.node.clerk import Clerk, Refused, Row, describe, describe_doubt

T = TypeVar("T")

#: A time whose nanoseconds the ledger can count.
_TIME_MAX_MS = (2**63 - 1) // 1_000_000 - 1


class Settlement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A debt that was paid by other means, in the asset's smallest unit."""

    amount: int | Annotated[str, Meta(pattern="^[0-9]{1,20}$")]
    #: `paid`: we paid the holder; `received`: the holder paid us.
    direction: Literal["paid", "received"]
    #: What the payment is known by; the same is booked once.
    reference: Annotated[str, Meta(min_length=1, max_length=REFERENCE_MAX_CHARACTERS)]
    asset: str = ""
    kind: str = ""


class Decision(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What became of one side of a packet in doubt."""

    side: Literal["incoming", "outgoing"]
    #: Whether the peer of that side owes us (incoming), or we owe it (outgoing).
    owed: bool


class AccountsHttp:
    """Answers for one node's accounts."""

    def __init__(self, name: str, clerk: Clerk) -> None:
        self._name = name
        self._clerk = clerk

    def routes(self) -> list[BaseRoute]:
        """Where they are."""
        return [
            Route("/api/accounts", read(self.accounts)),
            Route("/api/accounts/{name}", read(self.account)),
            Route("/api/accounts/{name}/history", read(self.history)),
            Route("/api/accounts/{name}/settle", change(self.settle), methods=["POST"]),
            Route("/api/in-doubt", read(self.in_doubt)),
            Route("/api/in-doubt/{number:int}", change(self.decide), methods=["POST"]),
        ]

    async def accounts(self, request: Request) -> object:
        """Every account that fits."""
        query = request.query_params
        found = self._clerk.accounts(query.get("name", ""), query.get("kind", ""), query.get("asset", ""))
        rows = await _rows(found, describe)
        return {"node": self._name, "address": self._clerk.address, "accounts": rows}

    def _account(self, request: Request) -> Account:
        query = request.query_params
        name: str = request.path_params["name"]
        return self._clerk.account(name, query.get("kind", ""), query.get("asset", ""))

    async def account(self, request: Request) -> object:
        """One account."""
        return {"node": self._name, "account": describe(self._account(request))}

    async def history(self, request: Request) -> object:
        """A page of its transfers."""
        account = self._account(request)
        return await self._clerk.page(
            account,
            from_ms=number_of(request, "from_ms", 0, 0, _TIME_MAX_MS),
            to_ms=number_of(request, "to_ms", 0, 0, _TIME_MAX_MS),
            limit=number_of(request, "limit", HISTORY_ROWS_DEFAULT, 1, HISTORY_ROWS_MAX),
            cursor=number_of(request, "cursor", 0, 0, 2**63 - 1),
        )

    async def settle(self, request: Request) -> object:
        """Book a payment."""
        wanted = await body_of(request, Settlement)
        amount = int(wanted.amount)
        if not 1 <= amount <= U64_MAX:
            raise Refused(400, f"amount: {amount} is not between 1 and {U64_MAX}", "amount")
        query = request.query_params
        account = self._clerk.account(
            request.path_params["name"],
            wanted.kind or query.get("kind", ""),
            wanted.asset or query.get("asset", ""),
        )
        by_us = wanted.direction == "paid"
        booked = await self._clerk.settle(account, amount, wanted.reference, by_us=by_us)
        return {
            "already_booked": booked.already_booked,
            "amount": str(amount),
            "direction": wanted.direction,
            "reference": wanted.reference,
            "account": booked.account,
        }

    async def in_doubt(self, request: Request) -> object:
        """Every packet in doubt."""
        doubts = list(self._clerk.books.book.doubts.values())
        return {"node": self._name, "in_doubt": await _rows(doubts, describe_doubt)}

    async def decide(self, request: Request) -> object:
        """Close one side."""
        decision = await body_of(request, Decision)
        return await self._clerk.decide(request.path_params["number"], decision.side, owed=decision.owed)


async def _rows(found: Sequence[T], describe: Callable[[T], Row]) -> list[Row]:
    """A row for each, made in slices: packets must not wait for tens of thousands."""
    rows = []
    for index, each in enumerate(found):
        rows.append(describe(each))
        if index % BALANCE_SLICE_ACCOUNTS == 0:
            await trio.lowlevel.checkpoint()
    return rows
