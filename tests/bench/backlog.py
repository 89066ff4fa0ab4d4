"""The poster against a backlog: a journal full of packets, and a ledger that has just come back."""

import tempfile
import time
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from connector.core import snapshot
from connector.core.accounts import Reservation
from connector.core.book import Book
from connector.core.chart import Kind
from connector.core.rates import Asset
from connector.ledger.api import Ledger
from connector.ledger.blocking import in_thread
from connector.ledger.journal import Journal
from connector.ledger.poster import Poster
from connector.ledger.store import Store

USD = Asset("USD", 6)
#: How many packets are in flight at a time, and how many entries a batch has.
WINDOW = 128
BATCH = 64
START_MS = 1_767_225_600_000


def fill(book: Book, journal: Journal, packets: int) -> None:
    """Give the journal `packets` packets, all fulfilled, with a fee each."""
    payer, payee = (book.open(Kind.PEER, name, USD, 1 << 62) for name in ("payer", "payee"))
    waiting: deque[Reservation] = deque()
    for number in range(packets):
        now_ms = START_MS + number // 50
        held = book.reserve(payer, payee, 1_000, 1, 999, number.to_bytes(16, "big"), now_ms)
        assert held is not None
        waiting.append(held)
        if len(waiting) == WINDOW:
            book.commit(waiting.popleft(), now_ms)
        if number % BATCH == 0:
            journal.append(book.take_log(), lambda: None)
    while waiting:
        book.commit(waiting.popleft(), START_MS + packets // 50)
    journal.append(book.take_log(), lambda: None)


async def measure_backlog(open_ledger: Callable[[], Awaitable[Ledger]], packets: int) -> float:
    """Transfers a second that the poster brings from a journal into a ledger of its own."""
    with tempfile.TemporaryDirectory() as name:
        book = Book()
        # A node of its own, so that no earlier round's accounts are met.
        node = f"test.bench.n{time.time_ns()}"
        store = Store(Path(name), node, "always")
        journal = Journal(store, 0, in_thread(), sync="always", snapshot=lambda: snapshot.dump(book))
        fill(book, journal, packets)
        poster = Poster(
            node, journal, open_ledger, in_thread(), fills_empty=True, on_posting=lambda: attached.set()
        )
        attached = trio.Event()
        poster.load()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.run)
            await journal.wait_durable(journal.appended)
            nursery.start_soon(poster.run)
            await attached.wait()
            begin, before = time.perf_counter(), poster.transfers
            await poster.wait_posted(journal.appended)
            speed = (poster.transfers - before) / (time.perf_counter() - begin)
            nursery.cancel_scope.cancel()
        await journal.close()
        return speed
