"""What is wrong with a configuration is said with file, key and reason, and all of it at once."""

from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from connector.config.check import parse_listen, parse_price
from connector.limits import U64_MAX
from tests.unit.test_config_load import BOB, KID, NODE, USD, load, peer, problems, write_certificates

# --- what is wrong ---

MANY = "a" * 1_020


@pytest.mark.parametrize(
    ("text", "key", "reason"),
    [
        ("", "", "Object missing required field `node`"),
        ("[node]\nname = 'n'\n", "node", "Object missing required field `address`"),
        (NODE + "surprise = 1\n", "btp", "Object contains unknown field `surprise`"),
        (NODE + "[fees]\nspread_ppm = 1_000_000\n", "fees.spread_ppm", "Expected `int` <= 999999"),
        (NODE + "[fees]\nspread_ppm = 0.5\n", "fees.spread_ppm", "Expected `int`, got `float`"),
        (NODE + "[limits]\nin_flight_max = 0\n", "limits.in_flight_max", "Expected `int` >= 1"),
        (NODE + "[limits]\nhold_max_ms = 300_001\n", "limits.hold_max_ms", "Expected `int` <= 300000"),
        (NODE + '[log]\nlevel = "LOUD"\n', "log.level", "Invalid enum value 'LOUD'"),
        (NODE + peer(BOB + "max_packets_per_s = -1\n"), "peers[0].max_packets_per_s", "Expected `int` >= 0"),
        (NODE + peer(BOB.replace('"t"', "5")), "peers[0].token", "Expected a string"),
        (
            NODE + peer(BOB.replace("scale = 2", "scale = 256")),
            "peers[0].asset.scale",
            "Expected `int` <= 255",
        ),
        (NODE + peer(BOB.replace("scale = 2", "scale = -1")), "peers[0].asset.scale", "Expected `int` >= 0"),
        (NODE + peer(BOB.replace('"peer"', '"friend"')), "peers[0].relation", "Invalid enum value 'friend'"),
        (
            NODE.replace('"node"', '"no de"'),
            "node.name",
            "'no de': letters, digits, '_', '~' and '-' are allowed",
        ),
        (
            NODE.replace("test.node", "test"),
            "node.address",
            "'test' is not an ILP address, for instance test.connector",
        ),
        (
            NODE.replace("test.node", "peer.node"),
            "node.address",
            "peer.* is never forwarded, so no node can have it",
        ),
        (
            NODE.replace("127.0.0.1:0", ":7768"),
            "btp.listen",
            "':7768': HOST:PORT is expected, for instance 127.0.0.1:7768",
        ),
        (
            NODE + '[http]\nlisten = "nowhere"\n',
            "http.listen",
            "'nowhere': HOST:PORT is expected, for instance 127.0.0.1:7768",
        ),
        (
            NODE.replace(":0", ":7768") + '[http]\nlisten = "127.0.0.1:7768"\n',
            "http.listen",
            "'127.0.0.1:7768' is btp.listen too",
        ),
        (NODE + 'tls_cert_file = "/"\n', "btp", "tls_cert_file and tls_key_file go together"),
        (NODE + '[receiver]\nsecret = "short"\n', "receiver.secret", "at least 16 characters are needed"),
        (
            NODE + "[limits]\nexpiry_margin_ms = 500\nhold_max_ms = 500\n",
            "limits.expiry_margin_ms",
            "must be less than limits.hold_max_ms",
        ),
        (
            NODE + peer(BOB.replace('"bob"', '"b.b"')),
            "peers[0].name",
            "'b.b': letters, digits, '_', '~' and '-' are allowed",
        ),
        (
            NODE + peer(BOB.replace('token = "t"\n', "")),
            "peers[0].token",
            "a token is needed: token or token_file",
        ),
        (NODE + peer(BOB.replace('"t"', '""')), "peers[0].token", "a token is needed: token or token_file"),
        (NODE + peer(BOB.replace('"t"', f'"{"t" * 1_025}"')), "peers[0].token", "at most 1024 bytes"),
        (NODE + peer(BOB + f'username = "{"u" * 1_025}"\n'), "peers[0].username", "at most 1024 bytes"),
        (
            NODE + peer(BOB.replace('address = "test.bob"\n', "")),
            "peers[0].address",
            "a peer's ILP address is needed",
        ),
        (
            NODE + peer(BOB.replace("test.bob", "test.node.bob")),
            "peers[0].address",
            "test.node.bob is this node's own; is it a child?",
        ),
        (
            NODE + peer(BOB.replace("test.bob", "test.bob.")),
            "peers[0].address",
            "'test.bob.' is not an ILP address",
        ),
        (
            NODE + peer(KID + 'address = "test.kid"\n'),
            "peers[0].address",
            "a child's address is below test.node",
        ),
        (
            NODE + peer(KID + 'address = "test.node"\n'),
            "peers[0].address",
            "a child's address is below test.node",
        ),
        (
            NODE.replace("test.node", f"test.{MANY[:1_010]}") + peer(KID.replace('"kid"', f'"{MANY[:20]}"')),
            "peers[0].name",
            "with the node's address before it, longer than 1023 characters",
        ),
        (
            NODE.replace("test.node", f"test.{MANY[:1_010]}") + f'[[accounts]]\nname = "{MANY[:20]}"\n{USD}',
            "accounts[0].name",
            "with the node's address before it, longer than 1023 characters",
        ),
        (
            NODE + peer(BOB.replace('"USD"', '"€"')),
            "peers[0].asset.code",
            "1 to 255 printable ASCII characters, for instance USD",
        ),
        (
            NODE + '[[accounts]]\nname = "a"\nasset = { code = "", scale = 2 }\n',
            "accounts[0].asset.code",
            "1 to 255 printable ASCII characters, for instance USD",
        ),
        (
            NODE + peer(BOB + 'url = "http://bob"\n'),
            "peers[0].url",
            "a URL ws://HOST:PORT or wss://HOST:PORT is expected",
        ),
        (
            NODE + peer(BOB + 'url = "ws://bob/a b"\n'),
            "peers[0].url",
            "a URL ws://HOST:PORT or wss://HOST:PORT is expected",
        ),
        (
            NODE.replace('listen = "127.0.0.1:0"\n', "") + peer(BOB),
            "peers[0].url",
            "neither side can dial: give the peer a url, or this node btp.listen",
        ),
        (
            NODE + peer(BOB + f"max_packet_amount = {U64_MAX + 1}\n"),
            "peers[0].max_packet_amount",
            f"an ILP amount is at most {U64_MAX}",
        ),
        (
            NODE + f'[[accounts]]\nname = "a b"\n{USD}',
            "accounts[0].name",
            "'a b': letters, digits, '_', '~' and '-' are allowed",
        ),
        (
            NODE + peer(BOB) + peer(BOB.replace("test.bob", "test.rob").replace('"t"', '"u"')),
            "peers and accounts",
            "'bob' stands 2 times",
        ),
        (
            NODE + peer(BOB) + peer(BOB.replace('"bob"', '"rob"').replace('"t"', '"u"')),
            "peers and accounts: the address",
            "'test.bob' stands 2 times",
        ),
        (
            NODE + peer(KID + 'address = "test.node.shop"\n') + f'[[accounts]]\nname = "shop"\n{USD}',
            "peers and accounts: the address",
            "'test.node.shop' stands 2 times",
        ),
        (
            NODE
            + peer(KID)
            + peer(KID.replace('"kid"', '"other"').replace('"k"', '"o"') + 'address = "test.node.kid"\n'),
            "peers and accounts: the address",
            "'test.node.kid' stands 2 times",
        ),
        (
            NODE + peer(BOB) + peer(KID.replace('"k"', '"t"')),
            "peers",
            "two peers have the same token: they could not be told apart",
        ),
        (
            NODE + peer(BOB) + '[[routes]]\nprefix = "g."\nnext_hop = "bob"\n',
            "routes[0].prefix",
            "'g.' is not an ILP address prefix",
        ),
        (
            NODE + peer(BOB) + '[[routes]]\nprefix = "g"\nnext_hop = "rob"\n',
            "routes[0].next_hop",
            "there is no peer 'rob'",
        ),
        (
            NODE + peer(BOB) + '[[routes]]\nprefix = ""\nnext_hop = "bob"\n' * 2,
            "routes",
            "the prefix '' stands 2 times",
        ),
        (
            NODE + peer(BOB) + '[[routes]]\nprefix = "test.node.x"\nnext_hop = "bob"\n',
            "routes[0].prefix",
            "test.node.x is this node's own, not bob's",
        ),
        (
            NODE + peer(KID) + '[[routes]]\nprefix = "test.node"\nnext_hop = "kid"\n',
            "routes[0].prefix",
            "test.node is this node's own, not kid's",
        ),
        (
            NODE
            + peer(KID)
            + f'[[accounts]]\nname = "shop"\n{USD}'
            + '[[routes]]\nprefix = "test.node.shop"\nnext_hop = "kid"\n',
            "routes[0].prefix",
            "test.node.shop is this node's own, not kid's",
        ),
        (
            NODE
            + peer(BOB.replace('"peer"', '"parent"'))
            + peer(BOB.replace("bob", "rob").replace('"peer"', '"parent"').replace('"t"', '"u"')),
            "routes",
            "more than one parent (bob, rob): one route must have the prefix ''",
        ),
        (
            NODE + '[prices]\nUSD = "0"\n',
            "prices.USD",
            "'0' is not a positive decimal number, for instance 1.08",
        ),
        (
            NODE + "[prices]\nUSD = 1.08\n",
            "prices.USD",
            'an exact price stands in quotes, for instance "1.08"',
        ),
        (
            NODE + 'tls_cert_file = "no.pem"\ntls_key_file = "/"\n',
            "btp.tls_cert_file",
            "{folder}/no.pem cannot be read",
        ),
        (NODE + peer(BOB + 'ca_file = "no.pem"\n'), "peers[0].ca_file", "{folder}/no.pem cannot be read"),
    ],
)
def test_what_is_wrong_is_said_with_its_key(tmp_path: Path, text: str, key: str, reason: str) -> None:
    assert problems(tmp_path, text) == [(key, reason.format(folder=tmp_path))]


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    text = NODE + peer(BOB.replace("test.bob", "bob")) + '[[routes]]\nprefix = "g"\nnext_hop = "rob"\n'
    assert [key for key, _ in problems(tmp_path, text)] == ["peers[0].address", "routes[0].next_hop"]


