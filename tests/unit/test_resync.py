from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from agent_core.database.build import PAGE_SIZE, open_for_reading
from agent_core.database.pages import (
    LOCK_PAGE,
    MAX_PAGE_COUNT,
    PAGE_HASH_BYTES,
    RUN_PAGES,
    PageSnapshot,
    page_hashes,
)
from agent_core.database.thread import DatabaseThread
from agent_core.errors import HeadwaterError, InvalidRequest, Overloaded, ShardDamaged, Unavailable, WrongCluster
from agent_core.position import Position
from agent_core.rpc import replication_pb2 as pb
from primary.resync_source import MAX_CONCURRENT, MAX_HASHES_BYTES, ResyncSource, check_hashes, differing
from replica.apply import CheckpointOutcome, ShardApplier
from replica.resync import (
    HASHES_PER_MESSAGE,
    MAX_PAGES_PER_MESSAGE,
    Exchange,
    IncomingResync,
    ShardResync,
    decompress,
    discard_shard_files,
    requests_for,
)
from tests.unit.shard_histories import CLUSTER, SHARD, History, pages_of

Thread = DatabaseThread[ShardApplier]


@pytest.fixture
async def history(tmp_path: Path) -> AsyncIterator[History]:
    history = History(tmp_path / "primary.db")
    history.fill(40)
    yield history
    history.close()


async def open_thread(path: Path) -> Thread:
    return await DatabaseThread.start(
        lambda: ShardApplier.open(path, cluster_id=CLUSTER, shard=SHARD), name="applying"
    )


@pytest.fixture
async def thread(tmp_path: Path) -> AsyncIterator[Thread]:
    thread = await open_thread(tmp_path / "standby.db")
    yield thread
    await thread.close()


async def committed_at_once(_: int) -> None:
    pass


def source_of(
    history: History,
    wait_committed: Callable[[int], Awaitable[object]] = committed_at_once,
    commit_wait_seconds: float = 10,
    quorum_needs: Callable[[str], bool] = lambda _: False,
    message_timeout_seconds: float = 10,
) -> ResyncSource:
    return ResyncSource(
        cluster_id=CLUSTER,
        group=0,
        shard_paths={SHARD: history.path},
        wait_committed=wait_committed,
        commit_wait_seconds=commit_wait_seconds,
        quorum_needs=quorum_needs,
        message_timeout_seconds=message_timeout_seconds,
    )


def resync_of(
    thread: Thread,
    release_readers: Callable[[], Awaitable[None]] | None = None,
    message_timeout_seconds: float = 10,
) -> ShardResync:
    async def nothing() -> None:
        pass

    return ShardResync(
        thread.owned,
        thread,
        cluster_id=CLUSTER,
        node_id="standby-1",
        group=0,
        release_readers=release_readers or nothing,
        message_timeout_seconds=message_timeout_seconds,
    )


def start_message(
    page_count: int = 0, cluster_id: str = CLUSTER, shard: int = SHARD, group: int = 0
) -> pb.ResyncRequest:
    return pb.ResyncRequest(
        start=pb.ResyncStart(cluster_id=cluster_id, node_id="n", group=group, shard=shard, page_count=page_count)
    )


def hashes_message(first: int, hashes: bytes) -> pb.ResyncRequest:
    return pb.ResyncRequest(hashes=pb.PageHashes(first_page=first, hashes=hashes))


HASHES_END = pb.ResyncRequest(hashes_end=pb.ResyncHashesEnd())


def snapshot_message(page_count: int) -> pb.ResyncResponse:
    return pb.ResyncResponse(
        snapshot=pb.ResyncSnapshot(page_count=page_count, position=pb.Position(epoch=1, lsn=1))
    )


def pages_message(numbers: list[int], pages: bytes | None = None) -> pb.ResyncResponse:
    data = zstandard.compress(bytes(len(numbers) * PAGE_SIZE) if pages is None else pages)
    return pb.ResyncResponse(
        pages=pb.ResyncPages(page_numbers=struct.pack(f">{len(numbers)}I", *numbers), pages=data)
    )


