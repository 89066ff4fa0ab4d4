"""Every reason to refuse a packet: its code, a message that helps, and nothing forwarded or booked."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest

from connector.core.admission import Refusal
from connector.core.hop import Relation
from connector.core.policy import Policy
from connector.core.rates import Asset
from connector.limits import U64_MAX
from connector.protocol import ildcp, ilp
from connector.protocol.btp import RESPONSE
from tests.unit.forwarding_helpers import CONDITION, USD6, WALL_MS, World, balances

Scene = Callable[[World], None]


def drain(world: World) -> None:
    world.forwarder.closed_by["drain"] = Refusal("T03", "this connector is shutting down")


def disconnect_bob(world: World) -> None:
    world.forwarder.disconnected(world.bob, world.now)


def congest_bob(world: World) -> None:
    world.bob.congested = True


def small_packets(world: World) -> None:
    world.alice.max_packet_amount = 999


def little_credit(world: World) -> None:
    world.alice.account.credit_limit = 999


def credit_in_flight(world: World) -> None:
    world.alice.account.credit_limit = 1_999
    world.send(world.alice, 1)
    world.outgoing()


def unpriced(world: World) -> None:
    world.hop("frank", Relation.PEER, "test.frank", asset=Asset("ABC", 2))


def default_route(world: World) -> None:
    world.forwarder.routes.add("", world.dave)


def own_address_routed_away(world: World) -> None:
    world.forwarder.routes.add("test.node.nobody", world.bob)


def nothing(world: World) -> None:
    """The world as it is."""


@pytest.mark.parametrize(
    ("scene", "fields", "code", "message"),
    [
        (drain, {}, "T03", "this connector is shutting down"),
        (nothing, {"destination": "test.nowhere"}, "F02", "no route to the destination"),
        (nothing, {"destination": "test.bobby"}, "F02", "no route to the destination"),
        (nothing, {"destination": "test.node"}, "F02", "this is a connector, it takes no payments itself"),
        (nothing, {"destination": "test.node.nobody"}, "F02", "no such account at this connector"),
        (
            default_route,
            {"destination": "test.node"},
            "F02",
            "this is a connector, it takes no payments itself",
        ),
        (default_route, {"destination": "test.node.nobody"}, "F02", "no such account at this connector"),
        (default_route, {"destination": "test.node.shopx"}, "F02", "no such account at this connector"),
        (
            own_address_routed_away,
            {"destination": "test.node.nobody"},
            "F02",
            "no such account at this connector",
        ),
        (nothing, {"destination": "test.alice.x"}, "F02", "the route leads back to alice"),
        (default_route, {"destination": "peer.x"}, "F02", "peer.* is never forwarded"),
        (default_route, {"destination": "peer.config.x"}, "F02", "peer.* is never forwarded"),
        (default_route, {"destination": "peer.settle"}, "F02", "peer.* is never forwarded"),
        (default_route, {"destination": "g.bob"}, "F02", "a node of network test does not carry g"),
        (nothing, {"destination": "g.bob"}, "F02", "a node of network test does not carry g"),
        (unpriced, {"destination": "test.frank"}, "F02", "no exchange rate from USD/2 to ABC/2"),
        (nothing, {"expires_at_ms": WALL_MS - 1}, "R00", "expired 1 ms before it came"),
        (nothing, {"expires_at_ms": WALL_MS}, "R00", "expired 0 ms before it came"),
        (nothing, {"expires_at_ms": ilp.TIMESTAMP_MIN_MS}, "R00", "expired 63902865600000 ms before it came"),
        (nothing, {"expires_at_ms": WALL_MS + 1}, "R02", "1 ms left, this hop needs more than 1000"),
        (nothing, {"expires_at_ms": WALL_MS + 1_000}, "R02", "1000 ms left, this hop needs more than 1000"),
        (small_packets, {}, "F08", "amount 1000, at most 999"),
        (disconnect_bob, {}, "T01", "no connection to bob now"),
        (congest_bob, {}, "T02", "bob is overloaded"),
        (little_credit, {}, "T04", "credit limit of alice: 999 left, 1000 needed"),
        (credit_in_flight, {}, "T04", "credit limit of alice: 999 left, 1000 needed"),
        (
            nothing,
            {"amount": 1, "destination": "test.erin"},
            "R01",
            "amount 1 is worth nothing at the next hop",
        ),
    ],
)
def test_a_packet_that_cannot_go_on_is_refused(
    scene: Scene, fields: dict[str, Any], code: str, message: str
) -> None:
    world = World()
    scene(world)
    before = world.forwarder.in_flight
    world.send(world.alice, 7, **fields)
    reject = world.only_reject(world.alice, 7)
    assert (reject.code, reject.triggered_by) == (code, "test.node")
    assert reject.message.startswith(message)
    assert world.forwarder.in_flight == before
    assert world.forwarder.counters[f"rejected {code}"] == 1
    assert balances(world) == {}
    assert [notice.kind for notice in world.forwarder.notices] == ["refused"]
    world.check()
    # A refused id is free at once.
    world.send(world.alice, 7, **fields)
    assert world.only_reject(world.alice, 7).code == code


@pytest.mark.parametrize("destination", ["test.bob", "test1.bob", "private.bob", "example.bob", "local.bob"])
def test_a_live_node_carries_its_own_network_alone(destination: str) -> None:
    world = World(network="g.node")
    world.forwarder.routes.add("", world.dave)
    world.send(world.alice, 7, destination=destination)
    scheme = destination.partition(".")[0]
    reject = world.only_reject(world.alice, 7)
    assert (reject.code, reject.message) == ("F02", f"a node of network g does not carry {scheme}")
    world.send(world.alice, 7, destination="g.bob")
    assert world.only_prepare(world.bob)[1].destination == "g.bob"


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"", "prepare: type 12 expected, nothing found"),
        (b"\x0c", "prepare: the length is missing"),
        (bytes(100), "prepare: type 12 expected, 0 found"),
        (ilp.encode_fulfill(ilp.Fulfill(bytes(32), b"")), "prepare: type 12 expected, 13 found"),
    ],
)
def test_an_unreadable_packet_is_f01(packet: bytes, reason: str) -> None:
    world = World()
    world.forwarder.prepare(world.alice, 7, packet, world.now)
    reject = world.only_reject(world.alice, 7)
    assert (reject.code, reject.message) == ("F01", f"unreadable packet: {reason}")
    assert reject.triggered_by == "test.node"


def test_trailing_octets_are_f01() -> None:
    world = World()
    world.send(world.alice, 7, world.prepare() + b"\x00")
    assert world.only_reject(world.alice, 7).message == "unreadable packet: prepare: 1 bytes after its end"


def f08(reject: ilp.Reject) -> tuple[int, int]:
    """(received, maximum): two u64, and nothing else."""
    assert reject.code == "F08"
    assert len(reject.data) == 16
    return int.from_bytes(reject.data[:8], "big"), int.from_bytes(reject.data[8:], "big")


def test_f08_says_what_came_and_what_would_pass() -> None:
    world = World()
    world.alice.max_packet_amount = 500
    world.send(world.alice, 7, amount=501)
    assert f08(world.only_reject(world.alice, 7)) == (501, 500)
    world.send(world.alice, 8, amount=500)
    assert world.only_prepare(world.bob)[1].amount == 500


def test_f08_is_in_incoming_units_where_the_outgoing_ones_overflow() -> None:
    world = World(Policy(spread_ppm=1_000))
    world.hop("gina", Relation.PEER, "test.gina", asset=USD6)
    world.alice.account.credit_limit = U64_MAX
    world.send(world.alice, 7, amount=U64_MAX, destination="test.gina")
    received, maximum = f08(world.only_reject(world.alice, 7))
    assert (received, maximum) == (U64_MAX, U64_MAX // 10_000)
    world.check()
    world.send(world.alice, 8, amount=maximum, destination="test.gina")
    assert world.only_prepare(world.forwarder.hops["gina"])[1].amount <= U64_MAX


def test_the_rate_limit_is_t05_and_time_lifts_it() -> None:
    world = World()
    slow = world.hop("slow", Relation.PEER, "test.slow", packets=2)
    for request_id in (1, 2):
        world.send(slow, request_id)
    world.outgoing()
    world.send(slow, 3)
    reject = world.only_reject(slow, 3)
    assert (reject.code, reject.message) == ("T05", "rate limit of slow exceeded, slow down")
    world.wait(500)
    world.send(slow, 4)
    assert world.only_prepare(world.bob)[0] == 3


def test_unreadable_packets_count_against_the_rate_limit_too() -> None:
    world = World()
    slow = world.hop("slow", Relation.PEER, "test.slow", packets=1)
    world.forwarder.prepare(slow, 1, b"", world.now)
    assert world.only_reject(slow, 1).code == "F01"
    world.forwarder.prepare(slow, 2, b"", world.now)
    assert world.only_reject(slow, 2).code == "T05"


@pytest.mark.parametrize(
    ("policy", "source", "message"),
    [
        (Policy(in_flight_per_link_max=2), "carol", "bob is overloaded"),
        (Policy(in_flight_max=2), "carol", "this connector has too many packets in flight"),
    ],
)
def test_full_tables_are_t02(policy: Policy, source: str, message: str) -> None:
    world = World(policy)
    for request_id in (1, 2):
        world.send(world.alice, request_id)
    world.outgoing()
    world.send(world.forwarder.hops[source], 3)
    reject = world.only_reject(world.forwarder.hops[source], 3)
    assert (reject.code, reject.message) == ("T02", message)
    world.fulfill(world.bob, 1)
    world.outgoing()
    world.send(world.forwarder.hops[source], 3)
    assert list(world.outgoing()) == ["bob"]


def test_no_source_may_take_the_whole_table_not_even_by_reconnecting() -> None:
    world = World(Policy(in_flight_per_link_max=2))
    for request_id, destination in ((1, "test.bob"), (2, "test.dave")):
        world.send(world.alice, request_id, destination=destination)
    world.outgoing()
    world.forwarder.connected(world.alice, world.now)
    world.send(world.alice, 1, destination="test.erin")
    reject = world.only_reject(world.alice, 1)
    assert (reject.code, reject.message) == ("T02", "alice has too many packets in flight")
    world.check()


def test_a_fee_that_takes_everything_is_r01() -> None:
    world = World(Policy(spread_ppm=1))
    world.send(world.alice, 7, amount=1)
    reject = world.only_reject(world.alice, 7)
    assert reject.code == "R01"
    assert "send more in one packet" in reject.message
    world.check_at_rest()


# --- what the next hop may do wrong ---


def sent(world: World) -> int:
    world.send(world.alice, 7)
    return world.only_prepare(world.bob)[0]


def test_a_wrong_fulfillment_is_f05_and_owes_nothing() -> None:
    world = World()
    own_id = sent(world)
    world.fulfill(world.bob, own_id, b"w" * 32)
    reject = world.only_reject(world.alice, 7)
    assert reject.code == "F05"
    assert reject.message == "bob sent a fulfillment that does not match the condition"
    assert balances(world) == {}
    world.check_at_rest()
    notices = [(notice.kind, notice.hop, notice.amount) for notice in world.forwarder.notices]
    assert notices == [("wrong fulfillment", "bob", 1_000), ("rejected", "bob", 1_000)]
    assert {notice.packet_id for notice in world.forwarder.notices} == {CONDITION[:16].hex()}
    # The right one is too late now.
    world.fulfill(world.bob, own_id)
    assert world.outgoing() == {}
    assert balances(world) == {}


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"", "reject: type 14 expected, nothing found"),
        (b"\x0d\x00", "fulfillment: 32 bytes expected"),
        (b"\x0e\x01F", "code: F, T or R and two digits expected"),
        (b"\x0c\x00", "reject: type 14 expected, 12 found"),
        (b"\x0e\x07F00\x00\x01\xff\x00", "message: UTF-8 expected"),
    ],
)
def test_an_unreadable_reply_is_t00_and_owes_nothing(packet: bytes, reason: str) -> None:
    world = World()
    world.answer(world.bob, sent(world), packet)
    reject = world.only_reject(world.alice, 7)
    assert (reject.code, reject.message) == ("T00", f"bob sent an unreadable reply: {reason}")
    assert balances(world) == {}
    world.check_at_rest()


def test_an_answer_that_is_no_packet_is_t00() -> None:
    world = World()
    own_id = sent(world)
    world.forwarder.failure(world.bob, own_id, "answered with BTP error F00", world.now)
    reject = world.only_reject(world.alice, 7)
    assert (reject.code, reject.message) == ("T00", "bob answered with BTP error F00")
    world.check_at_rest()
    world.forwarder.failure(world.bob, own_id, "answered with BTP error F00", world.now)
    assert world.outgoing() == {}


def test_no_answer_is_r00() -> None:
    world = World()
    sent(world)
    world.wait(9_000)
    world.forwarder.expire(world.now)
    reject = world.only_reject(world.alice, 7)
    assert (reject.code, reject.message) == ("R00", "bob did not answer in time")
    world.check_at_rest()


# --- ILDCP ---


def test_a_child_is_told_its_address_and_asset() -> None:
    world = World()
    world.forwarder.prepare(world.carol, 7, ilp.encode_prepare(ildcp.request(WALL_MS + 1_000)), world.now)
    [(kind, request_id, packet)] = world.outgoing()["carol"]
    assert (kind, request_id) == (RESPONSE, 7)
    assert isinstance(packet, ilp.Fulfill)
    assert packet.fulfillment == bytes(32)
    assert ildcp.read_reply(packet) == ildcp.ChildConfig("test.node.carol", 2, "USD")
    assert world.forwarder.counters == {"prepares": 1, "ildcp": 1}
    assert all(account.debits_posted == account.credits_posted == 0 for account in world.book.accounts())
    world.check_at_rest()


@pytest.mark.parametrize("name", ["alice", "dave", "shop"])
def test_only_a_child_is_told(name: str) -> None:
    world = World()
    hop = world.forwarder.hops[name]
    world.forwarder.prepare(hop, 7, ilp.encode_prepare(ildcp.request(WALL_MS + 1_000)), world.now)
    reject = world.only_reject(hop, 7)
    assert (reject.code, reject.message) == ("F00", "only a child is given its address here")


@pytest.mark.parametrize("fields", [{"amount": 1, "condition": ildcp.CONDITION}, {"amount": 0}])
def test_a_request_that_is_no_ildcp_is_f00(fields: dict[str, Any]) -> None:
    world = World()
    world.send(world.carol, 7, destination="peer.config", **fields)
    reject = world.only_reject(world.carol, 7)
    assert (reject.code, reject.message) == ("F00", "an ILDCP request has amount 0 and its own condition")
    assert balances(world) == {}


def test_prices_are_exact() -> None:
    world = World()
    rate = world.forwarder.admission._rates.conversion(world.erin.account.asset, world.alice.account.asset)
    assert rate is not None
    assert Fraction(rate.numerator, rate.denominator) == Fraction(11, 10)
