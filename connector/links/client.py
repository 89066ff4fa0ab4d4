"""A link for programs that send payments: dial one connector, ask it, get answers.

Used by `connector pay` and `connector ping`; a node's own links are run by
`dialer` and `listener`.
"""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from connector.errors import ConnectorError, LocalProtocolError, Unavailable
from connector.limits import AUTH_TIMEOUT_S, HANDSHAKE_TIMEOUT_S, U32_MAX
from connector.links.link import Link, dial, open_transport
from connector.links.session import Item
from connector.protocol import btp, ilp


class Client:
    """Sends ILP Prepares over one link and waits for the reply of each."""

    def __init__(self) -> None:
        self._link: Link | None = None
        self._opened = trio.Event()
        self._waiting: dict[int, tuple[trio.Event, list[bytes]]] = {}
        self._next_id = 1
        self._failure: ConnectorError | None = None

    async def send(self, packet: bytes, *, timeout_s: float) -> bytes:
        """The reply (an encoded Fulfill or Reject) to an encoded Prepare.

        Raises Unavailable when the link is gone or no reply comes in time.
        """
        link = self._usable()
        request_id = self._next_id
        self._next_id = request_id % U32_MAX + 1
        answer: tuple[trio.Event, list[bytes]] = (trio.Event(), [])
        self._waiting[request_id] = answer
        link.send([(btp.MESSAGE, request_id, packet)])
        try:
            with trio.move_on_after(timeout_s):
                await answer[0].wait()
        finally:
            del self._waiting[request_id]
        if answer[1]:
            return answer[1][0]
        self._usable()
        raise Unavailable(f"no reply within {timeout_s:g} s")

    def _usable(self) -> Link:
        """The link; raises what ended it."""
        if self._failure is not None:
            raise self._failure
        if self._link is None:
            raise Unavailable("the link is not open")
        return self._link

    async def wait_open(self) -> None:
        """Wait for authentication. Raises what ended the link, if it ends first."""
        await self._opened.wait()
        self._usable()

    def fail(self, error: ConnectorError) -> None:
        """The link is gone: nothing more will be answered."""
        self._failure = error
        self._opened.set()
        for event, _ in self._waiting.values():
            event.set()

    # --- the link's handler ---

    def opened(self, link: Link) -> str | None:
        """See `link.Handler`."""
        self._link = link
        self._opened.set()
        return None

    def packets(self, link: Link, batch: list[Item]) -> None:
        """See `link.Handler`: replies wake their senders, Prepares are refused."""
        refusals: list[Item] = []
        for kind, request_id, packet in batch:
            if kind == btp.MESSAGE:
                refusal = ilp.Reject("F02", "", "this client only sends", b"")
                refusals.append((btp.RESPONSE, request_id, ilp.encode_reject(refusal)))
                continue
            answer = self._waiting.get(request_id)
            if answer is None or answer[1]:
                continue
            if kind == btp.ERROR:
                packet = ilp.encode_reject(ilp.Reject("T00", "", packet.decode(), b""))
            answer[1].append(packet)
            answer[0].set()
        if refusals:
            link.send(refusals)

    def drained(self, link: Link) -> None:
        """See `link.Handler`."""

    def asked(self, link: Link, name: str, data: bytes) -> bytes | None:
        """See `link.Handler`."""

    def closed(self, link: Link) -> None:
        """See `link.Handler`."""
        self.fail(Unavailable(f"the link to {link.peer} is gone: {link.close_reason}"))


@asynccontextmanager
async def connect(
    url: str,
    *,
    token: str,
    username: str = "",
    ca_file: str | None = None,
) -> AsyncIterator[Client]:
    """Dial the connector at `url` (`ws://` or `wss://`) and authenticate as its child.

    `ca_file` holds the certificates to trust for `wss://` instead of the
    system's. Raises LocalProtocolError for a URL or file that cannot be used,
    Unavailable or AuthenticationError.
    """
    try:
        host, port, resource, secure = btp.split_url(url)
        context = ssl.create_default_context(cafile=ca_file) if secure else None
    except (ValueError, OSError) as error:
        raise LocalProtocolError(f"cannot dial: {error}") from None
    transport = await open_transport(url, context)
    client = Client()
    name = f"{host}:{port}"

    async def run() -> None:
        try:
            await dial(
                transport, client, peer=name, host=name, resource=resource, token=token, username=username
            )
        except ConnectorError as error:
            client.fail(error)

    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        # Errors leave this nursery one by one, not as the group that trio would make of them.
        try:
            with trio.fail_after(HANDSHAKE_TIMEOUT_S + AUTH_TIMEOUT_S):
                await client.wait_open()
            yield client
        except trio.TooSlowError:
            failure = Unavailable(f"{name} did not authenticate us in time")
        except Exception as error:  # noqa: BLE001 - raised again below
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