def end_message(pages_sent: int) -> pb.ResyncResponse:
    return pb.ResyncResponse(end=pb.ResyncEnd(pages_sent=pages_sent))


async def each(*messages: pb.ResyncRequest) -> AsyncIterator[pb.ResyncRequest]:
    for message in messages:
        yield message


def answering(*messages: pb.ResyncResponse) -> Exchange:
    """A source that says this, whatever it is asked."""

    async def exchange(_: AsyncIterator[pb.ResyncRequest]) -> AsyncIterator[pb.ResyncResponse]:
        for message in messages:
            yield message

    return exchange


async def answers(source: ResyncSource, *requests: pb.ResyncRequest) -> list[pb.ResyncResponse]:
    return [response async for response in source.serve(each(*requests))]


async def assert_identical(thread: Thread, history: History) -> None:
    assert pages_of(thread.owned.path) == pages_of(history.path)
    reader = open_for_reading(thread.owned.path)
    assert reader.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    reader.close()
    # Applying goes on from there.
    assert await thread.run(thread.owned.apply, [history.fill(2)]) == 1
    assert pages_of(thread.owned.path) == pages_of(history.path)


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
    assert thread.owned.checkpointed_lsn == history.position.lsn
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
    resync = resync_of(thread)
    task = asyncio.create_task(resync.run(source.serve))
    await asyncio.wait_for(asked.wait(), 10)
    assert lsns == [history.position.lsn]
    assert thread.owned.applied is None
    # The snapshot is closed already: the wait keeps nothing from being checkpointed.
    assert history.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    committed.set()
    await task
    assert resync.committed
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
    await assert_identical(thread, history)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "garbage": lambda data: os.urandom(len(data)),
    "another magic": lambda data: b"X" + data[1:],
    "other pages": lambda data: data[:16] + b"\x08\x00" + data[18:],
    "cut short": lambda data: data[:5000],
    "too short": lambda data: data[:50],
    "nothing": lambda _: b"",
    "a page overwritten": lambda data: data[: 9 * PAGE_SIZE] + os.urandom(PAGE_SIZE) + data[10 * PAGE_SIZE :],
    "the replication row overwritten": lambda data: (
        data[:PAGE_SIZE] + os.urandom(PAGE_SIZE) + data[2 * PAGE_SIZE :]
    ),
    "a smaller page count": lambda data: data[:28] + b"\0\0\0\x05" + data[32:],
    "a larger page count": lambda data: data[:28] + b"\0\xff\0\0" + data[32:],
    "pages behind the end": lambda data: data + os.urandom(3 * PAGE_SIZE),
    "another encoding": lambda data: data[:56] + b"\0\0\0\x02" + data[60:],
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
async def test_a_damaged_file_is_repaired(
    tmp_path: Path, history: History, damage: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "standby.db"
    thread = await open_thread(path)
    await thread.run(thread.owned.apply, history.records)
    await thread.close()
    path.write_bytes(damage(path.read_bytes()))
    history.fill(10)

    thread = await open_thread(path)
    resync = resync_of(thread)
    assert await resync.run(source_of(history).serve) == history.position
    assert thread.owned.damage is None
    await assert_identical(thread, history)
    assert await thread.run(thread.owned.checkpoint) is CheckpointOutcome.COMPLETED
    await assert_identical(thread, history)
    await thread.close()


async def test_a_flipped_bit_costs_one_page(tmp_path: Path, history: History) -> None:
    path = tmp_path / "standby.db"
    thread = await open_thread(path)
    await thread.run(thread.owned.apply, history.records)
    await thread.close()
    data = bytearray(path.read_bytes())
    data[20 * PAGE_SIZE + 1234] ^= 4
    path.write_bytes(data)
    thread = await open_thread(path)
    resync = resync_of(thread)
    await resync.run(source_of(history).serve)
    assert (resync.pages_received, resync.started_anew) == (1, False)
    await assert_identical(thread, history)
    await thread.close()


async def test_a_file_that_becomes_unreadable_while_it_is_open_starts_anew(
    thread: Thread, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    await thread.run(thread.owned.apply, history.records)
    own_path = thread.owned.path
    open_snapshot = PageSnapshot.open

    def open_or_fail(path: Path) -> PageSnapshot:
        if path == own_path:
            raise ShardDamaged("disk I/O error")
        return open_snapshot(path)

    monkeypatch.setattr(PageSnapshot, "open", open_or_fail)
    resync = resync_of(thread)
    await resync.run(source_of(history).serve)
    monkeypatch.undo()
    assert resync.started_anew
    await assert_identical(thread, history)


async def test_an_unreadable_file_is_kept_until_a_source_answers(tmp_path: Path) -> None:
    path = tmp_path / "standby.db"
    path.write_bytes(garbage := os.urandom(3 * PAGE_SIZE))
    thread = await open_thread(path)
    with pytest.raises(Unavailable):
        await resync_of(thread).run(answering())
    assert path.read_bytes() == garbage
    await thread.close()


async def test_a_file_is_replaced_only_when_no_connection_is_open(tmp_path: Path, history: History) -> None:
    path = tmp_path / "standby.db"
    path.write_bytes(os.urandom(3 * PAGE_SIZE))
    thread = await open_thread(path)
    with path.open("rb") as reader:
        with pytest.raises(Unavailable, match=r"standby\.db cannot be replaced while"):
            await resync_of(thread).run(source_of(history).serve)

        async def release_readers() -> None:
            reader.close()

        await resync_of(thread, release_readers).run(source_of(history).serve)
    await assert_identical(thread, history)
    await thread.close()


def test_discarding_takes_the_wal_along(tmp_path: Path) -> None:
    path = tmp_path / "shard.db"
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).write_bytes(b"x")
    discard_shard_files(path)
    discard_shard_files(path)
    assert list(tmp_path.iterdir()) == []


async def test_pages_that_do_not_lead_to_the_announced_position_are_rolled_back(
    thread: Thread, history: History
) -> None:
    await thread.run(thread.owned.apply, history.records)
    before = pages_of(thread.owned.path)
    history.fill(60)
    source = source_of(history)

    async def serve_with_another_position(
        requests: AsyncIterator[pb.ResyncRequest],
    ) -> AsyncIterator[pb.ResyncResponse]:
        async for response in source.serve(requests):
            if response.WhichOneof("message") == "snapshot":
                response.snapshot.position.lsn += 1
            yield response

    with pytest.raises(ShardDamaged, match="announced"):
        await resync_of(thread).run(serve_with_another_position)
    assert pages_of(thread.owned.path) == before
    assert thread.owned.applied == Position(1, 2)
    await resync_of(thread).run(source.serve)
    await assert_identical(thread, history)


async def test_the_shard_of_another_number_is_rolled_back(thread: Thread, history: History) -> None:
    history.commit("UPDATE replication SET shard = 9")
    with pytest.raises(ShardDamaged, match="announced"):
        await resync_of(thread).run(source_of(history).serve)
    assert thread.owned.applied is None


FOUR_NEW_PAGES = (snapshot_message(4), pages_message([1, 2, 3, 4]))

HOSTILE_ANSWERS = {
    "no snapshot": (pages_message([1]),),
    "an end first": (end_message(0),),
    "two snapshots": (snapshot_message(4), snapshot_message(4)),
    "an empty message": (snapshot_message(4), pb.ResyncResponse()),
    "no pages at all": (snapshot_message(0),),
    "too many pages": (snapshot_message(MAX_PAGE_COUNT + 1),),
    "page 0": (snapshot_message(4), pages_message([0, 1])),
    "a page past the end": (snapshot_message(4), pages_message([4, 5])),
    "the lock page": (snapshot_message(LOCK_PAGE + 1), pages_message([LOCK_PAGE])),
    "a page twice": (snapshot_message(4), pages_message([2, 2])),
    "a page again": (snapshot_message(4), pages_message([1, 2]), pages_message([2, 3])),
    "descending": (snapshot_message(4), pages_message([3, 2])),
    "no numbers": (snapshot_message(4), pages_message([])),
    "half a number": (snapshot_message(4), pb.ResyncResponse(pages=pb.ResyncPages(page_numbers=b"\0\0\1"))),
    "too many in one message": (
        snapshot_message(MAX_PAGE_COUNT),
        pages_message(list(range(1, MAX_PAGES_PER_MESSAGE + 2))),
    ),
    "fewer images than numbers": (snapshot_message(4), pages_message([1, 2], bytes(PAGE_SIZE))),
    "more images than numbers": (snapshot_message(4), pages_message([1], bytes(2 * PAGE_SIZE))),
    "not compressed": (
        snapshot_message(4),
        pb.ResyncResponse(pages=pb.ResyncPages(page_numbers=b"\0\0\0\1", pages=bytes(PAGE_SIZE))),
    ),
    "a bomb": (snapshot_message(4), pages_message([1], bytes(64 << 20))),
    "another number of pages": (*FOUR_NEW_PAGES, end_message(3)),
    "new pages missing": (snapshot_message(5), pages_message([1, 2, 3, 4]), end_message(4)),
    "something behind the end": (*FOUR_NEW_PAGES, end_message(4), end_message(4)),
    "images that are no shard": (*FOUR_NEW_PAGES, end_message(4)),
}


@pytest.mark.parametrize("messages", HOSTILE_ANSWERS.values(), ids=HOSTILE_ANSWERS.keys())
async def test_a_hostile_source_is_refused_and_nothing_changes(
    thread: Thread, history: History, messages: tuple[pb.ResyncResponse, ...]
) -> None:
    await thread.run(thread.owned.apply, history.records[:1])
    page_count = thread.owned.page_count
    before = pages_of(thread.owned.path)
    with pytest.raises(ShardDamaged):
        await resync_of(thread).run(answering(*messages))
    assert pages_of(thread.owned.path) == before
    assert (thread.owned.page_count, thread.owned.applied) == (page_count, Position(1, 1))


def test_what_would_decompress_to_more_is_not_decompressed() -> None:
    bomb = zstandard.compress(bytes(1 << 20))
    with pytest.raises(ShardDamaged, match="announce 1048576 bytes"):
        decompress(bomb, PAGE_SIZE)
    without_size = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(PAGE_SIZE))
    with pytest.raises(ShardDamaged, match="announce -1 bytes"):
        decompress(without_size, PAGE_SIZE)
    with pytest.raises(ShardDamaged, match="cannot be decompressed"):
        decompress(zstandard.compress(bytes(PAGE_SIZE)) + b"more", PAGE_SIZE)
    assert decompress(zstandard.compress(bytes(PAGE_SIZE)), PAGE_SIZE) == bytes(PAGE_SIZE)


