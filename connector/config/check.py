"""What types cannot say of a configuration: names that must exist, or must not clash."""

import os
import re
import ssl
from collections import Counter
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

from connector.config.credit import default_limit
from connector.config.schema import Btp, Ledger, LocalAccount, NodeConfig, Peer
from connector.core.rates import Asset
from connector.ledger.replicas import parse_replicas
from connector.limits import (
    ASSET_CODE_MAX_BYTES,
    BTP_CREDENTIAL_MAX_BYTES,
    ILP_ADDRESS_MAX_BYTES,
    U64_MAX,
    U128_MAX,
)
from connector.protocol.address import covers, is_address, is_prefix, is_segment, scheme
from connector.protocol.btp import split_url

Problem = tuple[str, str]
#: What a node's HTTP port answers itself; an account's payment page is at `/NAME`.
_HTTP_PATHS = frozenset({"api", "healthz", "metrics", "readyz"})
#: Digits are bounded: int() takes long for many.
_CLUSTER_ID = re.compile(r"[0-9]{1,39}|0x[0-9a-fA-F]{1,32}")


def problems(config: NodeConfig) -> Iterator[Problem]:
    """Every (key, reason) that keeps the configuration from being used."""
    yield from _node(config)
    yield from _books(config)
    for index, peer in enumerate(config.peers):
        for key, reason in _peer(config, peer):
            yield f"peers[{index}].{key}", reason
    for index, account in enumerate(config.accounts):
        for key, reason in _account(config, account):
            yield f"accounts[{index}].{key}", reason
    yield from _names(config)
    yield from _routes(config)
    for code, price in config.prices.items():
        if parse_price(price) is None:
            yield f"prices.{code}", f"{price!r} is not a positive decimal number, for instance 1.08"


def parse_price(text: str) -> Fraction | None:
    """A price as an exact fraction; None if it is not a positive decimal or fraction.

    Exponents are not taken: one of nine digits would fill the memory.
    """
    if "e" in text.lower():
        return None
    try:
        price = Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None
    return price if price > 0 else None


def parse_listen(text: str) -> tuple[str, int]:
    """(host, port) of `HOST:PORT`; port 0 lets the system choose. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not host or not colon or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ValueError("HOST:PORT is expected, for instance 127.0.0.1:7768")
    return host.removeprefix("[").removesuffix("]"), int(port)


def parse_cluster_id(text: str) -> int:
    """A TigerBeetle cluster's id, 0 to 2^128 - 1, of decimal or 0x… digits. Raises ValueError."""
    cluster_id = int(text, 0 if text.startswith("0x") else 10) if _CLUSTER_ID.fullmatch(text) else -1
    if not 0 <= cluster_id <= U128_MAX:
        raise ValueError("a number of 128 bits is expected, for instance 0 or 0x1f")
    return cluster_id


def _node(config: NodeConfig) -> Iterator[Problem]:
    if not is_segment(config.node.name):
        yield "node.name", f"{config.node.name!r}: letters, digits, '_', '~' and '-' are allowed"
    if not is_address(config.node.address):
        yield "node.address", f"{config.node.address!r} is not an ILP address, for instance test.connector"
    elif scheme(config.node.address) == "peer":
        yield "node.address", "peer.* is never forwarded, so no node can have it"
    for key, listen in (("btp.listen", config.btp.listen), ("http.listen", config.http.listen)):
        if listen is not None:
            try:
                parse_listen(listen)
            except ValueError as error:
                yield key, f"{listen!r}: {error}"
    places = dict(listens(config))
    if "http.listen" in places and places["http.listen"] == places.get("btp.listen"):
        yield "http.listen", f"{config.http.listen!r} is btp.listen too"
    yield from _tls(config.btp)
    state_dir = config.node.state_dir
    if state_dir is not None and Path(state_dir).exists() and not Path(state_dir).is_dir():
        yield "node.state_dir", f"{state_dir} is not a directory"
    secret = config.receiver.secret
    if secret is not None and len(secret.reveal()) < 16:
        yield "receiver.secret", "at least 16 characters are needed"
    if config.limits.expiry_margin_ms >= config.limits.hold_max_ms:
        yield "limits.expiry_margin_ms", "must be less than limits.hold_max_ms"


