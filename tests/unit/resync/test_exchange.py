"""A resync from end to end: what it brings over, what readers see meanwhile, and what an interruption leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent_core.database.build import PAGE_SIZE
from agent_core.database.pages import RUN_PAGES
from agent_core.errors import Unavailable
from agent_core.position import Position
from agent_core.rpc import replication_pb2 as pb
from tests.unit.resync.harness import Thread, assert_identical, end_message, resync_of, source_of, start_message
from tests.unit.shard_histories import History, pages_of


async def test_a_node_without_the_shard_gets_all_of_it(thread: Thread, history: History) -> None:
    source, resync = source_of(history), resync_of(thread)
    assert await resync.run(source.serve) == history.position
    assert thread.owned.applied == history.position
    assert resync.pages_received == source.pages_sent > 40
    assert resync.bytes_received == source.bytes_sent
    assert resync.bytes_sent == source.bytes_received
    assert (source.served, source.active, source.sent_uncommitted) == (1, 0, 0)
    await assert_identical(thread, history)


@pytest.mark.parametrize("change", ["grow", "shrink", "vacuum", "schema", "rewrite"])
async def test_whatever_happened_meanwhile_the_shard_becomes_identical(
    thread: Thread, history: History, change: str
) -> None:
    await thread.run(thread.owned.apply, history.records)
    if change == "grow":
        history.fill(700)
    elif change == "shrink":
        history.commit("DROP TABLE filling")
        history.vacuum()
    elif change == "vacuum":
        history.commit("DELETE FROM filling WHERE id % 2 = 0")
        history.vacuum()
    elif change == "schema":
        history.commit(*(f"CREATE TABLE t{number} (a, b UNIQUE)" for number in range(50)))
    else:
        history.commit("UPDATE filling SET body = randomblob(3000)")
    if change in {"shrink", "vacuum"}:
        history.commit()
    await resync_of(thread).run(source_of(history).serve)
    assert thread.owned.applied == history.position
    assert thread.owned.page_count == history.records[-1].page_count
    await assert_identical(thread, history)


async def test_equal_shards_exchange_hashes_and_no_page(thread: Thread, history: History) -> None:
    await thread.run(thread.owned.apply, history.records)
    resync = resync_of(thread)
    assert await resync.run(source_of(history).serve) == history.position
    assert resync.pages_received == 0
    assert resync.bytes_received < 100
    await assert_identical(thread, history)


async def test_one_percent_of_differing_pages_sends_at_most_five_percent(thread: Thread, history: History) -> None:
    history.fill(4000)
    await thread.run(thread.owned.apply, history.records)
    history.commit("UPDATE filling SET body = randomblob(3000) WHERE id % 100 = 0")
    resync = resync_of(thread)
    await resync.run(source_of(history).serve)
    shard_bytes = thread.owned.page_count * PAGE_SIZE
    assert resync.bytes_received + resync.bytes_sent < 0.05 * shard_bytes
    assert resync.pages_received < 0.02 * thread.owned.page_count
    await assert_identical(thread, history)


async def test_what_is_still_in_the_wal_of_the_source_is_part_of_its_snapshot(
    thread: Thread, history: History
) -> None:
    history.checkpoint()
    history.fill(30)
    await resync_of(thread).run(source_of(history).serve)
    await assert_identical(thread, history)


async def test_a_shard_ahead_of_the_source_is_rewound(thread: Thread, history: History, tmp_path: Path) -> None:
    ahead = History(tmp_path / "ahead.db")
    for _ in range(5):
        ahead.fill(60)
    await thread.run(thread.owned.apply, ahead.records)
    ahead.close()
    assert await resync_of(thread).run(source_of(history).serve) == history.position < Position(1, 6)
    assert thread.owned.backlog.durable_lsn == history.position.lsn
    await assert_identical(thread, history)


async def test_the_snapshot_stays_as_it_was_while_the_source_goes_on_writing(
    thread: Thread, history: History
) -> None:
    history.fill(3 * RUN_PAGES)
    expected, position = pages_of(history.path), history.position
    source = source_of(history)

    async def serve_while_writing(requests: AsyncIterator[pb.ResyncRequest]) -> AsyncIterator[pb.ResyncResponse]:
        async for response in source.serve(requests):
            yield response
            history.commit("UPDATE filling SET body = randomblob(100) WHERE id % 10 = 0")

    assert await resync_of(thread).run(serve_while_writing) == position
    assert pages_of(thread.owned.path) == expected
    await thread.run(thread.owned.apply, history.records)
    await assert_identical(thread, history)


async def test_readers_see_the_old_state_until_the_end(thread: Thread, history: History) -> None:
    await thread.run(thread.owned.apply, history.records)
    before = pages_of(thread.owned.path)
    history.fill(3 * RUN_PAGES)
    source = source_of(history)
    seen = 0

    async def serve_and_look(requests: AsyncIterator[pb.ResyncRequest]) -> AsyncIterator[pb.ResyncResponse]:
        nonlocal seen
        async for response in source.serve(requests):
            yield response
            assert pages_of(thread.owned.path) == before
            seen += 1

    await resync_of(thread).run(serve_and_look)
    assert seen > 4
    await assert_identical(thread, history)


async def test_an_interruption_after_any_message_leaves_the_old_state(thread: Thread, history: History) -> None:
    await thread.run(thread.owned.apply, history.records[:1])
    before = pages_of(thread.owned.path)
    history.fill(3 * RUN_PAGES)
    source = source_of(history)
    for stop_after in range(5):

        async def serve_a_part(
            requests: AsyncIterator[pb.ResyncRequest], stop_after: int = stop_after
        ) -> AsyncIterator[pb.ResyncResponse]:
            count = 0
            async for response in source.serve(requests):
                if count == stop_after:
                    return
                yield response
                count += 1

        with pytest.raises(Unavailable, match="before all of it had come"):
            await resync_of(thread).run(serve_a_part)
        assert pages_of(thread.owned.path) == before
        assert thread.owned.applied == Position(1, 1)
    await thread.run(thread.owned.apply, history.records)
    await assert_identical(thread, history)


async def test_a_cancelled_resync_leaves_the_old_state(thread: Thread, history: History) -> None:
    await thread.run(thread.owned.apply, history.records)
    before = pages_of(thread.owned.path)
    history.fill(2 * RUN_PAGES)
    source = source_of(history)
    under_way = asyncio.Event()

    async def serve_and_hang(requests: AsyncIterator[pb.ResyncRequest]) -> AsyncIterator[pb.ResyncResponse]:
        async for response in source.serve(requests):
            yield response
            if response.WhichOneof("message") == "pages":
                under_way.set()
                await asyncio.Event().wait()

    task = asyncio.create_task(resync_of(thread).run(serve_and_hang))
    await asyncio.wait_for(under_way.wait(), 10)
    with pytest.raises(Unavailable, match="is being resynced"):
        await thread.run(thread.owned.apply, history.records)
    with pytest.raises(Unavailable, match="is being resynced"):
        await thread.run(thread.owned.checkpoint)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pages_of(thread.owned.path) == before
    await thread.run(thread.owned.apply, history.records)
    await assert_identical(thread, history)


async def test_a_source_that_falls_silent_is_given_up(thread: Thread) -> None:
    async def silent(_: AsyncIterator[pb.ResyncRequest]) -> AsyncIterator[pb.ResyncResponse]:
        await asyncio.Event().wait()
        yield end_message(0)

    with pytest.raises(Unavailable, match="sent nothing"):
        await resync_of(thread, message_timeout_seconds=0.05).run(silent)


async def test_a_receiver_that_falls_silent_is_given_up_and_its_snapshot_closed(history: History) -> None:
    async def silent() -> AsyncIterator[pb.ResyncRequest]:
        yield start_message()
        await asyncio.Event().wait()

    source = source_of(history, message_timeout_seconds=0.05)
    with pytest.raises(Unavailable, match="no message"):
        async for _ in source.serve(silent()):
            pass
    assert source.active == 0
    assert history.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0


async def test_the_end_waits_for_the_commit_of_what_was_sent(thread: Thread, history: History) -> None:
    asked = asyncio.Event()
    committed = asyncio.Event()
    lsns: list[int] = []

    async def wait_committed(lsn: int) -> None:
        lsns.append(lsn)
        asked.set()
        await committed.wait()

    source = source_of(history, wait_committed)
    task = asyncio.create_task(resync_of(thread).run(source.serve))
    await asyncio.wait_for(asked.wait(), 10)
    assert lsns == [history.position.lsn]
    assert thread.owned.applied is None
    # The snapshot is closed already: the wait keeps nothing from being checkpointed.
    assert history.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    committed.set()
    await task
    await assert_identical(thread, history)


async def never_committed(_: int) -> None:
    await asyncio.Event().wait()


async def test_what_is_not_committed_in_time_is_not_kept(thread: Thread, history: History) -> None:
    source = source_of(history, never_committed, commit_wait_seconds=0.05)
    with pytest.raises(Unavailable, match="was not committed in"):
        await resync_of(thread).run(source.serve)
    assert (source.sent_uncommitted, source.active) == (0, 0)
    assert thread.owned.applied is None


async def test_a_receiver_without_which_nothing_can_be_committed_does_not_wait_for_itself(
    thread: Thread, history: History
) -> None:
    asked: list[str] = []

    def quorum_needs(node: str) -> bool:
        asked.append(node)
        return True

    source = source_of(history, never_committed, commit_wait_seconds=0.05, quorum_needs=quorum_needs)
    resync = resync_of(thread)
    await resync.run(source.serve)
    assert source.sent_uncommitted == 1
    assert len(asked) == 1
    assert not resync.committed
    assert (thread.owned.applied, thread.owned.holds) == (None, history.position)
    await thread.run(thread.owned.install_staged)
    await assert_identical(thread, history)