def test_one_parent_or_a_default_route_settles_where_the_rest_goes(tmp_path: Path) -> None:
    one = BOB.replace('"peer"', '"parent"')
    other = one.replace("bob", "rob").replace('"t"', '"u"')
    assert load(tmp_path, NODE + peer(one)).routes == ()
    route = '[[routes]]\nprefix = ""\nnext_hop = "rob"\n'
    assert len(load(tmp_path, NODE + peer(one) + peer(other) + route).routes) == 1


def test_a_route_below_this_node_may_lead_to_a_child(tmp_path: Path) -> None:
    route = '[[routes]]\nprefix = "test.node.shared"\nnext_hop = "kid"\n'
    assert load(tmp_path, NODE + peer(KID) + route).routes[0].prefix == "test.node.shared"


# --- TLS files ---

TLS = 'tls_cert_file = "cert.pem"\ntls_key_file = "key.pem"\n'
BOTH = NODE + TLS + peer(BOB + 'ca_file = "ca.pem"\n')


def encrypted_key() -> bytes:
    key = serialization.load_pem_private_key(trustme.CA().private_key_pem.bytes(), None)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"pass phrase"),
    )


def test_tls_files_that_hold_what_they_should_are_taken(tmp_path: Path) -> None:
    write_certificates(tmp_path)
    assert load(tmp_path, BOTH).btp.tls_key_file == str(tmp_path / "key.pem")