HOSTILE_REQUESTS: dict[str, tuple[type[HeadwaterError], tuple[pb.ResyncRequest, ...]]] = {
    "no start": (InvalidRequest, (HASHES_END,)),
    "an empty message": (InvalidRequest, (pb.ResyncRequest(),)),
    "another cluster": (WrongCluster, (start_message(cluster_id="another"),)),
    "another shard": (InvalidRequest, (start_message(shard=SHARD + 1),)),
    "another group": (InvalidRequest, (start_message(group=1),)),
    "too many pages": (InvalidRequest, (start_message(MAX_PAGE_COUNT + 1),)),
    "a second start": (InvalidRequest, (start_message(1), start_message(1))),
    "hashes of page 0": (InvalidRequest, (start_message(1), hashes_message(0, bytes(16)))),
    "a gap": (InvalidRequest, (start_message(9), hashes_message(1, bytes(16)), hashes_message(3, bytes(16)))),
    "no hashes": (InvalidRequest, (start_message(1), hashes_message(1, b""))),
    "half a hash": (InvalidRequest, (start_message(1), hashes_message(1, bytes(8)))),
    "too many hashes": (
        InvalidRequest,
        (start_message(MAX_PAGE_COUNT), hashes_message(1, bytes(MAX_HASHES_BYTES + 16))),
    ),
    "more than announced": (InvalidRequest, (start_message(1), hashes_message(1, bytes(32)))),
    "fewer than announced": (InvalidRequest, (start_message(2), hashes_message(1, bytes(16)), HASHES_END)),
    "an early end": (Unavailable, (start_message(2),)),
}


