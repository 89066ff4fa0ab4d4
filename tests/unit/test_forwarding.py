"""What becomes of a packet that can be forwarded: rewritten, answered once, booked exactly."""

import pytest

from connector.core import forwarding
from connector.core.admission import Refusal
from connector.core.entries import Side
from connector.core.hop import Hop
from connector.core.policy import Policy
from connector.errors import RemoteProtocolError
from connector.limits import ROUTE_CACHE_MAX, U32_MAX, U64_MAX
from connector.protocol import ilp
from connector.protocol.btp import MESSAGE, RESPONSE
from tests.unit.forwarding_helpers import FULFILLMENT, WALL_MS, World, balances, encode

REJECT = ilp.Reject("F99", "test.far.away", "grüße", b"\x00\x01")


def in_flight(world: World, source: Hop | None = None, request_id: int = 7, amount: int = 1_000) -> int:
    """Send one packet to bob; its id there."""
    world.send(source or world.alice, request_id, amount=amount)
    return world.only_prepare(world.bob)[0]


# --- Prepare ---


def test_only_amount_and_expiry_are_rewritten() -> None:
    world = World(Policy(spread_ppm=10_000))
    packet = world.prepare()
    world.send(world.alice, 7, packet)
    [(hop, [(kind, request_id, forwarded)])] = world.forwarder.take()
    assert (hop, kind, request_id) == (world.bob, MESSAGE, 1)
    assert int.from_bytes(forwarded[2:10], "big") == 990
    assert forwarded[10:27] == b"20260101120009000"
    assert forwarded[:2] + forwarded[27:] == packet[:2] + packet[27:]
    assert world.forwarder.take() == []


@pytest.mark.parametrize(
    ("left_ms", "out_ms"),
    [(1_001, 1), (5_000, 4_000), (31_000, 30_000), (31_001, 30_000), (10**9, 30_000)],
)
def test_the_expiry_out_leaves_a_margin_and_bounds_the_hold(left_ms: int, out_ms: int) -> None:
    world = World()
    world.send(world.alice, 7, expires_at_ms=WALL_MS + left_ms)
    assert world.only_prepare(world.bob)[1].expires_at_ms == WALL_MS + out_ms
    assert world.forwarder.clock.next_due_ms() == world.now.mono_ms + out_ms


def test_an_expiry_centuries_away_is_no_trouble() -> None:
    world = World()
    world.send(world.alice, 7, expires_at_ms=ilp.TIMESTAMP_MAX_MS)
    assert world.only_prepare(world.bob)[1].expires_at_ms == WALL_MS + 30_000


def test_a_padded_prepare_is_forwarded_in_its_shortest_form() -> None:
    world = World()
    short = world.prepare()
    world.send(world.alice, 7, b"\x0c\x82\x00" + short[1:])
    [(_, [(_, _, forwarded)])] = world.forwarder.take()
    assert forwarded == world.prepare(expires_at_ms=WALL_MS + 9_000)


def test_packets_of_one_batch_leave_together_for_each_hop() -> None:
    world = World()
    for request_id in (5, 6, 7):
        world.send(world.alice, request_id, destination="test.bob" if request_id != 6 else "test.dave")
    assert [(hop.name, [item[:2] for item in items]) for hop, items in world.forwarder.take()] == [
        ("bob", [(MESSAGE, 1), (MESSAGE, 2)]),
        ("dave", [(MESSAGE, 1)]),
    ]


# --- replies ---


def test_a_fulfill_is_relayed_as_it_came_and_booked() -> None:
    world = World(Policy(spread_ppm=10_000))
    own_id = in_flight(world)
    assert balances(world) == {}
    packet = ilp.encode_fulfill(ilp.Fulfill(FULFILLMENT, b"thanks"))
    world.answer(world.bob, own_id, packet)
    assert world.forwarder.take() == [(world.alice, [(RESPONSE, 7, packet)])]
    assert balances(world) == {"alice USD": (1_000, 0), "bob USD": (0, 990), "fees USD": (0, 10)}
    world.check_at_rest()


def test_a_padded_fulfill_is_relayed_in_its_shortest_form() -> None:
    world = World()
    own_id = in_flight(world)
    packet = ilp.encode_fulfill(ilp.Fulfill(FULFILLMENT, b""))
    world.answer(world.bob, own_id, b"\x0d\x81" + packet[1:])
    assert world.forwarder.take() == [(world.alice, [(RESPONSE, 7, packet)])]


