"""A resync between a real grpc.aio server and client on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from agent_core.database.build import PAGE_SIZE
from agent_core.errors import HeadwaterError, Unavailable, WrongCluster
from agent_core.rpc import replication_pb2 as pb
from agent_core.rpc.replication_pb2_grpc import (
    ReplicationServicer,
    ReplicationStub,
    add_ReplicationServicer_to_server,
)
from agent_core.rpc_errors import abort
from agent_core.transport import NODE_CHANNEL_OPTIONS, close_channel, server_options, stop_server
from primary.resync_source import ResyncSource
from tests.unit.resync.harness import Thread, open_thread, resync_of, source_of
from tests.unit.shard_histories import CLUSTER, SHARD, History, pages_of

Context = grpc.aio.ServicerContext[Any, Any]


class OnlyResync(ReplicationServicer):
    """The one method of the service that these tests need."""

    def __init__(self, source: ResyncSource) -> None:
        self.source = source
        self.hang_after: int | None = None
        self.hangs = asyncio.Event()
        self.ended = asyncio.Event()

    async def Resync(  # type: ignore[override] # noqa: N802 - gRPC's name; the asynchronous form of it
        self, request_iterator: AsyncIterator[pb.ResyncRequest], context: Context
    ) -> None:
        count = 0

        async def write(response: pb.ResyncResponse) -> None:
            nonlocal count
            if count == self.hang_after:
                self.hangs.set()
                await asyncio.Event().wait()
            await context.write(response)
            count += 1

        try:
            await self.source.answer(request_iterator, write)
        except HeadwaterError as error:
            await abort(context, error)
        finally:
            self.ended.set()

    def Stream(self, request_iterator: object, context: object) -> Any:  # noqa: N802 - as above
        raise NotImplementedError

    def Heartbeats(self, request_iterator: object, context: object) -> Any:  # noqa: N802 - as above
        raise NotImplementedError

    def Seal(self, request: object, context: object) -> Any:  # noqa: N802 - as above
        raise NotImplementedError

    def Prepare(self, request: object, context: object) -> Any:  # noqa: N802 - as above
        raise NotImplementedError


@pytest.fixture
async def history(tmp_path: Path) -> AsyncIterator[History]:
    history = History(tmp_path / "primary.db")
    history.fill(3000)
    yield history
    history.close()


@pytest.fixture
async def thread(tmp_path: Path) -> AsyncIterator[Thread]:
    thread = await open_thread(tmp_path / "standby.db")
    yield thread
    await thread.close()


@pytest.fixture
async def servicer(history: History) -> OnlyResync:
    return OnlyResync(source_of(history))


@pytest.fixture
async def server(servicer: OnlyResync) -> AsyncIterator[tuple[grpc.aio.Server, int]]:
    server = grpc.aio.server(options=server_options())
    add_ReplicationServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield server, port
    await stop_server(server)


@pytest.fixture
async def channel(server: tuple[grpc.aio.Server, int]) -> AsyncIterator[grpc.aio.Channel]:
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{server[1]}", options=NODE_CHANNEL_OPTIONS)
    yield channel
    await close_channel(channel)


async def test_a_shard_is_brought_over_and_later_only_its_differing_pages(
    thread: Thread, history: History, servicer: OnlyResync, channel: grpc.aio.Channel
) -> None:
    stub = ReplicationStub(channel)
    assert await resync_of(thread).run(stub.Resync) == history.position
    assert pages_of(thread.owned.path) == pages_of(history.path)
    history.commit("UPDATE filling SET body = randomblob(3000) WHERE id % 100 = 0")
    again = resync_of(thread)
    assert await again.run(stub.Resync) == history.position
    assert pages_of(thread.owned.path) == pages_of(history.path)
    assert again.bytes_received + again.bytes_sent < 0.05 * thread.owned.page_count * PAGE_SIZE
    assert servicer.source.served == 2


async def test_a_receiver_that_the_quorum_needs_keeps_the_pages_beside_its_shard_until_they_are_committed(
    thread: Thread, history: History, servicer: OnlyResync, channel: grpc.aio.Channel
) -> None:
    async def never_committed(_: int) -> None:
        await asyncio.Event().wait()

    await thread.run(thread.owned.apply, history.records[:1])
    before = pages_of(thread.owned.path)
    servicer.source = source_of(history, never_committed, 0.05, quorum_needs=lambda node: node == "standby-1")
    resync = resync_of(thread)
    assert await resync.run(ReplicationStub(channel).Resync) == history.position
    assert not resync.committed
    assert servicer.source.sent_uncommitted == 1
    assert pages_of(thread.owned.path) == before
    await thread.run(thread.owned.install_staged)
    assert pages_of(thread.owned.path) == pages_of(history.path)


async def test_the_error_of_the_source_arrives_as_itself(thread: Thread, channel: grpc.aio.Channel) -> None:
    with pytest.raises(WrongCluster, match="this is cluster"):
        await resync_of(thread, cluster_id="another").run(ReplicationStub(channel).Resync)


async def test_a_source_that_goes_away_leaves_the_old_state(
    thread: Thread,
    history: History,
    servicer: OnlyResync,
    server: tuple[grpc.aio.Server, int],
    channel: grpc.aio.Channel,
) -> None:
    await thread.run(thread.owned.apply, history.records[:1])
    before = pages_of(thread.owned.path)
    servicer.hang_after = 3
    task = asyncio.create_task(resync_of(thread).run(ReplicationStub(channel).Resync))
    await asyncio.wait_for(servicer.hangs.wait(), 10)
    await stop_server(server[0])
    with pytest.raises(Unavailable):
        await task
    assert pages_of(thread.owned.path) == before


async def test_a_receiver_that_goes_away_frees_the_snapshot_of_the_source(
    thread: Thread, history: History, servicer: OnlyResync, channel: grpc.aio.Channel
) -> None:
    servicer.hang_after = 3
    task = asyncio.create_task(resync_of(thread).run(ReplicationStub(channel).Resync))
    await asyncio.wait_for(servicer.hangs.wait(), 10)
    assert servicer.source.active == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(servicer.ended.wait(), 10)
    assert servicer.source.active == 0
    assert history.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    assert thread.owned.applied is None


async def test_a_receiver_that_takes_nothing_more_does_not_hold_the_snapshot(
    history: History, servicer: OnlyResync, channel: grpc.aio.Channel
) -> None:
    history.commit("CREATE TABLE noise (body BLOB)")
    for _ in range(20):  # far more than gRPC takes ahead of its reader
        history.commit("INSERT INTO noise VALUES (randomblob(1000000))")
    servicer.source._message_timeout_seconds = 0.5
    call: Any = ReplicationStub(channel).Resync()
    await call.write(pb.ResyncRequest(start=pb.ResyncStart(cluster_id=CLUSTER, node_id="standby-1", shard=SHARD)))
    await call.write(pb.ResyncRequest(hashes_end=pb.ResyncHashesEnd()))
    assert (await call.read()).WhichOneof("message") == "snapshot"
    async with asyncio.timeout(10):
        while servicer.source.active:
            await asyncio.sleep(0.01)
    assert servicer.source.served == 0
    assert history.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    call.cancel()
