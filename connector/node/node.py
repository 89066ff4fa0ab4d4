"""One node: its configuration made into a packet core, links, receivers and HTTP.

All tasks are siblings in one nursery: a listener, a dialer per outbound peer,
the expiry clock, the HTTP server. `stop` drains: no new Prepares, what is in
flight resolves or reaches its deadline, links close, and `run` returns.
"""

import secrets
import ssl
import time
from collections.abc import Callable
from fractions import Fraction
from hashlib import sha256

import trio
from loguru import logger
from starlette.routing import BaseRoute

from connector.config.check import parse_listen, parse_price
from connector.config.credit import terms
from connector.config.schema import LocalAccount, NodeConfig, Peer
from connector.core.admission import Refusal
from connector.core.chart import Kind
from connector.core.forwarding import Forwarder
from connector.core.health import Health
from connector.core.hop import Hop, Relation
from connector.core.instant import Instant
from connector.core.limiter import TokenBucket
from connector.core.policy import Policy
from connector.core.rates import Rates
from connector.ledger.blocking import RunBlocking, in_thread
from connector.limits import CLOSE_TIMEOUT_S, PACKETS_PER_S_MAX
from connector.links.dialer import DialPlan, OpenTransport, keep_dialled
from connector.links.link import Link, open_transport
from connector.links.listener import Listener, open_listeners
from connector.links.registry import Credentials, Registry
from connector.node import balance, http
from connector.node.accounts_http import AccountsHttp
from connector.node.announcer import Announcer
from connector.node.books import Books, OpenLedger
from connector.node.books_http import BooksHttp
from connector.node.clerk import Clerk
from connector.node.diagnosis import PeerAnswer
from connector.node.doctor import Doctor
from connector.node.http_server import HttpServer
from connector.node.jobs import Jobs
from connector.node.pipeline import Pipeline
from connector.node.supervisor import supervise
from connector.protocol.address import child
from connector.protocol.btp import split_url
from connector.receiver import spsp
from connector.receiver.stream_server import StreamServer
from connector.telemetry.events import Events


