"""Random octets at a node's door: it answers or closes, it never falls over."""

import random

import pytest
import trio

from connector.protocol import btp, ilp
from connector.protocol.websocket import binary_frame
from tests.integration.peers import FULFILL, HANDSHAKE, World, child, node_config, prepare, running

_AUTH = btp.encode(
    btp.Message(1, (btp.SubProtocol("auth", 0, b""), btp.SubProtocol("auth_token", 1, b"mallory")))
)


def _frames(chance: random.Random) -> bytes:
    """A few WebSocket frames: good ones, odd ones, and control frames."""
    mask = chance.randbytes(4)
    payloads = (
        btp.ilp_message(chance.getrandbits(32), ilp.encode_prepare(prepare(amount=chance.randrange(200)))),
        btp.ilp_response(chance.randrange(50), FULFILL),
        btp.empty_response(chance.randrange(50)),
        btp.encode(btp.Transfer(3, 4, ())),
        chance.randbytes(chance.randrange(40)),
    )
    frames = []
    for _ in range(chance.randrange(1, 6)):
        frame = bytearray(binary_frame(chance.choice(payloads), mask))
        if chance.random() < 0.3:
            frame[0] = chance.choice((0x02, 0x80, 0x81, 0x88, 0x89, 0x8A, 0xC2, 0x8F))
        frames.append(bytes(frame))
    return b"".join(frames)


def _mutated(octets: bytes, chance: random.Random) -> bytes:
    """`octets` with some changed, cut out, or repeated."""
    out = bytearray(octets)
    for _ in range(chance.randrange(3)):
        place = chance.randrange(len(out) + 1)
        match chance.randrange(3):
            case 0 if place < len(out):
                out[place] = chance.getrandbits(8)
            case 1:
                del out[place : place + chance.randrange(8)]
            case _:
                out[place:place] = out[place : place + chance.randrange(8)]
    return bytes(out)


async def _visit(world: World, chance: random.Random) -> None:
    """Send one connection's worth of octets in pieces, read what comes, leave."""
    opening = HANDSHAKE if chance.random() < 0.8 else _mutated(HANDSHAKE, chance)
    octets = opening + binary_frame(_AUTH, b"mask") + b"".join(_frames(chance) for _ in range(5))
    if chance.random() < 0.8:
        octets = octets[: len(opening)] + _mutated(octets[len(opening) :], chance)
    stream = world.stream()
    try:
        while octets:
            size = chance.choice((1, 7, 50, 1_000, 10_000))
            await stream.send_all(octets[:size])
            octets = octets[size:]
        with trio.move_on_after(chance.choice((0, 1, 60))):
            while await stream.receive_some():
                pass
    except trio.BrokenResourceError:
        pass
    await stream.aclose()


@pytest.mark.parametrize("seed", range(60))
async def test_random_octets_close_their_own_connection_at_worst(seed: int, autojump_clock: object) -> None:
    chance = random.Random(seed)
    config = node_config(child("alice"), child("bob"), child("mallory", credit_limit=1_000))
    async with running(config) as world:
        alice, bob = await world.peer("alice"), await world.peer("bob")
        for _ in range(30):
            await _visit(world, chance)
            # What mallory's good packets brought to bob.
            while bob.ws._recv_channel.statistics().current_buffer_used:
                await bob.receive()
        # Everything in flight has expired by then.
        await trio.sleep(40)
        assert world.node.forwarder.in_flight == 0
        assert world.node.listener.strangers == 0
        assert world.hop("mallory").account.debits_pending == 0
        while bob.ws._recv_channel.statistics().current_buffer_used:
            await bob.receive()
        await world.assert_link_works(alice, bob)
