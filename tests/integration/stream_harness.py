"""A primary's stream, a standby that follows it, and someone in between, all over real gRPC on loopback."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from agent_core.errors import Unavailable
from agent_core.log.log import ReplicationLog
from agent_core.log.record import Record, RecordCodec, RecordKind
from agent_core.position import Position
from agent_core.quorum import CommitTracker
from agent_core.routing import ShardLayout
from agent_core.rpc import replication_pb2 as pb
from agent_core.rpc.replication_pb2_grpc import (
    ReplicationServicer,
    ReplicationStub,
    add_ReplicationServicer_to_server,
)
from agent_core.transport import NODE_CHANNEL_OPTIONS, close_channel, server_options, stop_server
from primary.greeting import Identity
from primary.heartbeats import Heartbeats
from primary.streaming import StandbyStreams, StreamSettings
from replica.following import Follower
from replica.incoming import FollowerSettings
from replica.listening import Listening
from replica.promises import PromiseFile
from replica.receiving import RefusalReason, Reset
from replica.voter import Voter

if TYPE_CHECKING:
    # The asynchronous stub exists for type checkers only.
    from agent_core.rpc.replication_pb2_grpc import ReplicationAsyncStub

CLUSTER = "cluster-of-tests"
LAYOUT = ShardLayout(shard_count=4, shard_group_count=1)
VOTERS = frozenset({"primary", "standby", "third"})
SETTINGS = FollowerSettings(silence_seconds=2.0, longest_delay_seconds=0.05)


class StreamOnly(ReplicationServicer):
    """The one call of the service that these tests make."""

    def Heartbeats(self, request_iterator: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        raise NotImplementedError

    def Resync(self, request_iterator: Any, context: Any) -> Any:  # noqa: N802 - as above
        raise NotImplementedError

    def Seal(self, request: Any, context: Any) -> Any:  # noqa: N802 - as above
        raise NotImplementedError

    def Prepare(self, request: Any, context: Any) -> Any:  # noqa: N802 - as above
        raise NotImplementedError


class PrimarySide(StreamOnly):
    """A log that is streamed: the writer's part of a primary is played by the test."""

    def __init__(
        self,
        directory: Path,
        *,
        epoch: int = 1,
        settings: StreamSettings | None = None,
        holds: bytes = b"",
        layout: ShardLayout = LAYOUT,
        segment_bytes: int = 1 << 20,
        heartbeats: Heartbeats | None = None,
        on_heard: Callable[[str, float], None] = lambda _node, _at: None,
    ) -> None:
        self.log = ReplicationLog.open(directory, cluster_id=CLUSTER, group=0, segment_bytes=segment_bytes)
        self.log.append(holds)
        self.epoch = epoch
        self.tracker = CommitTracker("primary", VOTERS, opening_lsn=self.log.last.lsn + 1)
        self.fenced_by: list[int] = []
        self.acknowledged: list[int] = []
        self.codec = RecordCodec()
        self.streams = StandbyStreams(
            Identity(CLUSTER, layout, 0, "primary", epoch),
            self.log,
            voters=VOTERS,
            committed=lambda: self.tracker.committed_lsn,
            on_durable=self._durable,
            on_hello=self.tracker.goes_on_from,
            on_heard=on_heard,
            on_fenced=self.fenced_by.append,
            heartbeats=heartbeats,
            settings=settings,
        )
        self.append([b""], kind=RecordKind.EPOCH)

    def append(self, transactions: Iterable[bytes], *, kind: RecordKind = RecordKind.TRANSACTION) -> int:
        """Log transactions as one block, durably; the last lsn."""
        lsn = self.log.last.lsn
        block = []
        for frames in transactions:
            lsn += 1
            shard = 0 if kind is RecordKind.EPOCH else lsn % 4
            block.append(self.codec.encode(Record(kind, 0, shard, Position(self.epoch, lsn), 1, 0, frames)))
        self.log.append(b"".join(block), verify=False)
        self.streams.doorbell.ring()
        self._durable("primary", self.log.sync())
        return lsn

    def _durable(self, node: str, lsn: int) -> None:
        if node == "standby":
            self.acknowledged.append(lsn)
        if self.tracker.durable(node, lsn):
            self.streams.doorbell.ring()

    async def Stream(  # type: ignore[override]  # noqa: N802 - gRPC's name; the asynchronous form of it
        self, request_iterator: AsyncIterator[pb.FromStandby], context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        first = await anext(aiter(request_iterator))
        await self.streams.serve(first.hello, request_iterator, context)

    async def close(self) -> None:
        await self.streams.close(Unavailable("the test ends"))
        self.log.close()


Tamper = Callable[[pb.FromPrimary], list[pb.FromPrimary]]


class Between(StreamOnly):
    """Passes streams on, and does to the primary's messages what a test tells it to."""

    def __init__(self, stub: ReplicationAsyncStub) -> None:
        self._stub = stub
        self.tamper: Tamper = lambda message: [message]
        self.hold = asyncio.Event()
        self.hold.set()

    async def Stream(  # type: ignore[override]  # noqa: N802 - as above
        self, request_iterator: AsyncIterator[pb.FromStandby], context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        call = self._stub.Stream()

        async def upwards() -> None:
            with suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
                async for request in request_iterator:
                    await self.hold.wait()
                    await call.write(request)

        task = asyncio.create_task(upwards())
        try:
            async for message in call:
                for passed_on in self.tamper(message):
                    await context.write(passed_on)
        except grpc.aio.AioRpcError as error:
            await context.abort(error.code(), error.details() or "", error.trailing_metadata())
        except ConnectionAbortedError:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
        finally:
            call.cancel()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


class Shards:
    """A standby's shards that apply by taking note."""

    def __init__(self, log: ReplicationLog) -> None:
        self._log = log
        self._known = 0
        self._listeners: list[Callable[[Position], None]] = []
        self.applied = log.base
        self.resets: list[Reset] = []
        self.unfit: dict[int, str] = {}
        self.resyncs: list[list[int]] = []
        self.bases: list[Position] = []
        self.may_acknowledge = True

    @property
    def committed_lsn(self) -> int:
        return min(self._known, self._log.last.lsn)

    def on_applied(self, listener: Callable[[Position], None]) -> None:
        self._listeners.append(listener)

    def begin_stream(self, epoch: int, *, resync_required: bool = False) -> None:
        """Nothing depends on the epoch here."""

    def commit(self, lsn: int) -> None:
        self._known = max(self._known, lsn)
        if self.applied.lsn < self.committed_lsn:
            self.applied = Position(self._log.last.epoch, self.committed_lsn)
            for listener in self._listeners:
                listener(self.applied)

    def expect_resets(self, resets: Iterable[Reset]) -> None:
        self.resets += resets

    def acknowledgeable(self, durable_lsn: int) -> int:
        return durable_lsn if self.may_acknowledge else 0

    def unfit_shards(self) -> Mapping[int, str]:
        return self.unfit

    async def resync(self, shards: Iterable[int]) -> None:
        self.resyncs.append(list(shards))
        self.unfit = {}

    def on_resync_ordered(self, listener: Callable[[], None]) -> None:
        """None is ordered."""

    async def begin_anew(self, base: Position) -> None:
        self.bases.append(base)
        self._log.reset(base)
        self._known = max(self._known, base.lsn)
        self.applied = base

    async def cut_back(self, to: Position) -> None:
        self._log.cut_back(to)


class StandbySide:
    """A follower with a log, promises, and shards that only take note."""

    def __init__(
        self,
        directory: Path,
        stub: ReplicationAsyncStub,
        *,
        node_id: str = "standby",
        layout: ShardLayout = LAYOUT,
        listening: Listening | None = None,
    ) -> None:
        self.log = ReplicationLog.open(directory / "log", cluster_id=CLUSTER, group=0, segment_bytes=1 << 20)
        self.primary = stub
        self.promises = PromiseFile(directory / "promise", cluster_id=CLUSTER, group=0)
        self.voter = Voter(self.promises, node_id=node_id, cluster_id=CLUSTER, group=0, last=lambda: self.log.last)
        self.shards = Shards(self.log)
        self.follower = Follower(
            node_id=node_id,
            cluster_id=CLUSTER,
            layout=layout,
            group=0,
            replication_log=self.log,
            voter=self.voter,
            shards=self.shards,
            presume=lambda _misled: "primary",
            connect=lambda _node: self.primary,
            listening=listening,
            settings=SETTINGS,
            chance=random.Random(1),
        )
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.task = asyncio.create_task(self.follower.run())

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
            self.task = None

    async def close(self) -> None:
        await self.stop()
        self.log.close()

    @property
    def refusals(self) -> dict[RefusalReason, int]:
        return {reason: count for reason, count in self.follower.receiver.refusals.items() if count}


class Wire:
    """Servers and channels of one test."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack

    async def serve(self, servicer: ReplicationServicer) -> ReplicationAsyncStub:
        """Serve on a free port of loopback; a stub for it."""
        server = grpc.aio.server(options=server_options())
        add_ReplicationServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=NODE_CHANNEL_OPTIONS)
        self._stack.push_async_callback(stop_server, server)
        self._stack.push_async_callback(close_channel, channel)
        return ReplicationStub(channel)

    def close_with(self, close: Callable[[], Awaitable[None]]) -> None:
        """Call `close` when the test ends."""
        self._stack.push_async_callback(close)

    async def primary(self, directory: Path, **options: Any) -> tuple[PrimarySide, ReplicationAsyncStub]:
        primary = PrimarySide(directory, **options)
        stub = await self.serve(primary)
        self._stack.push_async_callback(primary.close)
        return primary, stub

    async def between(self, stub: ReplicationAsyncStub) -> tuple[Between, ReplicationAsyncStub]:
        between = Between(stub)
        return between, await self.serve(between)

    def standby(
        self, directory: Path, stub: ReplicationAsyncStub, *, start: bool = True, **options: Any
    ) -> StandbySide:
        standby = StandbySide(directory, stub, **options)
        self._stack.push_async_callback(standby.close)
        if start:
            standby.start()
        return standby


def same(primary: PrimarySide, standby: StandbySide) -> bool:
    """Whether both logs hold the same, durably."""
    return standby.log.last == primary.log.last and standby.log.durable_lsn == primary.log.last.lsn


def content(log: ReplicationLog) -> bytes:
    block = log.read(log.base.lsn, 1 << 30)
    assert block is not None
    return block.data
