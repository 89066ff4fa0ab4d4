"""What a careless or hostile peer sends: a clear reject or close, and nobody else is touched.

Every test ends by sending a packet between two honest peers over the same node.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from connector import limits
from connector.protocol import btp, ilp
from connector.protocol.websocket import binary_frame
from tests.integration.peers import FULFILL, HANDSHAKE, Peer, World, child, node_config, prepare, running


@asynccontextmanager
async def honest_pair(*more: dict[str, object]) -> AsyncIterator[tuple[World, Peer, Peer]]:
    """A node with alice and bob connected, whose packets must still flow at the end; mallory may come."""
    async with running(node_config(child("alice"), child("bob"), child("mallory"), *more)) as world:
        alice, bob = await world.peer("alice"), await world.peer("bob")
        yield world, alice, bob
        await world.assert_link_works(alice, bob)
        assert world.node.forwarder.in_flight == 0
        for totals in world.node.book.totals().values():
            assert totals.debits_posted == totals.credits_posted
            assert totals.debits_pending == totals.credits_pending == 0


# --- authentication ---


async def test_a_wrong_token_is_refused_with_an_error_and_a_close(autojump_clock: object) -> None:
    async with honest_pair() as (world, _, _):
        stranger = await world.open()
        answer = await stranger.authenticate("wrong-token")
        assert isinstance(answer, btp.Error)
        assert answer.request_id == 1
        assert answer.code == "F00"
        assert b"unknown token" in answer.data
        assert b"wrong-token" not in answer.data
        assert (await stranger.closed()).code == 1008


async def test_a_user_name_must_belong_to_the_token(autojump_clock: object) -> None:
    async with honest_pair() as (world, _, _):
        assert isinstance(await (await world.open()).authenticate("mallory", "alice"), btp.Error)
        assert isinstance(await (await world.open()).authenticate("mallory", "mallory"), btp.Response)
        assert isinstance(await (await world.open()).authenticate("mallory", ""), btp.Response)


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (btp.ilp_message(9, ilp.encode_prepare(prepare())), b"first sub-protocol must be an empty 'auth'"),
        (btp.ilp_response(9, FULFILL), b"first message must authenticate"),
        (btp.empty_response(9), b"first message must authenticate"),
        (btp.encode(btp.Message(9, ())), b"first message must authenticate"),
        (btp.encode(btp.Message(9, (btp.SubProtocol("auth", 0, b""),))), b"'auth_token' is missing"),
        (
            btp.encode(
                btp.Message(9, (btp.SubProtocol("auth", 0, b"x"), btp.SubProtocol("auth_token", 1, b"alice")))
            ),
            b"must be an empty 'auth'",
        ),
        (
            btp.encode(
                btp.Message(9, (btp.SubProtocol("auth_token", 1, b"alice"), btp.SubProtocol("auth", 0, b"")))
            ),
            b"must be an empty 'auth'",
        ),
        (
            btp.encode(
                btp.Message(
                    9, (btp.SubProtocol("auth", 0, b""), btp.SubProtocol("auth_token", 1, b"a" * 2_000))
                )
            ),
            b"auth_token: more than 1024 bytes",
        ),
        (
            btp.encode(
                btp.Message(9, (btp.SubProtocol("auth", 0, b""), btp.SubProtocol("auth_token", 1, b"\xff")))
            ),
            b"auth_token: UTF-8 expected",
        ),
        (
            # The same name twice, which our own encoder refuses to write.
            b"\x06\x00\x00\x00\x09\x13\x01\x02\x04auth\x00\x00\x04auth\x00\x00",
            b"",
        ),
    ],
)
async def test_anything_but_auth_first_is_an_error_and_a_close(
    first: bytes, reason: bytes, autojump_clock: object
) -> None:
    async with honest_pair() as (world, _, _):
        stranger = await world.open()
        await stranger.send(first)
        error = await stranger.receive()
        assert isinstance(error, btp.Error)
        assert error.request_id == 9
        assert reason in error.data
        assert (await stranger.closed()).code == 1008


async def test_who_does_not_authenticate_in_time_is_put_out(autojump_clock: object) -> None:
    async with honest_pair() as (world, _, _):
        stranger = await world.open()
        started = trio.current_time()
        error = await stranger.receive()
        assert isinstance(error, btp.Error)
        assert b"no authentication within 5 s" in error.data
        assert trio.current_time() - started == pytest.approx(limits.AUTH_TIMEOUT_S, abs=0.1)
        await stranger.closed()


async def test_pings_before_authentication_are_answered(autojump_clock: object) -> None:
    async with honest_pair() as (world, _, _):
        early = await world.open()
        await early.ws.ping(b"early")
        assert isinstance(await early.authenticate("mallory"), btp.Response)


async def test_auth_that_comes_in_one_piece_with_the_handshake_is_heard(autojump_clock: object) -> None:
    async with honest_pair() as (world, _, _):
        stream = world.stream()
        credentials = (btp.SubProtocol("auth", 0, b""), btp.SubProtocol("auth_token", 1, b"mallory"))
        auth = btp.encode(btp.Message(1, credentials))
        await stream.send_all(HANDSHAKE + binary_frame(auth, b"mask"))
        heard = b""
        with trio.fail_after(limits.AUTH_TIMEOUT_S / 2):
            while binary_frame(btp.empty_response(1)) not in heard:
                heard += await stream.receive_some()
        assert heard.startswith(b"HTTP/1.1 101")
        await stream.aclose()


async def test_strangers_past_the_bound_are_refused_and_peers_still_come_in(autojump_clock: object) -> None:
    async with honest_pair() as (world, _, _):
        strangers = [world.stream() for _ in range(limits.UNAUTHENTICATED_LINKS_MAX)]
        await trio.testing.wait_all_tasks_blocked()
        assert world.node.listener.strangers == limits.UNAUTHENTICATED_LINKS_MAX
        assert await world.stream().receive_some() == b""
        await strangers[0].aclose()
        await trio.testing.wait_all_tasks_blocked()
        await world.peer("mallory")


async def test_a_connection_that_is_no_websocket_is_closed(autojump_clock: object) -> None:
    async with honest_pair() as (world, _, _):
        for opening in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x00\xff\x00\xff" * 10, b"", b"\r\n\r\n"):
            stream = world.stream()
            await stream.send_all(opening or b"G")
            started = trio.current_time()
            while await stream.receive_some():
                pass
            assert trio.current_time() - started <= limits.HANDSHAKE_TIMEOUT_S + limits.CLOSE_TIMEOUT_S + 1
        await trio.testing.wait_all_tasks_blocked()
        assert world.node.listener.strangers == 0


# --- frames ---


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", b"0 bytes, at least 6 expected"),
        (b"\x06\x00\x00", b"3 bytes, at least 6 expected"),
        (b"\x05\x00\x00\x00\x07\x00", b"type 5 is none of 1, 2, 6, 7"),
        (b"\x06\x00\x00\x00\x07\x05\x01\x00", b"5 octets announced, 2 there"),
        (b"\x06\x00\x00\x00\x07\x02\x01\x00\x00", b"1 bytes after its end"),
        (b"\x06\x00\x00\x00\x07\x02\x01\x63", b"sub-protocol count: 99, at most 16"),
        (b"\x06\x00\x00\x00\x07\x02\x01\x01", b"the length is missing"),
    ],
)
async def test_a_frame_that_cannot_be_read_closes_its_link_only(
    frame: bytes, reason: bytes, autojump_clock: object
) -> None:
    async with honest_pair() as (world, _, _):
        mallory = await world.peer("mallory")
        await mallory.send(frame)
        error = await mallory.receive()
        assert isinstance(error, btp.Error)
        assert reason in error.data
        assert (await mallory.closed()).code == 1008


async def test_what_came_before_a_broken_frame_counts(autojump_clock: object) -> None:
    async with honest_pair() as (world, alice, _):
        mallory = await world.peer("mallory")
        await alice.ask(prepare("test.node.mallory.x"), 5)
        frame = await mallory.receive()
        good = binary_frame(btp.ilp_response(frame.request_id, FULFILL), b"mask")
        await mallory.stream.send_all(good + binary_frame(b"broken", b"mask"))
        assert isinstance(await alice.answer(), ilp.Fulfill)
        assert world.hop("mallory").account.net == -100
        await mallory.closed()


async def test_a_text_message_closes_the_link(autojump_clock: object) -> None:
    async with honest_pair() as (world, _, _):
        mallory = await world.peer("mallory")
        await mallory.ws.send_message("hello")
        error = await mallory.receive()
        assert isinstance(error, btp.Error)
        assert b"text message" in error.data
        await mallory.closed()


async def test_a_frame_past_the_bound_is_refused_before_it_is_buffered(autojump_clock: object) -> None:
    async with honest_pair() as (world, _, _):
        mallory = await world.peer("mallory")
        # Only the header and a little more: who announces too much is not waited for.
        too_long = (limits.BTP_FRAME_MAX_BYTES + 1).to_bytes(8, "big")
        await mallory.stream.send_all(
            b"\x82\xff" + too_long + b"mask" + bytes(limits.BTP_FRAME_MAX_BYTES + 1)
        )
        assert (await mallory.closed()).code == 1009


async def test_an_unmasked_frame_from_a_client_breaks_the_websocket(autojump_clock: object) -> None:
    async with honest_pair() as (world, _, _):
        mallory = await world.peer("mallory")
        await mallory.stream.send_all(b"\x82\x02hi")
        # The library closes without a word, which the other side sees as 1006.
        assert (await mallory.closed()).code == 1006


async def test_one_octet_at_a_time_is_slow_but_right(autojump_clock: object) -> None:
    async with honest_pair() as (world, _, bob):
        mallory = await world.peer("mallory")
        message = btp.ilp_message(5, ilp.encode_prepare(prepare()))
        for octet in binary_frame(message, b"mask"):
            await mallory.stream.send_all(bytes((octet,)))
        frame = await bob.receive()
        await bob.reply(frame.request_id, FULFILL)
        assert await mallory.answer() == ilp.Fulfill(ilp.decode_fulfill(FULFILL).fulfillment, b"")


async def test_a_message_in_fragments_is_put_together(autojump_clock: object) -> None:
    async with honest_pair() as (world, _, bob):
        mallory = await world.peer("mallory")
        message = btp.ilp_message(5, ilp.encode_prepare(prepare()))
        zero_mask = bytes(4)
        await mallory.stream.send_all(b"\x02\x8a" + zero_mask + message[:10])
        await mallory.stream.send_all(b"\x89\x80" + zero_mask)  # A ping in between.
        await mallory.stream.send_all(bytes((0x80, 0x80 | len(message) - 10)) + zero_mask + message[10:])
        frame = await bob.receive()
        await bob.reply(frame.request_id, FULFILL)
        assert isinstance(await mallory.answer(), ilp.Fulfill)


async def test_unknown_sub_protocols_get_an_empty_response(autojump_clock: object) -> None:
    async with honest_pair() as (world, _, _):
        mallory = await world.peer("mallory")
        await mallory.send(btp.Message(77, (btp.SubProtocol("gossip", 1, b"hello"),)))
        assert await mallory.receive() == btp.Response(77, ())
        await mallory.send(btp.Message(78, ()))
        assert await mallory.receive() == btp.Response(78, ())


async def test_a_transfer_is_answered_with_an_error(autojump_clock: object) -> None:
    async with honest_pair() as (world, _, _):
        mallory = await world.peer("mallory")
        await mallory.send(btp.Transfer(5, 1_000, ()))
        error = await mallory.receive()
        assert isinstance(error, btp.Error)
        assert (error.request_id, error.code) == (5, "F00")


async def test_an_ilp_packet_beside_other_sub_protocols_is_still_seen(autojump_clock: object) -> None:
    async with honest_pair() as (world, _, bob):
        mallory = await world.peer("mallory")
        packet = ilp.encode_prepare(prepare())
        extra = btp.SubProtocol("note", 1, b"hello")
        await mallory.send(btp.Message(3, (extra, btp.SubProtocol("ilp", 0, packet))))
        frame = await bob.receive()
        assert isinstance(frame, btp.Message)
        assert [part.name for part in frame.sub_protocols] == ["ilp"]
        await bob.reply(frame.request_id, FULFILL)
        assert isinstance(await mallory.answer(), ilp.Fulfill)


# --- packets ---


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"", "nothing found"),
        (b"\x0c", "the length is missing"),
        (FULFILL, "type 12 expected, 13 found"),
        (ilp.encode_prepare(prepare())[:-1], "octets announced"),
        (ilp.encode_prepare(prepare()) + b"\x00", "1 bytes after its end"),
        (b"\x0c\x83\x01\x00\x00" + bytes(65_536 - 100), "bytes, at most"),
    ],
)
async def test_a_packet_that_cannot_be_read_is_rejected_and_the_link_stays(
    packet: bytes, reason: str, autojump_clock: object
) -> None:
    async with honest_pair() as (world, _, _):
        mallory = await world.peer("mallory")
        await mallory.ask(packet, 3)
        frame = await mallory.receive()
        assert isinstance(frame, btp.Response)
        assert frame.request_id == 3
        reject = ilp.decode(frame.sub_protocols[0].data)
        assert isinstance(reject, ilp.Reject)
        assert (reject.code, reject.triggered_by) == ("F01", "test.node")
        assert reason in reject.message
        await mallory.ask(prepare("test.nowhere"), 3)
        assert (await mallory.rejection()).code == "F02"


async def test_a_request_id_in_flight_may_not_be_used_again(autojump_clock: object) -> None:
    async with honest_pair() as (world, _, bob):
        mallory = await world.peer("mallory")
        await mallory.ask(prepare(), 5)
        await mallory.ask(prepare(), 5)
        error = await mallory.receive()
        assert isinstance(error, btp.Error)
        assert error.request_id == 5
        assert b"request id 5 is in flight already" in error.data
        await mallory.closed()
        # The first is with bob already: it counts, though nobody can be told.
        frame = await bob.receive()
        await bob.reply(frame.request_id, FULFILL)
        await trio.testing.wait_all_tasks_blocked()
        assert world.hop("bob").account.net == -100


async def test_a_flood_past_the_rate_limit_is_rejected_and_others_are_not_slowed(
    autojump_clock: object,
) -> None:
    async with honest_pair(child("flooder", max_packets_per_s=10)) as (world, alice, bob):
        flooder = await world.peer("flooder")
        for request_id in range(2, 42):
            await flooder.ask(prepare("test.nowhere"), request_id)
        codes = [(await flooder.rejection()).code for _ in range(40)]
        # The burst is one second's worth, and the mock clock stands still meanwhile.
        assert codes == ["F02"] * 10 + ["T05"] * 30
        await world.assert_link_works(alice, bob)


async def test_packets_in_flight_from_one_link_are_bounded(autojump_clock: object) -> None:
    bounds = {"in_flight_per_link_max": 3, "in_flight_max": 5, "hold_max_ms": 5_000}
    async with running(node_config(child("alice"), child("bob"), child("mallory"), limits=bounds)) as world:
        alice, bob, mallory = [await world.peer(name) for name in ("alice", "bob", "mallory")]
        for request_id in range(2, 6):
            await mallory.ask(prepare(), request_id)
        reject = await mallory.rejection()
        assert reject.code == "T02"
        assert world.node.forwarder.in_flight == 3
        for _ in range(3):
            frame = await bob.receive()
            await bob.reply(frame.request_id, FULFILL)
        await world.assert_link_works(alice, bob)


async def test_the_credit_limit_holds_for_value_in_flight(autojump_clock: object) -> None:
    async with honest_pair(child("poor", credit_limit=250)) as (world, _, bob):
        poor = await world.peer("poor")
        for request_id in (2, 3, 4):
            await poor.ask(prepare(), request_id)
        reject = await poor.rejection()
        assert reject.code == "T04"
        assert "50 left, 100 needed" in reject.message
        for _ in range(2):
            frame = await bob.receive()
            await bob.reply(frame.request_id, FULFILL)
            assert isinstance(await poor.answer(), ilp.Fulfill)
        assert world.hop("poor").account.net == 200


# --- replies ---


async def test_a_peer_that_never_answers_is_answered_for_at_the_expiry(autojump_clock: object) -> None:
    async with honest_pair() as (world, alice, bob):
        started_s = trio.current_time()
        await alice.ask(prepare(), 5)
        sent = await bob.receive()
        reject = await alice.rejection()
        assert (reject.code, reject.message) == ("R00", "bob did not answer in time")
        assert trio.current_time() - started_s == pytest.approx(limits.HOLD_MAX_MS / 1000, abs=0.01)
        # Then it answers after all: that counts for nothing.
        await bob.reply(sent.request_id, FULFILL)
        await trio.testing.wait_all_tasks_blocked()
        assert world.hop("bob").account.net == world.hop("alice").account.net == 0
        assert world.node.forwarder.counters["ignored fulfill"] == 1


async def test_a_second_answer_is_ignored(autojump_clock: object) -> None:
    async with honest_pair() as (world, alice, bob):
        await alice.ask(prepare(), 5)
        frame = await bob.receive()
        for _ in range(3):
            await bob.reply(frame.request_id, FULFILL)
        assert isinstance(await alice.answer(), ilp.Fulfill)
        await trio.testing.wait_all_tasks_blocked()
        assert world.hop("bob").account.net == -100
        assert world.node.forwarder.counters["ignored fulfill"] == 2


async def test_an_answer_to_nothing_is_ignored_without_a_reply(autojump_clock: object) -> None:
    async with honest_pair() as (world, _, _):
        mallory = await world.peer("mallory")
        await mallory.reply(4_000_000_000, FULFILL)
        await mallory.send(btp.Error(12, "T00", "X", "", b""))
        await mallory.send(btp.empty_response(13))
        await mallory.send(btp.Message(14, ()))
        # The first thing heard is the answer to the last.
        assert await mallory.receive() == btp.Response(14, ())


async def test_a_wrong_fulfillment_is_rejected_upstream_and_owes_nothing(autojump_clock: object) -> None:
    async with honest_pair() as (world, alice, bob):
        await alice.ask(prepare(), 5)
        frame = await bob.receive()
        await bob.reply(frame.request_id, ilp.encode_fulfill(ilp.Fulfill(bytes(32), b"")))
        reject = await alice.rejection()
        assert reject.code == "F05"
        assert "does not match the condition" in reject.message
        assert world.hop("bob").account.net == world.hop("alice").account.net == 0


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (btp.encode(btp.Error(0, "F00", "NotAcceptedError", "", b"no")), "answered with BTP error F00"),
        (btp.empty_response(0), "answered without an ILP packet"),
        (btp.ilp_response(0, b"\x0d\x05abc"), "sent an unreadable reply"),
        (btp.ilp_response(0, ilp.encode_prepare(prepare())), "sent an unreadable reply"),
        (btp.ilp_response(0, b""), "sent an unreadable reply"),
    ],
)
async def test_an_answer_that_is_no_ilp_reply_becomes_a_reject(
    answer: bytes, reason: str, autojump_clock: object
) -> None:
    async with honest_pair() as (_, alice, bob):
        await alice.ask(prepare(), 5)
        frame = await bob.receive()
        await bob.send(answer[:1] + frame.request_id.to_bytes(4, "big") + answer[5:])
        reject = await alice.rejection()
        assert reject.code == "T00"
        assert reason in reject.message


async def test_a_peer_that_does_not_read_gets_no_more_packets_and_holds_up_nobody(
    autojump_clock: object,
) -> None:
    data = bytes(30_000)
    async with running(node_config(child("alice"), child("bob"), child("mallory"))) as world:
        alice, bob = await world.peer("alice"), await world.peer("bob")
        await world.peer("mallory")
        # Her stream takes nothing from now on.
        gate = trio.Event()
        mallory_side = world.node.registry.link("mallory")
        assert mallory_side is not None
        transport = mallory_side.stream._transport

        async def blocked(_data: object) -> None:
            await gate.wait()

        transport.send_all = blocked  # type: ignore[assignment, method-assign]
        for request_id in range(2, 60):
            await alice.ask(prepare("test.node.mallory.x", data=data), request_id)
        for _ in range(58 - world.node.forwarder.in_flight):
            reject = await alice.rejection()
            assert (reject.code, reject.message) == ("T02", "mallory is overloaded")
        waiting = mallory_side.stream._queued - mallory_side.stream._written
        assert waiting > limits.WRITE_SOFT_MAX_BYTES
        assert waiting < limits.WRITE_SOFT_MAX_BYTES + 2 * limits.BTP_FRAME_MAX_BYTES
        await world.assert_link_works(alice, bob)
        gate.set()
        del transport.send_all
        await trio.testing.wait_all_tasks_blocked()
        assert not world.hop("mallory").congested