def system_instant() -> Instant:
    """The system's clocks."""
    return Instant(time.time_ns() // 1_000_000, time.monotonic_ns() // 1_000_000)


class Node:
    """One connector. `run` it once."""

    def __init__(
        self,
        config: NodeConfig,
        *,
        now: Callable[[], Instant] = system_instant,
        open_transport: OpenTransport = open_transport,
        run_blocking: Callable[[], RunBlocking] = in_thread,
        open_ledger: OpenLedger | None = None,
    ) -> None:
        """Read the books and make everything ready; raises Unavailable when the books cannot be used.

        What follows `config` is for simulations: clocks, wires, threads, a ledger.
        """
        self.config = config
        self.name = config.node.name
        self.address = config.node.address
        self.health = Health()
        self.books = Books(config, self.health, now, run_blocking=run_blocking, open_ledger=open_ledger)
        self.book = self.books.book
        self.registry = Registry(self.address)
        self._now = now
        self._open_transport = open_transport
        self._stop = trio.Event()
        self._receivers: dict[str, StreamServer] = {}
        self.forwarder = Forwarder(self.address, _rates(config), _policy(config), self.book)
        self.pipeline = Pipeline(self.forwarder, self.registry, now, self._on_link, self.books.journal)
        self.events = Events()
        self.announcer = Announcer(self.name, self.book, self.books.ledger_status, self.events)
        self.pipeline.on_reached = self.announcer.reached
        self.pipeline.on_doubted = self.announcer.doubted
        self.books.on_ledger_change = self.announcer.ledger_changed
        self._jobs = Jobs()
        self.listener = Listener(self.registry, self.pipeline, _server_tls(config))
        self._btp: list[trio.SocketListener] = []
        self._web: list[trio.SocketListener] = []
        self._trust = {peer.name: _client_tls(peer) for peer in config.peers}
        #: The ports that were bound.
        self.btp_port: int | None = None
        self.http_port: int | None = None
        self._build()

    # --- what the configuration says ---

    def _build(self) -> None:
        hops = {peer.name: self._add_peer(peer) for peer in self.config.peers}
        secret = self.config.receiver.secret
        if secret is None and self.config.accounts:
            logger.bind(node=self.name).info(
                "receiver.secret is not set: addresses that SPSP gives out end with this process"
            )
        seed = sha256(secret.reveal().encode()).digest() if secret else secrets.token_bytes(32)
        for account in self.config.accounts:
            self._add_account(account, seed)
        routes = self.forwarder.routes
        for peer in self.config.peers:
            if peer.relation == "parent":
                routes.add("", hops[peer.name])
        for route in self.config.routes:
            routes.add(route.prefix, hops[route.next_hop])

    def _add_peer(self, peer: Peer) -> Hop:
        address = peer.address or child(self.address, peer.name)
        own = terms(self.config, peer)
        account = self.book.open(Kind.PEER, peer.name, peer.asset, own.credit_limit, own.settle_threshold)
        rate = peer.max_packets_per_s or PACKETS_PER_S_MAX
        limiter = TokenBucket(rate, rate)
        hop = Hop(peer.name, Relation(peer.relation), address, account, limiter, peer.max_packet_amount)
        self.forwarder.add(hop)
        assert peer.token is not None
        self.registry.add(Credentials(peer.name, peer.token.reveal(), address))
        if peer.url is not None or peer.relation != "child":
            self.health.declare(f"link {peer.name}", self._now().wall_ms, is_link=True)
        return hop

    def _add_account(self, local: LocalAccount, seed: bytes) -> None:
        address = child(self.address, local.name)
        account = self.book.open(Kind.LOCAL, local.name, local.asset)
        limiter = TokenBucket(PACKETS_PER_S_MAX, PACKETS_PER_S_MAX)
        hop = Hop(local.name, Relation.LOCAL, address, account, limiter)
        self.forwarder.add(hop)
        receiver = StreamServer(seed, address, local.asset.code, local.asset.scale)
        self._receivers[local.name] = receiver
        self.pipeline.receive_at(hop, receiver)

    # --- running ---

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until `stop`. Binds its ports unless `bind` has; raises Unavailable if it cannot."""
        with logger.contextualize(node=self.name):
            try:
                await self.bind()
                await self._run(task_status)
            finally:
                await self.books.close()

    async def _run(self, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            accepting = trio.CancelScope()
            nursery.start_soon(self.pipeline.run_expiry)
            nursery.start_soon(self.pipeline.gate.run)
            nursery.start_soon(self.books.run, self.forwarder)
            nursery.start_soon(self.announcer.run)
            nursery.start_soon(self._jobs.run)
            # What recovery and the configuration entered into the book.
            self.pipeline.release()
            if self._btp:
                nursery.start_soon(self._accept, self._btp, accepting)
            if self._web:
                nursery.start_soon(self._serve_http, self._web)
            for peer in self.config.peers:
                if peer.url is not None:
                    nursery.start_soon(self._keep_dialled, peer)
            self.health.started = True
            logger.info("node {} started: btp {}, http {}", self.address, self.btp_port, self.http_port)
            task_status.started()
            await self._stop.wait()
            await self._drain(accepting)
            nursery.cancel_scope.cancel()
        logger.info("node {} stopped", self.address)

    def stop(self) -> None:
        """Begin to drain; `run` returns within the configured deadline."""
        self._stop.set()

    async def bind(self) -> None:
        """Bind the ports, so that others can dial from now on. Raises Unavailable."""
        if self.config.btp.listen is not None and not self._btp:
            self._btp = await open_listeners(*parse_listen(self.config.btp.listen))
            self.btp_port = self._btp[0].socket.getsockname()[1]
        if self.config.http.listen is not None and not self._web:
            self._web = await open_listeners(*parse_listen(self.config.http.listen))
            self.http_port = self._web[0].socket.getsockname()[1]

    async def _accept(self, listeners: list[trio.SocketListener], accepting: trio.CancelScope) -> None:
        # Connections live in a nursery of their own: they outlast the listening sockets.
        async with trio.open_nursery() as connections:
            with accepting:
                await trio.serve_listeners(self.listener.accept, listeners, handler_nursery=connections)

    async def _keep_dialled(self, peer: Peer) -> None:
        assert peer.url is not None
        assert peer.token is not None
        plan = DialPlan(peer.name, peer.url, peer.token.reveal(), peer.username, self._trust[peer.name])

        async def dial() -> None:
            # A link that ends because we drain is not dialled again.
            await self.registry.wait_down(peer.name)
            if self.health.draining:
                await trio.sleep_forever()
            await keep_dialled(plan, self.registry, self.pipeline, self._open_transport)

        await supervise(peer.name, dial, self._on_outage)

    async def _serve_http(self, listeners: list[trio.SocketListener]) -> None:
        routes = spsp.routes(self._receivers, self._default_account())
        app = http.application(self.name, self.address, self.health, self._api(), routes)
        await HttpServer(app).run(listeners)

    def _api(self) -> list[BaseRoute]:
        """What people ask of the node."""
        clerk = Clerk(self.address, self.books, self.pipeline.release, self._now)
        doctor = Doctor(self.name, self.address, self.books, lambda: self._now().wall_ms, self._ask_peers)
        return [
            *AccountsHttp(self.name, clerk).routes(),
            *BooksHttp(self.name, self.books, doctor, self._jobs).routes(),
        ]

    async def _ask_peers(self) -> list[PeerAnswer]:
        """What everybody who is connected holds of us."""
        accounts = {name: hop.account for name, hop in self.forwarder.hops.items()}
        return await balance.ask_peers(self.registry, accounts)

    def _default_account(self) -> str | None:
        return self.config.accounts[0].name if self.config.accounts else None

    async def _drain(self, accepting: trio.CancelScope) -> None:
        self.health.draining = True
        self.pipeline.is_draining = True
        self.forwarder.closed_by["drain"] = Refusal("T03", "this connector is shutting down")
        accepting.cancel()
        with trio.move_on_after(self.config.node.drain_timeout_s):
            await self.pipeline.wait_idle()
        if self.forwarder.in_flight:
            logger.warning("stopping with {} packets in flight", self.forwarder.in_flight)
        with trio.move_on_after(CLOSE_TIMEOUT_S):
            await self.books.finish()
        links = self.registry.links()
        for link in links:
            link.close("shutting down")
        # Each link says goodbye within its own time limit.
        for link in links:
            await link.gone.wait()
        with trio.move_on_after(CLOSE_TIMEOUT_S):
            await self.books.finish()

    # --- what happens to links ---

    def _on_link(self, link: Link, reason: str | None) -> None:
        bound = logger.bind(node=self.name, peer=link.peer)
        wall_ms = self._now().wall_ms
        if reason is None:
            self.health.up(f"link {link.peer}", wall_ms)
            bound.info("link open, {} {}", "dialled" if link.dialled else "accepted from", link.remote)
        else:
            self.health.down(f"link {link.peer}", reason, wall_ms)
            bound.info("link lost: {}", reason)

    def _on_outage(self, peer: str, reason: str) -> None:
        """A dialer failed. Only a change is worth a line, and an outage only without another link."""
        component = self.health.components[f"link {peer}"]
        if self.registry.link(peer) is None and component.reason != reason:
            self.health.down(component.name, reason, self._now().wall_ms)
            logger.bind(node=self.name, peer=peer).info("{}; trying again", reason)


def _rates(config: NodeConfig) -> Rates:
    prices: dict[str, Fraction] = {}
    for code, text in config.prices.items():
        price = parse_price(text)
        assert price is not None
        prices[code] = price
    return Rates(prices)


def _policy(config: NodeConfig) -> Policy:
    bounds = config.limits
    return Policy(
        spread_ppm=config.fees.spread_ppm,
        expiry_margin_ms=bounds.expiry_margin_ms,
        hold_max_ms=bounds.hold_max_ms,
        in_flight_max=bounds.in_flight_max,
        in_flight_per_link_max=bounds.in_flight_per_link_max,
    )


# What the files hold was checked when the configuration was loaded.


def _server_tls(config: NodeConfig) -> ssl.SSLContext | None:
    """How peers' TLS connections are met; None when they dial `ws://`."""
    if config.btp.tls_cert_file is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(config.btp.tls_cert_file, config.btp.tls_key_file)
    return context


def _client_tls(peer: Peer) -> ssl.SSLContext | None:
    """What to trust when we dial `peer`; made once, since it takes tens of milliseconds."""
    if peer.url is None or not split_url(peer.url)[3]:
        return None
    return ssl.create_default_context(cafile=peer.ca_file)