def listens(config: NodeConfig) -> Iterator[tuple[str, tuple[str, int]]]:
    """(key, (host, port)) of each port that the node asks for by number."""
    for key, listen in (("btp.listen", config.btp.listen), ("http.listen", config.http.listen)):
        try:
            place = parse_listen(listen or "")
        except ValueError:
            continue
        if place[1]:
            yield key, place


def _books(config: NodeConfig) -> Iterator[Problem]:
    yield from _ledger(config.ledger)
    if config.journal.sync == "off" and config.ledger.replicas is not None:
        reason = "without a journal (journal.sync is off) nothing is posted: leave out replicas"
        yield "ledger.replicas", f"{reason}, and the variable TIGERBEETLE_REPLICAS"
    for index, credit in enumerate(config.credit):
        for key, reason in _asset(credit.asset):
            yield f"credit[{index}].{key}", reason
    yield from _twice("credit: the asset", (str(credit.asset) for credit in config.credit))


def _ledger(ledger: Ledger) -> Iterator[Problem]:
    if ledger.cluster_id is not None:
        try:
            parse_cluster_id(ledger.cluster_id)
        except ValueError as error:
            yield "ledger.cluster_id", f"{ledger.cluster_id!r}: {error}"
        if ledger.replicas is None:
            yield "ledger.cluster_id", "a cluster is reached through its replicas: give them too"
    if ledger.replicas is not None:
        try:
            parse_replicas(ledger.replicas)
        except ValueError as error:
            yield "ledger.replicas", str(error)


def _tls(btp: Btp) -> Iterator[Problem]:
    certificate, key = btp.tls_cert_file, btp.tls_key_file
    if certificate is None and key is None:
        return
    if certificate is None or key is None:
        yield "btp", "tls_cert_file and tls_key_file go together"
        return
    found = [*_certificates("btp.tls_cert_file", certificate)]
    yield from found
    if not os.access(key, os.R_OK):
        yield "btp.tls_key_file", f"{key} cannot be read"
    elif not found:
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key, password=_no_pass_phrase)
        except (OSError, ValueError) as error:
            yield "btp.tls_key_file", f"{key} holds no key for {certificate}: {_why(error)}"


def _certificates(key: str, path: str) -> Iterator[Problem]:
    if not os.access(path, os.R_OK):
        yield key, f"{path} cannot be read"
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError as error:
        yield key, f"{path} holds no certificates in PEM: {_why(error)}"


def _no_pass_phrase() -> str:
    # Without this OpenSSL asks for one on the terminal.
    raise ValueError("a pass phrase cannot be given")


def _why(error: OSError | ValueError) -> str:
    """In words, where OpenSSL would name its constants and a line of C."""
    if isinstance(error, ssl.SSLError):
        return error.reason.replace("_", " ").lower() if error.reason else "not readable as PEM"
    return getattr(error, "strerror", None) or str(error)


def _peer(config: NodeConfig, peer: Peer) -> Iterator[Problem]:
    if not is_segment(peer.name):
        yield "name", f"{peer.name!r}: letters, digits, '_', '~' and '-' are allowed"
    if peer.token is None or not peer.token.reveal():
        yield "token", "a token is needed: token or token_file"
    elif len(peer.token.reveal().encode()) > BTP_CREDENTIAL_MAX_BYTES:
        yield "token", f"at most {BTP_CREDENTIAL_MAX_BYTES} bytes"
    if len(peer.username.encode()) > BTP_CREDENTIAL_MAX_BYTES:
        yield "username", f"at most {BTP_CREDENTIAL_MAX_BYTES} bytes"
    yield from _asset(peer.asset)
    if peer.credit_limit is None and default_limit(config, peer.asset) is None:
        reason = f"credit_limit is needed, or default_limit in a table [[credit]] for {peer.asset}"
        yield "credit_limit", reason
    if peer.relation == "child":
        if peer.address is None:
            yield from _fits(config, peer)
        elif peer.address == config.node.address or not covers(config.node.address, peer.address):
            yield "address", f"a child's address is below {config.node.address}"
    elif peer.address is None:
        yield "address", f"a {peer.relation}'s ILP address is needed"
    elif covers(config.node.address, peer.address):
        yield "address", f"{peer.address} is this node's own; is it a child?"
    if peer.address is not None and not is_address(peer.address):
        yield "address", f"{peer.address!r} is not an ILP address"
    if peer.url is not None:
        try:
            split_url(peer.url)
        except ValueError as error:
            # Without the URL itself: some write a token into it.
            yield "url", str(error)
    elif config.btp.listen is None:
        yield "url", "neither side can dial: give the peer a url, or this node btp.listen"
    if peer.max_packet_amount > U64_MAX:
        yield "max_packet_amount", f"an ILP amount is at most {U64_MAX}"
    if peer.ca_file is not None:
        yield from _certificates("ca_file", peer.ca_file)