@pytest.mark.parametrize(
    "reject",
    [
        REJECT,
        ilp.Reject("F08", "test.far", "too large", (5).to_bytes(8, "big") + (3).to_bytes(8, "big")),
        ilp.Reject("T00", "", "", b""),
        ilp.Reject("R00", "g.x", "m" * 8_191, bytes(32_767)),
    ],
)
def test_a_reject_passes_unchanged_and_moves_nothing(reject: ilp.Reject) -> None:
    world = World(Policy(spread_ppm=10_000))
    own_id = in_flight(world)
    world.answer(world.bob, own_id, reject)
    assert world.forwarder.take() == [(world.alice, [(RESPONSE, 7, ilp.encode_reject(reject))])]
    assert balances(world) == {}
    world.check_at_rest()


def test_a_second_reply_is_ignored() -> None:
    world = World()
    own_id = in_flight(world)
    world.fulfill(world.bob, own_id)
    world.outgoing()
    world.answer(world.bob, own_id, REJECT)
    world.fulfill(world.bob, own_id)
    assert world.outgoing() == {}
    assert balances(world) == {"alice USD": (1_000, 0), "bob USD": (0, 1_000)}
    assert world.forwarder.counters["ignored reject"] == 1
    assert world.forwarder.counters["ignored fulfill"] == 1


def test_a_reply_to_nothing_is_ignored() -> None:
    world = World()
    own_id = in_flight(world)
    world.fulfill(world.bob, own_id + 1)
    world.fulfill(world.dave, own_id)
    world.fulfill(world.alice, 7)
    assert world.outgoing() == {}
    assert world.forwarder.in_flight == 1
    world.check()


def test_a_fulfill_in_the_last_millisecond_counts() -> None:
    world = World()
    own_id = in_flight(world)
    world.wait(8_999)
    world.fulfill(world.bob, own_id)
    assert list(world.outgoing()) == ["alice"]
    assert balances(world)["bob USD"] == (0, 1_000)


@pytest.mark.parametrize("clock_first", [True, False])
def test_a_late_fulfill_is_ignored_and_never_booked(clock_first: bool) -> None:
    world = World()
    own_id = in_flight(world)
    world.wait(9_000)
    if clock_first:
        world.forwarder.expire(world.now)
        assert world.only_reject(world.alice, 7).code == "R00"
    world.fulfill(world.bob, own_id)
    assert world.outgoing() == {}
    assert world.forwarder.counters["ignored fulfill"] == 1
    if not clock_first:
        world.forwarder.expire(world.now)
        assert world.only_reject(world.alice, 7).code == "R00"
    assert balances(world) == {}
    world.check_at_rest()


def test_a_packet_expires_once_and_not_before_its_time() -> None:
    world = World()
    in_flight(world)
    world.wait(8_999)
    world.forwarder.expire(world.now)
    assert world.outgoing() == {}
    world.wait(1)
    world.forwarder.expire(world.now)
    world.forwarder.expire(world.now)
    reject = world.only_reject(world.alice, 7)
    assert reject == ilp.Reject("R00", "test.node", "bob did not answer in time", b"")
    world.forwarder.expire(world.now)
    assert world.outgoing() == {}


@pytest.mark.parametrize("step_ms", [-86_400_000, -1, 9_000, 86_400_000])
def test_a_step_of_wall_time_neither_expires_nor_keeps_what_is_in_flight(step_ms: int) -> None:
    world = World()
    own_id = in_flight(world)
    in_flight(world, request_id=8)
    world.step(step_ms)
    world.forwarder.expire(world.now)
    assert world.outgoing() == {}
    world.fulfill(world.bob, own_id)
    assert list(world.outgoing()) == ["alice"]
    world.wait(9_000)
    world.forwarder.expire(world.now)
    assert world.only_reject(world.alice, 8).code == "R00"
    world.check_at_rest()


# --- connections ---


def test_a_reply_never_crosses_to_a_newer_connection() -> None:
    world = World()
    own_id = in_flight(world)
    world.forwarder.connected(world.alice, world.now)
    # On the new connection 7 is another packet.
    other_id = in_flight(world)
    world.fulfill(world.bob, own_id)
    assert world.outgoing() == {}
    assert [notice.kind for notice in world.forwarder.notices] == ["fulfill lost"]
    lost = world.forwarder.notices[0]
    assert (lost.hop, lost.amount) == ("alice", 1_000)
    world.check()
    world.fulfill(world.bob, other_id)
    [(kind, request_id, _)] = world.outgoing()["alice"]
    assert (kind, request_id) == (RESPONSE, 7)
    world.check_at_rest()
    # The first is owed to bob, and cannot be counted on from alice.
    assert balances(world)["alice USD"] == (1_000, 0)
    assert balances(world)["bob USD"] == (0, 2_000)
    assert balances(world)["losses USD"] == (1_000, 0)
    [doubt] = world.book.doubts.values()
    assert (doubt.incoming, doubt.incoming_side) == (world.alice.account, Side.OPEN)
    assert (doubt.outgoing, doubt.outgoing_side) == (world.bob.account, Side.OWED)
    assert world.book.doubted == [doubt]