@pytest.mark.parametrize(("error", "requests"), HOSTILE_REQUESTS.values(), ids=HOSTILE_REQUESTS.keys())
async def test_a_hostile_receiver_is_refused_and_leaves_no_snapshot(
    history: History, error: type[HeadwaterError], requests: tuple[pb.ResyncRequest, ...]
) -> None:
    source = source_of(history)
    with pytest.raises(error):
        await answers(source, *requests)
    assert (source.active, source.served) == (0, 0)
    assert history.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0


async def test_the_source_serves_a_bounded_number_of_receivers_at_once(history: History) -> None:
    source = source_of(history)
    calls = [source.serve(each(start_message(), HASHES_END)) for _ in range(MAX_CONCURRENT)]
    for call in calls:
        await anext(call)
    with pytest.raises(Overloaded, match=f"allowed are {MAX_CONCURRENT}"):
        await answers(source, start_message(), HASHES_END)
    for call in calls:
        assert [response.WhichOneof("message") async for response in call][-1] == "end"
    assert source.active == 0


async def test_a_receiver_with_a_larger_file_is_told_only_the_pages_that_remain(history: History) -> None:
    page_count = history.records[-1].page_count
    responses = await answers(
        source_of(history),
        start_message(page_count + 3),
        hashes_message(1, bytes((page_count + 3) * PAGE_HASH_BYTES)),
        HASHES_END,
    )
    assert responses[-1].end.pages_sent == page_count
    incoming = IncomingResync(page_count + 3)
    for response in responses:
        incoming.accept(response)
    assert incoming.ended


