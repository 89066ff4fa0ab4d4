"""Strangers: who is not let in, and that peers are not kept out by them."""

import pytest
import trio

from connector import limits
from connector.protocol import btp, ilp
from connector.protocol.websocket import binary_frame
from tests.integration.peers import FULFILL, HANDSHAKE, honest_pair, prepare


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


async def test_strangers_past_the_bound_make_room_for_who_comes_after(autojump_clock: object) -> None:
    async with honest_pair() as (world, _, _):
        strangers = []
        for _ in range(limits.UNAUTHENTICATED_LINKS_MAX + 2):
            strangers.append(world.stream())
            await trio.testing.wait_all_tasks_blocked()
        assert world.node.listener.strangers == limits.UNAUTHENTICATED_LINKS_MAX
        # The two that waited longest had to go.
        assert await strangers[0].receive_some() == b""
        assert await strangers[1].receive_some() == b""
        # However many sit there, a peer comes in at once.
        started_s = trio.current_time()
        await world.peer("mallory")
        assert trio.current_time() == started_s
        assert world.node.listener.strangers == limits.UNAUTHENTICATED_LINKS_MAX - 1


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