@pytest.mark.parametrize(
    ("file", "content", "key", "reason"),
    [
        ("cert.pem", b"rubbish", "btp.tls_cert_file", "{file} holds no certificates in PEM: "),
        ("cert.pem", b"", "btp.tls_cert_file", "{file} holds no certificates in PEM: "),
        ("key.pem", b"rubbish", "btp.tls_key_file", "{file} holds no key for {folder}/cert.pem: "),
        (
            "key.pem",
            trustme.CA().private_key_pem.bytes(),
            "btp.tls_key_file",
            "{file} holds no key for {folder}/cert.pem: key values mismatch",
        ),
        (
            "key.pem",
            encrypted_key(),
            "btp.tls_key_file",
            "{file} holds no key for {folder}/cert.pem: a pass phrase cannot be given",
        ),
        ("ca.pem", b"rubbish", "peers[0].ca_file", "{file} holds no certificates in PEM: "),
        (
            "ca.pem",
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "peers[0].ca_file",
            "{file} holds no certificates in PEM: ",
        ),
    ],
)
def test_rubbish_in_a_tls_file_is_said_with_its_key(
    tmp_path: Path, file: str, content: bytes, key: str, reason: str
) -> None:
    write_certificates(tmp_path)
    (tmp_path / file).write_bytes(content)
    [(found, said)] = problems(tmp_path, BOTH)
    assert found == key
    assert said.startswith(reason.format(file=tmp_path / file, folder=tmp_path))
    assert not said.endswith(": ")
    assert "_ssl.c" not in said


# --- pieces ---


@pytest.mark.parametrize(
    ("text", "price"),
    [("1", "1"), ("1.08", "27/25"), ("0.000000001", "1/1000000000"), ("1/3", "1/3"), (" 2 ", "2")],
)
def test_a_price_is_exact(text: str, price: str) -> None:
    assert str(parse_price(text)) == price


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "0.0", "1/0", "nan", "inf", "one", "1e999999999", "1E5", "1,08", "0x10"]
)
def test_what_is_no_price(text: str) -> None:
    assert parse_price(text) is None


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("127.0.0.1:7768", ("127.0.0.1", 7768)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:65535", ("::1", 65_535)),
        ("0.0.0.0:80", ("0.0.0.0", 80)),  # noqa: S104 - parsed, not bound
    ],
)
def test_a_place_to_listen(text: str, place: tuple[str, int]) -> None:
    assert parse_listen(text) == place


@pytest.mark.parametrize(
    "text", ["", "7768", ":7768", "host", "host:", "host:65536", "host:-1", "host:\uff11", "host:0x1"]
)
def test_what_is_no_place_to_listen(text: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT is expected"):
        parse_listen(text)