async def test_no_message_carries_more_than_a_mebibyte_of_pages(history: History) -> None:
    history.fill(2 * RUN_PAGES + 50)
    responses = await answers(source_of(history), start_message(), HASHES_END)
    sizes = [len(response.pages.page_numbers) // 4 for response in responses if response.HasField("pages")]
    assert max(sizes) == RUN_PAGES
    assert sum(sizes) == history.records[-1].page_count


@given(
    ours=st.lists(st.integers(0, 3), min_size=1, max_size=60),
    theirs=st.lists(st.one_of(st.none(), st.integers(0, 3)), max_size=60),
    first=st.integers(1, 1000),
)
def test_a_page_differs_if_and_only_if_its_hash_does(ours: list[int], theirs: list[int | None], first: int) -> None:
    theirs = (theirs + [None] * len(ours))[: len(ours)]
    images = b"".join([bytes([value]) * PAGE_SIZE for value in ours])
    hashes = [
        b"" if value is None else page_hashes(bytes([value]) * PAGE_SIZE, first + index)
        for index, value in enumerate(theirs)
    ]
    assert differing(first, images, hashes) == [
        first + index for index, value in enumerate(ours) if value != theirs[index]
    ]


def test_the_lock_page_never_differs() -> None:
    assert differing(LOCK_PAGE - 1, bytes(3 * PAGE_SIZE), [b""] * 3) == [LOCK_PAGE - 1, LOCK_PAGE + 1]
    incoming = IncomingResync(LOCK_PAGE - 1)
    incoming.accept(snapshot_message(LOCK_PAGE + 1))
    incoming.accept(pages_message([LOCK_PAGE + 1]))
    incoming.accept(end_message(1))
    assert incoming.ended


@given(st.integers(0, 3 * HASHES_PER_MESSAGE))
def test_the_requests_of_a_receiver_carry_each_hash_once_in_bounded_messages(page_count: int) -> None:
    hashes = b"".join([number.to_bytes(PAGE_HASH_BYTES, "big") for number in range(page_count)])
    start, *messages, end = requests_for(hashes, cluster_id=CLUSTER, node_id="n", group=0, shard=SHARD)
    assert start.start.page_count == page_count
    assert end.WhichOneof("message") == "hashes_end"
    received: list[bytes] = []
    for message in messages:
        assert message.ByteSize() <= MAX_HASHES_BYTES
        received += check_hashes(message, len(received), page_count)
    assert b"".join(received) == hashes
