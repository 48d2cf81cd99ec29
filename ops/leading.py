"""A group that this node leads: from the recovery of its shards to the serving of its sessions."""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from agent_core.database.schema import shard_path
from agent_core.database.thread import DatabaseThread
from agent_core.errors import PositionNotReached, ShardDamaged, Unavailable
from agent_core.log.retention import droppable_through
from agent_core.position import Position
from agent_core.quorum import CommitTracker
from agent_core.rpc import replication_pb2 as pb
from ops.group_context import GroupContext
from ops.settings import MIB
from primary.accumulator import BatchLimits
from primary.greeting import Identity
from primary.group_database import GroupDatabase
from primary.opening import EpochOpening, LongerLog, Opened, open_epoch, seal_over_rpc
from primary.registry import SessionRegistry
from primary.resync_source import ResyncSource
from primary.streaming import StandbyStreams, StreamSettings
from primary.tracing import GroupTraces
from primary.unlogged import log_unlogged
from primary.writer import GroupWriter, WriterSettings
from replica.group_shards import GroupShards, Keeping

log = structlog.get_logger(__name__)

RETRY_OPENING_SECONDS = 1.0
TIDY_SECONDS = 1.0
COMMIT_POLL_SECONDS = 1.0


class LeadingGroup:
    """Leads one group. `run` brings it up; `stop` drains it.

    Attributes:
        waiting_for: Why the group is not served yet; None once it is.
        writer: The group's writer, once its epoch is open.
        streams: The streams to its standbys, likewise.
        source: Serves resyncs of its shards, likewise.
        tracker: Counts what its voters hold, likewise.
    """

    def __init__(self, context: GroupContext, registry: SessionRegistry) -> None:
        self.context = context
        self.waiting_for: str | None = "the group has not started yet"
        self.writer: GroupWriter | None = None
        self.streams: StandbyStreams | None = None
        self.source: ResyncSource | None = None
        self.tracker: CommitTracker | None = None
        self.epoch = 0
        self._registry = registry
        self._traces: GroupTraces | None = None
        self._thread: DatabaseThread[GroupDatabase] | None = None

    async def run(self) -> None:
        """Recover, open an epoch, serve, and keep the log in bounds until cancelled.

        Raises:
            HeadwaterError: A shard or the log is damaged in a way that only an operator can mend.
        """
        context = self.context
        ahead = await asyncio.to_thread(
            log_unlogged, context.data_directory, context.cluster.layout, context.group, context.log
        )
        self.epoch = await self._open_epoch()
        await self._replay()
        await self._begin(ahead)
        while True:
            await asyncio.sleep(TIDY_SECONDS)
            await self._tidy()

    async def stop(self, seconds: float) -> None:
        """Let what was written be acknowledged, tell the standbys, and close the shards."""
        self._registry.step_down(self.context.group)
        if self.writer is not None:
            await self.writer.drain(seconds)
        if self.streams is not None:
            await self.streams.close(Unavailable("the primary is stopping"))
        if self._thread is not None:
            await self._thread.close()

    async def _open_epoch(self) -> int:
        context = self.context
        over_rpc = seal_over_rpc(context.peers.stub)

        async def ask(voter: str, request: pb.SealRequest) -> pb.SealResponse:
            return await (context.voter.seal(request) if voter == context.node_id else over_rpc(voter, request))

        while True:
            opening = EpochOpening(
                voters=[node.node_id for node in context.cluster.voters()],
                last=context.log.last,
                promised_epoch=context.voter.promise.epoch,
            )
            outcome = await open_epoch(
                opening,
                ask,
                cluster_id=context.cluster.cluster_id,
                group=context.group,
                candidate=context.node_id,
                on_waiting=self._wait_for,
            )
            match outcome:
                case Opened(epoch):
                    return epoch
                case LongerLog(voter, last):
                    self._wait_for(f"the log of {voter} goes further, to {last}; {voter} should lead the group")
                    await asyncio.sleep(RETRY_OPENING_SECONDS)

    async def _replay(self) -> None:
        """Bring the shards to the end of the log: a power cut may have taken their last transactions."""
        context = self.context
        self._wait_for("the shards are brought to the end of the log")
        thread = await DatabaseThread.start(
            lambda: GroupShards.open(
                context.data_directory,
                cluster_id=context.cluster.cluster_id,
                layout=context.cluster.layout,
                group=context.group,
                log=context.log,
                keeping=Keeping(),
            ),
            name=f"replay group {context.group}",
        )
        try:
            applied = (await thread.run(thread.owned.survey)).applied
            while applied.lsn < context.log.last.lsn:
                outcome = await thread.run(thread.owned.apply, applied, context.log.last.lsn)
                if outcome.resync_shard is not None:
                    raise ShardDamaged(
                        f"shard {outcome.resync_shard} cannot be brought to the end of the log: {outcome.reason}; "
                        "let another node lead the group, or restore the shard from a standby"
                    )
                applied = outcome.applied
        finally:
            await thread.close()

    async def _begin(self, ahead: frozenset[int]) -> None:
        context, configuration = self.context, self.context.configuration
        layout = context.cluster.layout
        voters = frozenset(node.node_id for node in context.cluster.voters())
        thread = await DatabaseThread.start(
            lambda: GroupDatabase.open(
                context.data_directory,
                layout,
                group=context.group,
                epoch=self.epoch,
                log=context.log,
                checkpoint_bytes=configuration.storage.checkpoint_mib * MIB,
            ),
            name=f"writer group {context.group}",
        )
        self._thread = thread
        opening_lsn = await thread.run(thread.owned.begin_epoch, context.cluster.cluster_id, ahead)
        traces = self._traces = None if context.tracer is None else GroupTraces(context.tracer)
        tracker = self.tracker = CommitTracker(context.node_id, voters, opening_lsn)
        streams = self.streams = StandbyStreams(
            Identity(context.cluster.cluster_id, layout, context.group, context.node_id, self.epoch),
            context.log,
            voters=voters,
            committed=lambda: tracker.committed_lsn,
            on_durable=self._durable,
            on_fenced=self._fenced,
            traces=None if traces is None else traces.sent,
            settings=StreamSettings(
                heartbeat_seconds=configuration.replication.heartbeat_seconds,
                window_bytes=configuration.replication.window_mib * MIB,
            ),
        )
        self.source = ResyncSource(
            cluster_id=context.cluster.cluster_id,
            group=context.group,
            shard_paths={
                shard: shard_path(context.data_directory, layout.shard_file_name(shard))
                for shard in layout.shards_of(context.group)
            },
            wait_committed=self._wait_committed,
        )
        limits = configuration.limits
        self.writer = GroupWriter(
            thread,
            tracker,
            WriterSettings(
                acknowledgement=configuration.cluster.acknowledgement,
                acknowledgement_timeout_seconds=configuration.replication.acknowledgement_timeout_seconds,
                uncommitted_bytes=limits.uncommitted_bytes,
                limits=BatchLimits(
                    batch_bytes=limits.batch_bytes,
                    queue_mutations=limits.queue_entries,
                    queue_bytes=limits.queue_bytes,
                ),
            ),
            on_logged=self._logged,
            on_released=self._registry.released,
            on_committed=self._committed,
            on_batch=None if traces is None else traces.batched,
        )
        self.writer.start()
        self._wait_for(f"a quorum must hold the record {self.epoch}:{opening_lsn} that opens epoch {self.epoch}")
        self.writer.durable(context.node_id, context.log.durable_lsn)
        streams.doorbell.ring()
        await self._wait_committed(opening_lsn)
        self._registry.lead(context.group, self.writer)
        self.waiting_for = None
        log.info("leads group", group=context.group, epoch=self.epoch, last=str(context.log.last))

    def _wait_for(self, reason: str) -> None:
        if reason != self.waiting_for:
            log.info("group is not served yet", group=self.context.group, reason=reason)
        self.waiting_for = reason

    def _logged(self) -> None:
        if self._traces is not None:
            self._traces.logged()
        if self.streams is not None:
            self.streams.doorbell.ring()

    def _durable(self, node: str, lsn: int) -> None:
        if self._traces is not None:
            self._traces.durable(node, lsn)
        if self.writer is not None:
            self.writer.durable(node, lsn)

    def _committed(self, lsn: int) -> None:
        self.context.positions.advance(self.context.group, Position(self.epoch, lsn))
        if self.streams is not None:
            self.streams.doorbell.ring()

    def _fenced(self, promised_epoch: int) -> None:
        """A standby follows a higher epoch: this node must not acknowledge anything more."""
        self._wait_for(f"epoch {promised_epoch} was promised to another primary; this one led epoch {self.epoch}")
        self._registry.step_down(self.context.group)

    async def _wait_committed(self, lsn: int) -> None:
        assert self.tracker is not None, "there is an epoch to commit in"
        while self.tracker.committed_lsn < lsn:
            with contextlib.suppress(PositionNotReached):
                await self.context.positions.wait(
                    self.context.group, Position(self.epoch, lsn), COMMIT_POLL_SECONDS
                )

    async def _tidy(self) -> None:
        """Drop the log that nobody needs; checkpoint the shard that holds most of it back."""
        assert self.writer is not None, "the group has begun"
        assert self.streams is not None, "the group has begun"
        replication_log = self.context.log
        bound = self.context.configuration.storage.log_retention_mib * MIB
        needs = {shard: state.needs_lsn for shard, state in self.writer.database.shards.items()}
        pending = {shard: lsn for shard, lsn in needs.items() if lsn is not None}
        if pending and replication_log.size_bytes > bound // 2:
            await self.writer.checkpoint(min(pending, key=lambda shard: pending[shard]))
        through = droppable_through(
            committed_lsn=self.writer.visible_position.lsn,
            checkpointed_lsns=needs.values(),
            standbys=self.streams.needs(),
            holds=self.streams.holds(),
            standby_bytes=bound,
        )
        await asyncio.to_thread(replication_log.drop_through, through)