def _account(config: NodeConfig, account: LocalAccount) -> Iterator[Problem]:
    if not is_segment(account.name):
        yield "name", f"{account.name!r}: letters, digits, '_', '~' and '-' are allowed"
    if account.name in _HTTP_PATHS:
        yield "name", f"{account.name!r}: its payment page would hide the node's own /{account.name}"
    yield from _fits(config, account)
    yield from _asset(account.asset)


def _asset(asset: Asset) -> Iterator[Problem]:
    code = asset.code
    if not (code.isascii() and code.isprintable() and 1 <= len(code) <= ASSET_CODE_MAX_BYTES):
        yield "asset.code", f"1 to {ASSET_CODE_MAX_BYTES} printable ASCII characters, for instance USD"


def _address(config: NodeConfig, holder: Peer | LocalAccount) -> str:
    """The holder's ILP address: its own, or its name below the node's."""
    explicit = holder.address if isinstance(holder, Peer) else None
    return explicit if explicit is not None else f"{config.node.address}.{holder.name}"


def _fits(config: NodeConfig, holder: Peer | LocalAccount) -> Iterator[Problem]:
    if len(_address(config, holder)) > ILP_ADDRESS_MAX_BYTES:
        yield "name", f"with the node's address before it, longer than {ILP_ADDRESS_MAX_BYTES} characters"


def _routes(config: NodeConfig) -> Iterator[Problem]:
    relations = {peer.name: peer.relation for peer in config.peers}
    own = {config.node.address, *(_address(config, account) for account in config.accounts)}
    for index, route in enumerate(config.routes):
        if not is_prefix(route.prefix):
            yield f"routes[{index}].prefix", f"{route.prefix!r} is not an ILP address prefix"
        if route.next_hop not in relations:
            yield f"routes[{index}].next_hop", f"there is no peer {route.next_hop!r}"
        elif route.prefix in own or (
            route.prefix
            and covers(config.node.address, route.prefix)
            and relations[route.next_hop] != "child"
        ):
            yield f"routes[{index}].prefix", f"{route.prefix} is this node's own, not {route.next_hop}'s"
    for prefix, times in Counter(route.prefix for route in config.routes).items():
        if times > 1:
            yield "routes", f"the prefix {prefix!r} stands {times} times"
    parents = [peer.name for peer in config.peers if peer.relation == "parent"]
    if len(parents) > 1 and not any(route.prefix == "" for route in config.routes):
        yield "routes", f"more than one parent ({', '.join(parents)}): one route must have the prefix ''"


def _names(config: NodeConfig) -> Iterator[Problem]:
    holders: tuple[Peer | LocalAccount, ...] = (*config.peers, *config.accounts)
    yield from _twice("peers and accounts", (holder.name for holder in holders))
    yield from _twice("peers and accounts: the address", (_address(config, holder) for holder in holders))
    tokens = [peer.token.reveal() for peer in config.peers if peer.token is not None]
    if len(set(tokens)) != len(tokens):
        yield "peers", "two peers have the same token: they could not be told apart"


def _twice(what: str, names: Iterable[str]) -> Iterator[Problem]:
    for name, times in Counter(names).items():
        if times > 1:
            yield what, f"{name!r} stands {times} times"
