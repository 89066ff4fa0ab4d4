"""Children of simulated nodes: a payer that sends Prepares, a shop that answers them as told."""

import trio

from connector.links.link import Link
from connector.links.session import Item
from connector.protocol import btp, ilp


class Payer:
    """Sends Prepares over its link and keeps every reply it gets."""

    def __init__(self) -> None:
        self.link: Link | None = None
        self.replies: dict[int, list[ilp.Fulfill | ilp.Reject]] = {}
        #: Requests whose connection was lost before they were answered.
        self.lost: set[int] = set()
        self._next_id = 1

    def pay(self, prepare: ilp.Prepare) -> int:
        """Send one Prepare; its request id."""
        assert self.link is not None
        request_id = self._next_id
        self._next_id += 1
        self.replies[request_id] = []
        self.link.send([(btp.MESSAGE, request_id, ilp.encode_prepare(prepare))])
        return request_id

    def opened(self, link: Link) -> str | None:
        self.link = link
        return None

    def packets(self, link: Link, batch: list[Item]) -> None:
        for kind, request_id, packet in batch:
            assert kind == btp.RESPONSE, "a payer gets ILP replies and nothing else"
            reply = ilp.decode(packet)
            assert not isinstance(reply, ilp.Prepare)
            self.replies[request_id].append(reply)

    def drained(self, link: Link) -> None: ...

    def asked(self, link: Link, name: str, data: bytes) -> bytes | None: ...

    def closed(self, link: Link) -> None:
        self.link = None
        self.lost |= {request_id for request_id, replies in self.replies.items() if not replies}


class Shop:
    """Answers each Prepare as the first octet of its data says; the preimage follows it."""

    FULFILL, REJECT, SILENT, WRONG, TWICE, LATE, GARBAGE, SLOW = range(8)

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        #: What was fulfilled rightly, by condition: the amount, and when on the mock clock.
        self.sold: dict[bytes, int] = {}
        self.sold_ms: dict[bytes, int] = {}

    def opened(self, link: Link) -> str | None:
        return None

    def packets(self, link: Link, batch: list[Item]) -> None:
        replies: list[Item] = []
        for kind, request_id, packet in batch:
            assert kind == btp.MESSAGE
            prepare = ilp.decode_prepare(packet)
            manner, preimage = prepare.data[0], prepare.data[1:]
            fulfill = (
                btp.RESPONSE,
                request_id,
                ilp.encode_fulfill(ilp.Fulfill(preimage, b"")),
            )
            if manner == self.FULFILL:
                replies.append(fulfill)
                self._sell(prepare)
            elif manner == self.TWICE:
                replies += (fulfill, fulfill)
                self._sell(prepare)
            elif manner == self.REJECT:
                reject = ilp.encode_reject(ilp.Reject("F99", "", "no", b"why"))
                replies.append((btp.RESPONSE, request_id, reject))
            elif manner == self.WRONG:
                wrong = ilp.encode_fulfill(ilp.Fulfill(bytes(32), b""))
                replies.append((btp.RESPONSE, request_id, wrong))
            elif manner == self.GARBAGE:
                replies.append((btp.RESPONSE, request_id, b"\x0d\x00"))
            elif manner == self.LATE:
                self._nursery.start_soon(self._later, link, fulfill, prepare, 33.0)
            elif manner == self.SLOW:
                self._nursery.start_soon(self._later, link, fulfill, prepare, 2.0)
        if replies:
            link.send(replies)

    async def _later(self, link: Link, item: Item, prepare: ilp.Prepare, delay_s: float) -> None:
        await trio.sleep(delay_s)
        link.send([item])
        self._sell(prepare)

    def _sell(self, prepare: ilp.Prepare) -> None:
        self.sold[prepare.condition] = prepare.amount
        self.sold_ms[prepare.condition] = int(trio.current_time() * 1000)

    def drained(self, link: Link) -> None: ...

    def asked(self, link: Link, name: str, data: bytes) -> bytes | None: ...

    def closed(self, link: Link) -> None: ...
