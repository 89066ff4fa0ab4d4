"""Diagnosis: what the doctor's numbers mean. Pure; `doctor` brings the numbers.

Each check says what was compared, what came out, and what to do about it.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from connector.core import entries
from connector.core.accounts import Account, Doubt
from connector.core.book import Book
from connector.core.entries import Side
from connector.core.rates import Asset
from connector.ledger.api import LedgerAccount
from connector.limits import DISK_FREE_ERROR_BYTES, DISK_FREE_WARN_BYTES

Result = Literal["ok", "warning", "error"]
Balance = tuple[int, int, int, int]

#: Accounts, packets or the like that one check names; the others it counts.
_NAMED_MAX = 5


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    name: str
    result: Result
    explanation: str
    #: What to do; empty when nothing is.
    advice: str = ""


class Report(msgspec.Struct, frozen=True):
    """All checks; `ok` when none found an error."""

    node: str
    ok: bool
    checks: list[Check]


class PeerAnswer(msgspec.Struct, frozen=True):
    """What a peer says it holds against us, seen from its side; or `error`: why it says nothing."""

    peer: str
    asset: Asset
    debits: int = 0
    credits: int = 0
    pending_debits: int = 0
    pending_credits: int = 0
    error: str = ""


class Standing(msgspec.Struct, frozen=True):
    """What an account of ours holds at one moment."""

    balance: Balance

    @property
    def net(self) -> int:
        """Posted debits less credits."""
        return self.balance[0] - self.balance[1]

    @property
    def pending(self) -> int:
        """What is pending, on both sides."""
        return self.balance[2] + self.balance[3]


def totals(book: Book) -> Check:
    """Per asset, debits equal credits."""
    sums = book.totals()
    wrong = [
        f"{asset}: posted {each.debits_posted} debits, {each.credits_posted} credits; "
        f"pending {each.debits_pending}, {each.credits_pending}"
        for asset, each in sums.items()
        if each.debits_posted != each.credits_posted or each.debits_pending != each.credits_pending
    ]
    if wrong:
        advice = "Stop the node and keep its state directory: this is a bug, please report it."
        return Check("book balances", "error", f"debits and credits differ: {_named(wrong)}", advice)
    count = sum(1 for _ in book.accounts())
    assets = ", ".join(str(asset) for asset in sums) or "no asset"
    return Check("book balances", "ok", f"debits equal credits in {count} accounts of {assets}")


def ledger_equals(pairs: Sequence[tuple[Account, LedgerAccount | None]]) -> Check:
    """The ledger holds what was posted to it, account for account."""
    name = "ledger equals book"
    wrong = []
    for account, found in pairs:
        held = (0, 0, 0, 0) if found is None else balance_of(found)
        if held != account.balance():
            lost = " (which the ledger does not know)" if found is None else ""
            wrong.append(
                f"{account.kind.word} {account.name} {account.asset}{lost}: ledger {_words(held)}, "
                f"posted {_words(account.balance())}"
            )
    if not wrong:
        return Check(name, "ok", f"{len(pairs)} accounts are equal, posted and pending")
    advice = (
        "The ledger was changed by something else, or lost data. If only pending sums differ: "
        "'connector ledger repair'. Else stop the node and restore the ledger from a backup; or, if the "
        "journal is right, move the ledger away and run 'connector ledger open' after a restart."
    )
    return Check(name, "error", f"{len(wrong)} accounts differ: {_named(wrong)}", advice)


def ledger_balances(rows: Iterable[LedgerAccount], unknown: Sequence[LedgerAccount]) -> Check:
    """Per ledger number, debits equal credits over all accounts of the node."""
    name = "ledger balances"
    sums: dict[int, list[int]] = {}
    for row in (*rows, *unknown):
        totals = sums.setdefault(row.ledger, [0, 0, 0, 0])
        for index, amount in enumerate(balance_of(row)):
            totals[index] += amount
    wrong = [
        f"ledger {number}: {_words((dp, cp, dd, cd))}"
        for number, (dp, cp, dd, cd) in sums.items()
        if dp != cp or dd != cd
    ]
    if wrong:
        advice = "The ledger is damaged: stop the node and restore the ledger from a backup."
        return Check(name, "error", f"debits and credits differ: {_named(wrong)}", advice)
    strangers = [f"{row.id:032x} (code {row.code})" for row in unknown if any(balance_of(row))]
    if strangers:
        advice = "They belong to a journal that this node does not have: see 'connector ledger rebuild'."
        return Check(
            name, "error", f"{len(strangers)} accounts have balances and no name: {_named(strangers)}", advice
        )
    return Check(name, "ok", f"debits equal credits in {_count(len(sums), 'ledger', 'ledgers')}")


def journal_equals(
    book: Iterable[tuple[Account, Balance]], replayed: Book, held: tuple[set[int], set[int]], count: int
) -> Check:
    """The book is what was posted and the entries after it; `held` are its packets and doubts by number."""
    name = "book equals ledger and journal"
    live = {(each.kind, each.name, each.asset): balance for each, balance in book}
    other = {(each.kind, each.name, each.asset): each.balance() for each in replayed.accounts()}
    wrong = []
    for key in live.keys() | other.keys():
        ours, theirs = live.get(key, (0, 0, 0, 0)), other.get(key, (0, 0, 0, 0))
        if ours != theirs:
            kind, holder, asset = key
            wrong.append(f"{kind.word} {holder} {asset}: book {_words(ours)}, replayed {_words(theirs)}")
    for word, numbers, again in (
        ("on their way", held[0], replayed.pending.keys()),
        ("in doubt", held[1], replayed.doubts.keys()),
    ):
        if numbers != again:
            wrong.append(f"packets {word}: {len(numbers)} in the book, {len(again)} replayed")
    if wrong:
        advice = "Stop the node and keep its state directory: this is a bug, please report it."
        return Check(name, "error", _named(wrong), advice)
    return Check(
        name, "ok", f"{len(live)} accounts are equal, with {_count(count, 'entry', 'entries')} to post"
    )


def doubts(found: Iterable[Doubt]) -> Check:
    """What nobody knows the end of."""
    name = "in doubt"
    count = 0
    values: dict[Asset, list[int]] = {}
    for doubt in found:
        count += 1
        if doubt.incoming_side is Side.OPEN:
            values.setdefault(doubt.incoming.asset, [0, 0])[entries.INCOMING] += doubt.amount_in
        if doubt.outgoing_side is Side.OPEN and doubt.outgoing is not None:
            values.setdefault(doubt.outgoing.asset, [0, 0])[entries.OUTGOING] += doubt.amount_out
    if not count:
        return Check(name, "ok", "no packet is in doubt")
    worth = "; ".join(
        f"units of {asset}: up to {owed_us} owed to us, up to {we_owe} owed by us"
        for asset, (owed_us, we_owe) in values.items()
    )
    advice = "Agree with the peers what is owed, and close each side: 'connector accounts in-doubt'."
    return Check(name, "warning", f"{_count(count, 'packet', 'packets')} ({worth})", advice)


def journal_health(sync: str, failure: str, size: int, free: int) -> list[Check]:
    """What the journal is written with, and where to."""
    checks = []
    if failure:
        advice = "New packets are refused until it can be written: see to its disk."
        checks.append(Check("journal", "error", f"cannot be written: {failure}", advice))
    elif sync == "interval":
        advice = 'Set journal.sync = "always" where that matters.'
        explanation = f"is written ({_size(size)}); a power loss may take the last second of balances"
        checks.append(Check("journal", "warning", explanation, advice))
    else:
        checks.append(Check("journal", "ok", f"is on disk before frames leave ({_size(size)})"))
    result: Result = "ok"
    if free < DISK_FREE_WARN_BYTES:
        result = "error" if free < DISK_FREE_ERROR_BYTES else "warning"
    advice = "" if result == "ok" else "Make room: a journal that cannot be written refuses packets."
    checks.append(Check("disk", result, f"{_size(free)} free", advice))
    return checks


def peer_agrees(answer: PeerAnswer, before: Standing, after: Standing) -> Check:
    """What a peer holds is what we hold, but for what was in flight.

    Net is compared, not debits with credits: what is taken back, or found owed
    after it was in doubt, is entered on one side only. `before` and `after` are
    our account before the peer was asked and after it answered: what it said
    was true at a moment between.
    """
    name = f"peer {answer.peer}"
    if answer.error:
        return Check(name, "warning", f"did not say what it holds: {answer.error}")
    theirs = answer.credits - answer.debits
    low, high = sorted((before.net, after.net))
    distance = max(0, low - theirs, theirs - high)
    # What is in doubt is pending, too.
    allowed = answer.pending_debits + answer.pending_credits + max(before.pending, after.pending)
    if distance > allowed:
        explanation = (
            f"in units of {answer.asset}, our net is {after.net} ({_words(after.balance)}), by its books "
            f"{theirs} ({answer.credits} debits and {answer.debits} credits, seen from here): {distance} "
            f"apart, with {allowed} in flight or in doubt"
        )
        advice = (
            "One of both has not booked what the other has: compare 'connector accounts history "
            f"{answer.peer}' on both sides, and 'connector accounts in-doubt'."
        )
        return Check(name, "error", explanation, advice)
    within = f", but for {distance} of {allowed} in flight or in doubt" if distance else ""
    return Check(name, "ok", f"holds the same net as we do in {answer.asset}{within}")


def balance_of(row: LedgerAccount) -> Balance:
    """As `Account.balance` has it."""
    return row.debits_posted, row.credits_posted, row.debits_pending, row.credits_pending


def _words(balance: Balance) -> str:
    debits, credits, debits_pending, credits_pending = balance
    pending = (
        f" (pending {debits_pending} and {credits_pending})" if debits_pending or credits_pending else ""
    )
    return f"{debits} debits and {credits} credits{pending}"


def _named(wrong: list[str]) -> str:
    more = f"; and {len(wrong) - _NAMED_MAX} more" if len(wrong) > _NAMED_MAX else ""
    return "; ".join(wrong[:_NAMED_MAX]) + more


def _count(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _size(octets: int) -> str:
    size = float(octets)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
