"""Both ends of a resync, and the messages that go between them."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import zstandard

from agent_core.database.build import PAGE_SIZE, open_for_reading
from agent_core.database.thread import DatabaseThread
from agent_core.rpc import replication_pb2 as pb
from primary.resync_source import ResyncSource
from replica.apply import ShardApplier
from replica.resync import Exchange, ReadersAway, ShardResync, nobody_reads
from tests.unit.shard_histories import CLUSTER, SHARD, History, pages_of

Thread = DatabaseThread[ShardApplier]


async def open_thread(path: Path) -> Thread:
    return await DatabaseThread.start(
        lambda: ShardApplier.open(path, cluster_id=CLUSTER, shard=SHARD), name="applying"
    )


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
    readers_away: ReadersAway = nobody_reads,
    message_timeout_seconds: float = 10,
    cluster_id: str = CLUSTER,
) -> ShardResync:
    return ShardResync(
        thread.owned,
        thread,
        cluster_id=cluster_id,
        node_id="standby-1",
        group=0,
        readers_away=readers_away,
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
