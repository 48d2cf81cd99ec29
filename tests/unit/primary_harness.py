"""One group's primary without a network: real shards, real log, a single voter unless told otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agent_core.cluster import NodeAddress
from agent_core.database.thread import DatabaseThread
from agent_core.errors import HeadwaterError
from agent_core.log.log import ReplicationLog
from agent_core.position import Position
from agent_core.quorum import Acknowledgement, CommitTracker
from agent_core.routing import ShardLayout
from agent_core.rpc.session_pb2 import Session
from primary.electing.lease import Lease
from primary.group_database import GroupDatabase
from primary.loader import SessionLoader
from primary.mutation import NewEntry
from primary.registry import SessionRegistry
from primary.residency import ResidencySettings
from primary.unlogged import log_unlogged
from primary.writer import GroupWriter, WriterSettings


@dataclass
class Outcome:
    """What a caller heard."""

    seq: int = 0
    position: Position | None = None
    duplicate: bool = False
    error: HeadwaterError | None = None


class Answers:
    """Collects outcomes by request id."""

    def __init__(self) -> None:
        self.outcomes: dict[int, Outcome] = {}
        self.changed = asyncio.Event()

    def appended(self, request_id: int, group: int, seq: int, position: Position, *, duplicate: bool) -> None:
        assert request_id not in self.outcomes, "each request is answered once"
        self.outcomes[request_id] = Outcome(seq, position, duplicate)
        self.changed.set()

    def failed(self, request_id: int, error: HeadwaterError) -> None:
        assert request_id not in self.outcomes, "each request is answered once"
        self.outcomes[request_id] = Outcome(error=error)
        self.changed.set()

    async def wait(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.outcomes) < count:
                self.changed.clear()
                await self.changed.wait()


@dataclass
class Primary:
    registry: SessionRegistry
    writer: GroupWriter
    database: GroupDatabase
    log: ReplicationLog
    visible: list[Position]
    answers: Answers = field(default_factory=Answers)
    requests: int = 0

    async def create(self, session_id: str) -> Session:
        session, _, _ = await self.registry.create(Session(session_id=session_id), None)
        return session

    def submit(self, session_id: str, text: str, *, key: str = "", mode: Acknowledgement | None = None) -> int:
        self.requests += 1
        payload = b'{"text":"%s"}' % text.encode()
        self.registry.append(NewEntry(session_id, "message", payload, 0, key, mode), self.answers, self.requests)
        return self.requests

    async def append(
        self, session_id: str, text: str, *, key: str = "", mode: Acknowledgement | None = None
    ) -> Outcome:
        request = self.submit(session_id, text, key=key, mode=mode)
        async with asyncio.timeout(10):
            while request not in self.answers.outcomes:
                self.answers.changed.clear()
                await self.answers.changed.wait()
        return self.answers.outcomes[request]

    async def texts(self, session_id: str) -> list[bytes]:
        actor = await self.registry.actor(session_id)
        return [entry.payload_json for entry in actor.entries(0, 100_000, 1 << 30)]


@asynccontextmanager
async def primary(
    directory: Path,
    *,
    layout: ShardLayout | None = None,
    voters: tuple[str, ...] = ("node-1",),
    settings: WriterSettings | None = None,
    residency: ResidencySettings | None = None,
    epoch: int = 1,
    checkpoint_bytes: int = 1 << 20,
) -> AsyncIterator[Primary]:
    layout = layout or ShardLayout(shard_count=4)
    settings = settings or WriterSettings()
    nodes = tuple(
        NodeAddress(name, f"127.0.0.1:{7100 + number}", f"127.0.0.1:{8100 + number}")
        for number, name in enumerate(voters, 1)
    )
    log = ReplicationLog.open(directory / "log", cluster_id="test", group=0, segment_bytes=1 << 20)
    ahead = log_unlogged(directory, layout, 0, log, led_epoch=log.last.epoch)
    thread = await DatabaseThread.start(
        lambda: GroupDatabase.open(
            directory, layout, group=0, epoch=epoch, log=log, checkpoint_bytes=checkpoint_bytes
        ),
        name="group 0",
    )
    beginning = await thread.run(thread.owned.begin_epoch, "test", ahead)
    loader = await DatabaseThread.start(lambda: SessionLoader(directory, layout), name="loader")
    registry = SessionRegistry(
        layout, lambda _group: nodes[0], loader, residency or ResidencySettings(), settings.acknowledgement
    )
    tracker = CommitTracker("node-1", frozenset(voters), beginning.opening_lsn)
    visible: list[Position] = []
    writer = GroupWriter(
        thread,
        tracker,
        settings,
        on_logged=lambda: None,
        on_released=registry.released,
        on_committed=lambda lsn: None,
        on_visible=visible.append,
    )
    writer.start()
    writer.durable("node-1", log.durable_lsn)
    registry.lead(0, writer, Lease("node-1", frozenset({"node-1"}), lease_seconds=1.0))
    try:
        yield Primary(registry, writer, thread.owned, log, visible)
    finally:
        await writer.drain(0.2)
        await writer.end_checkpoints()
        registry.step_down(0)
        await loader.close()
        await thread.close()
        log.close()
