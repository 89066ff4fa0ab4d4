"""Broken frames: they close their own link at worst, and nobody else is touched."""

import pytest

from connector import limits
from connector.protocol import btp, ilp
from connector.protocol.websocket import binary_frame
from tests.integration.peers import FULFILL, honest_pair, prepare


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
