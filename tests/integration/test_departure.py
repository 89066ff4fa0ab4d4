"""What is recorded of frames that left: link by link, and nothing of frames that did not."""

from collections import Counter
from pathlib import Path

import trio
import trio.testing

from connector.ledger.recovery import recover
from connector.node.node import Node
from connector.protocol import btp, ilp
from tests.integration.booked import booked
from tests.integration.keeping import keeping, open_shop
from tests.integration.peers import FULFILL, child, prepare
from tests.integration.test_books import open_packet, pay


async def test_refusals_of_a_journal_that_fails_are_kept_nowhere(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with booked(tmp_path) as world:
        alice = await world.peer("alice")
        await world.peer("bob")
        await trio.sleep(1)
        world.disk.failure = "the disk is full"
        for number in range(500):
            await alice.ask(prepare(), 4 + number)
            assert (await alice.rejection()).code == "T00"
        assert len(world.node.pipeline.gate._held) < 3
        world.disk.failure = ""
        await trio.sleep(60)


async def test_a_mark_says_nothing_of_frames_that_follow_in_the_same_batch(
    tmp_path: Path, autojump_clock: object
) -> None:
    """Replies for two hops wait; the first one's link is lost, the second one's peer does not read."""
    async with booked(tmp_path, child("alice"), child("bob"), child("carol")) as world:
        alice, bob, carol = await world.peer("alice"), await world.peer("bob"), await world.peer("carol")
        asked = [await open_packet(alice, bob, 2), await open_packet(carol, bob, 2)]
        await trio.sleep(1)
        world.ends[2].send_stream.send_all_hook = trio.sleep_forever  # type: ignore[attr-defined]  # memory
        world.disk.hold()
        link = world.node.registry.link("bob")
        assert link is not None
        link.session.receive([btp.ilp_response(request_id, FULFILL) for request_id in asked])
        await trio.aclose_forcefully(alice.stream)
        await trio.testing.wait_all_tasks_blocked()
        world.disk.let_go()
        await trio.sleep(0.5)
        recovered = recover(world.journal.store, 1)
        doubted = {doubt.incoming.name for doubt in recovered.book.doubts.values()}
        assert doubted == {"alice", "carol"}


async def test_a_peer_that_does_not_read_holds_up_nobody_elses_mark(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with booked(tmp_path, child("alice"), child("bob"), child("carol")) as world:
        alice, bob, carol = await world.peer("alice"), await world.peer("bob"), await world.peer("carol")
        asked = await open_packet(carol, bob, 2)
        await trio.sleep(1)
        world.ends[2].send_stream.send_all_hook = trio.sleep_forever  # type: ignore[attr-defined]  # memory
        await bob.reply(asked, FULFILL)
        await trio.sleep(1)
        for number in range(20):
            await pay(alice, bob, 10 + number, 100)
        await trio.sleep(1)
        recovered = recover(world.journal.store, 1)
        doubted = Counter(doubt.incoming.name for doubt in recovered.book.doubts.values())
        assert doubted == {"carol": 1}


async def test_a_packet_that_ends_while_a_node_drains_is_in_no_doubt(tmp_path: Path) -> None:
    async with open_shop(keeping(tmp_path)) as shop:
        alice, bob = await shop.peer("alice"), await shop.peer("bob")
        asked = await open_packet(alice, bob)
        shop.node.stop()
        await trio.testing.wait_all_tasks_blocked()
        await bob.reply(asked, FULFILL)
        assert isinstance(await alice.answer(), ilp.Fulfill)
    node = Node(keeping(tmp_path))
    assert not node.book.doubts
    await node.books.close()


async def test_nothing_leaves_behind_a_close_frame(tmp_path: Path, autojump_clock: object) -> None:
    """A peer that says goodbye reads no more, long before its connection ends: its Fulfill is in doubt."""
    async with booked(tmp_path) as world:
        alice, bob = await world.peer("alice"), await world.peer("bob")
        asked = await open_packet(alice, bob, 2)
        await trio.sleep(1)
        link = world.node.registry.link("alice")
        assert link is not None
        # The library's answer to alice's close frame, as it is queued.
        link.stream._said_goodbye = True
        await bob.reply(asked, FULFILL)
        await trio.sleep(1)
        await trio.aclose_forcefully(alice.stream)
        await trio.sleep(1)
        doubted = [doubt.incoming.name for doubt in world.node.book.doubts.values()]
        assert doubted == ["alice"]