def test_a_newer_connection_cannot_answer_for_an_older() -> None:
    world = World()
    own_id = in_flight(world)
    world.forwarder.connected(world.bob, world.now)
    world.fulfill(world.bob, own_id)
    world.forwarder.failure(world.bob, own_id, "said nothing", world.now)
    assert world.outgoing() == {}
    assert balances(world) == {}
    # Its id is not given out again while the packet is in flight.
    assert in_flight(world, request_id=8) == own_id + 1
    world.wait(9_000)
    world.forwarder.expire(world.now)
    assert [request_id for _, request_id, _ in world.outgoing()["alice"]] == [7, 8]
    world.check_at_rest()
    # Only the answer that went with its link may have been a Fulfill; alice owes nothing either way.
    [doubt] = world.book.doubts.values()
    assert (doubt.incoming, doubt.incoming_side) == (world.alice.account, Side.CLEAR)
    assert (doubt.outgoing, doubt.outgoing_side) == (world.bob.account, Side.OPEN)
    assert (world.alice.account.doubts, world.bob.account.doubts) == (0, 1)
    assert balances(world) == {}


def test_what_is_in_flight_from_a_lost_connection_is_not_answered() -> None:
    world = World()
    in_flight(world)
    world.forwarder.disconnected(world.alice, world.now)
    world.check()
    world.wait(9_000)
    world.forwarder.expire(world.now)
    assert world.outgoing() == {}
    world.check_at_rest()


def test_what_waits_to_leave_is_rejected_with_the_connection() -> None:
    world = World()
    world.send(world.alice, 7)
    world.forwarder.disconnected(world.bob, world.now)
    reject = world.only_reject(world.alice, 7)
    assert (reject.code, reject.message) == ("T01", "the link to bob was lost")
    assert balances(world) == {}
    world.forwarder.connected(world.bob, world.now)
    assert world.outgoing() == {}
    assert in_flight(world, request_id=8) == 2


def test_request_ids_belong_to_their_connection() -> None:
    world = World()
    in_flight(world, world.alice, 7)
    in_flight(world, world.carol, 7)
    assert world.forwarder.in_flight == 2
    world.check()


def test_an_id_in_flight_may_not_be_reused() -> None:
    world = World()
    own_id = in_flight(world)
    with pytest.raises(RemoteProtocolError, match="request id 7 is in flight already"):
        world.send(world.alice, 7)
    assert world.outgoing() == {}
    world.check()
    world.fulfill(world.bob, own_id)
    world.outgoing()
    assert in_flight(world) == own_id + 1


def test_our_ids_wrap_around_and_skip_those_in_flight() -> None:
    world = World()
    assert in_flight(world, request_id=1) == 1
    assert in_flight(world, request_id=2) == 2
    world.bob.next_request_id = U32_MAX
    assert in_flight(world, request_id=3) == U32_MAX
    assert in_flight(world, request_id=4) == 3
    world.bob.next_request_id = U32_MAX
    assert in_flight(world, request_id=5) == 4
    world.check()


# --- money ---


def test_the_fee_is_rounded_up() -> None:
    world = World(Policy(spread_ppm=1_000))
    world.send(world.alice, 7, amount=1_001)
    own_id, forwarded = world.only_prepare(world.bob)
    assert forwarded.amount == 999
    world.fulfill(world.bob, own_id)
    assert balances(world) == {"alice USD": (1_001, 0), "bob USD": (0, 999), "fees USD": (0, 2)}


def test_delivery_to_a_local_account_costs_nothing() -> None:
    world = World(Policy(spread_ppm=10_000))
    world.send(world.alice, 7, destination="test.node.shop.token")
    own_id, delivered = world.only_prepare(world.shop)
    assert delivered.amount == 1_000
    world.fulfill(world.shop, own_id)
    assert balances(world) == {"alice USD": (1_000, 0), "shop USD": (0, 1_000)}


def test_an_exchange_books_both_sides_and_what_rounding_leaves() -> None:
    world = World(Policy(spread_ppm=10_000))
    world.send(world.alice, 7, amount=1_000, destination="test.erin")
    own_id, forwarded = world.only_prepare(world.erin)
    assert forwarded.amount == 900  # 990 / 1.1
    world.check()
    world.fulfill(world.erin, own_id)
    assert balances(world) == {
        "alice USD": (1_000, 0),
        "fees USD": (0, 10),
        "exchange USD": (0, 990),
        "exchange EUR": (900, 0),
        "erin EUR": (0, 900),
    }
    world.check_at_rest()


def test_conversion_rounds_down() -> None:
    world = World()
    world.send(world.alice, 7, amount=10, destination="test.erin")
    assert world.only_prepare(world.erin)[1].amount == 9  # 9.09


def test_a_packet_without_value_is_forwarded_and_never_booked() -> None:
    world = World(Policy(spread_ppm=10_000))
    world.send(world.alice, 7, amount=0, destination="test.erin")
    own_id, forwarded = world.only_prepare(world.erin)
    assert forwarded.amount == 0
    world.check()
    world.fulfill(world.erin, own_id)
    assert list(world.outgoing()) == ["alice"]
    assert balances(world) == {}
    world.check_at_rest()


def test_the_largest_amount_passes_where_credit_allows() -> None:
    world = World()
    world.alice.account.credit_limit = U64_MAX
    world.send(world.alice, 7, amount=U64_MAX)
    own_id, forwarded = world.only_prepare(world.bob)
    assert forwarded.amount == U64_MAX
    world.fulfill(world.bob, own_id)
    assert world.alice.account.net == U64_MAX


def test_a_valid_fulfill_is_relayed_while_draining() -> None:
    world = World()
    own_id = in_flight(world)
    world.forwarder.closed_by["drain"] = Refusal("T03", "this connector is shutting down")
    world.fulfill(world.bob, own_id)
    assert list(world.outgoing()) == ["alice"]
    world.check_at_rest()


def test_a_child_may_pay_what_is_below_it() -> None:
    world = World(Policy(spread_ppm=1_000))
    world.send(world.carol, 7, destination="test.node.carol.app")
    own_id, forwarded = world.only_prepare(world.carol)
    assert forwarded.amount == 999
    world.check()
    world.fulfill(world.carol, own_id)
    [(kind, request_id, packet)] = world.outgoing()["carol"]
    assert (kind, request_id) == (RESPONSE, 7)
    assert isinstance(packet, ilp.Fulfill)
    assert balances(world) == {"carol USD": (1_000, 999), "exchange USD": (999, 999), "fees USD": (0, 1)}


def test_counters_say_what_became_of_packets() -> None:
    world = World()
    world.fulfill(world.bob, in_flight(world))
    world.outgoing()
    world.answer(world.bob, in_flight(world, request_id=8), REJECT)
    world.send(world.alice, 9, b"nonsense")
    assert world.forwarder.counters == {
        "prepares": 3,
        "fulfilled": 1,
        "relayed F99": 1,
        "rejected F01": 1,
    }


def test_every_reply_of_every_kind_is_encoded_as_ilp() -> None:
    world = World()
    own_id = in_flight(world)
    world.answer(world.bob, own_id, encode(REJECT))
    assert world.only_reject(world.alice, 7) == REJECT


def test_remembered_next_hops_follow_the_routes_and_are_bounded() -> None:
    world = World()
    forwarder = world.forwarder
    world.send(world.alice, 1, destination="test.far.x")
    assert "no route" in world.only_reject(world.alice, 1).message
    forwarder.routes.add("test.far", world.bob)
    world.send(world.alice, 2, destination="test.far.x")
    world.only_prepare(world.bob)
    forwarder.routes.add("test.far.x", world.carol)
    world.send(world.alice, 3, destination="test.far.x")
    world.only_prepare(world.carol)
    forwarder.routes.remove("test.far.x")
    for number in range(ROUTE_CACHE_MAX + 10):
        forwarder.admission.next_hop(world.alice, f"test.far.{number}")
        assert len(forwarder.admission._next_hops) <= ROUTE_CACHE_MAX


def test_a_late_fulfill_is_told_with_its_packet_and_value() -> None:
    world = World()
    world.send(world.alice, 1, amount=700, destination="test.bob.x")
    own_id, prepare = world.only_prepare(world.bob)
    world.wait(60_000)
    world.forwarder.expire(world.now)
    world.forwarder.notices.clear()
    for _ in range(2):
        world.fulfill(world.bob, own_id)
    late, again = world.forwarder.notices
    assert (late.kind, late.hop, late.amount) == ("ignored fulfill", "bob", prepare.amount)
    assert (late.packet_id, late.reason) == (prepare.condition[:16].hex(), "it came too late")
    assert (again.packet_id, again.amount, again.reason) == ("", 0, "it answers nothing, or again")


def test_expired_packets_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "EXPIRED_REMEMBERED_MAX", 3)
    world = World()
    for request_id in range(10):
        world.send(world.alice, request_id, destination="test.bob.x")
    world.wait(60_000)
    world.forwarder.expire(world.now)
    assert len(world.forwarder._expired) == 3
