"""A group that this node leads: from the opening of its epoch to the step down."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from agent_core.control.cluster_map import Placement
from agent_core.database.schema import shard_path
from agent_core.database.thread import DatabaseThread
from agent_core.errors import HandedOver
from agent_core.log.retention import droppable_through
from agent_core.quorum import CommitTracker, quorum_needs
from agent_core.ticks import next_tick
from ops.group_context import GroupContext
from ops.preparing import ask_to_prepare
from ops.settings import MIB
from primary.accumulator import BatchLimits
from primary.electing.lease import Lease
from primary.electing.tenure import Tenure
from primary.greeting import Identity
from primary.group_database import GroupDatabase
from primary.progress import StandbyState
from primary.registry import SessionRegistry
from primary.resync_source import ResyncSource
from primary.streaming import StandbyStreams, StreamSettings
from primary.tracing import GroupTraces
from primary.writer import GroupWriter, WriterSettings

log = structlog.get_logger(__name__)

TIDY_SECONDS = 1.0
HAND_OVER_SECONDS = 1.0
"""How long a primary waits until the node that shall follow it holds everything."""


@dataclass(frozen=True, slots=True)
class TermEnded:
    """Why a primary steps down.

    Attributes:
        reason: In a sentence.
        disk_failed: Its own disk is the reason: another node should lead.
    """

    reason: str
    disk_failed: bool = False


class LeadingGroup:
    """Leads one group in one epoch, which a majority has sealed. `run` serves it; `stop` closes it.

    Attributes:
        epoch: The epoch.
        waiting_for: Why the group is not served yet; None once it is.
        lease: How long reads may be answered without asking anybody.
        began_at: When this node began to lead, on the loop's clock.
        writer: The group's writer, once its epoch is open.
        streams: The streams to its standbys, likewise.
        source: Serves resyncs of its shards, likewise.
        tracker: Counts what its voters hold, likewise.
    """

    def __init__(
        self,
        context: GroupContext,
        registry: SessionRegistry,
        epoch: int,
        unlogged: frozenset[int],
        *,
        on_begun: Callable[[], Awaitable[None]],
    ) -> None:
        """Lead `context.group`.

        Args:
            context: What both roles need.
            registry: Told once sessions can be served.
            epoch: Sealed by a majority for this node.
            unlogged: Shards that contain more than the log; their standbys must resync them.
            on_begun: Called once the shards are open for writing and standbys are served.
        """
        self.context = context
        self.epoch = epoch
        self.waiting_for: str | None = "the group has not started yet"
        self.voters = frozenset(node.node_id for node in context.cluster.voters())
        self.lease = Lease(context.node_id, self.voters, context.configuration.election.lease_seconds)
        self.writer: GroupWriter | None = None
        self.streams: StandbyStreams | None = None
        self.source: ResyncSource | None = None
        self.tracker: CommitTracker | None = None
        self._registry = registry
        self._traces = None if context.tracer is None else GroupTraces(context.tracer)
        self._unlogged = unlogged
        self._on_begun = on_begun
        # What a log begins after was committed before.
        context.positions.advance(context.group, context.log.base)
        self._thread: DatabaseThread[GroupDatabase] | None = None
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[TermEnded] = self._loop.create_future()
        self.began_at = self._loop.time()
        self._tenure = Tenure(
            context.node_id,
            self.voters,
            self.began_at,
            context.configuration.election.failure_timeout_seconds,
        )
        self._trouble_since: float | None = None
        self._tidied = (-1, -1)
        context.voter.on_raised(self._fenced)
        # This node's own voter may have sealed another candidate since a majority sealed this epoch.
        self._fenced(context.voter.floor)

    @property
    def serving(self) -> bool:
        """Whether the group's epoch is open and its writes are taken."""
        return self.waiting_for is None and self.writer is not None and self.writer.takes_writes

    async def run(self) -> TermEnded:
        """Open the epoch, serve, and keep the log in bounds, until there is a reason to step down.

        Raises:
            Exception: The epoch could not be opened, or serving or watching it failed.
        """
        serving = asyncio.create_task(self._serve(), name=f"serve group {self.context.group}")
        watching = asyncio.create_task(self._watch(), name=f"watch group {self.context.group}")
        for part in (serving, watching):
            part.add_done_callback(self._part_ended)
        try:
            return await self._ended
        finally:
            for task in (serving, watching):
                task.cancel()
            await asyncio.gather(serving, watching, return_exceptions=True)

    async def hand_over(self, to: str) -> None:
        """Let `to` prepare; then take no more, let everything be acknowledged, and wait until `to` holds it all."""
        preparing = asyncio.create_task(ask_to_prepare(self.context, self._registry, to), name="prepare successor")
        await asyncio.wait((preparing, self._ended), return_when=asyncio.FIRST_COMPLETED)
        preparing.cancel()
        log.info("hands over", group=self.context.group, epoch=self.epoch, to=to)
        self._registry.succession.begin(self.context.group)
        await self.drain(self.context.configuration.replication.acknowledgement_timeout_seconds)
        last_lsn = self.context.log.last.lsn
        if self.streams is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HAND_OVER_SECONDS):
                    await self.streams.wait_durable(to, last_lsn)
            await self.streams.close(HandedOver(f"{self.context.node_id} handed over"))

    async def drain(self, seconds: float) -> None:
        """Take no more, and wait for what was written to be acknowledged."""
        self._registry.step_down(self.context.group)
        if self.writer is not None:
            await self.writer.drain(seconds)

    async def stop(self) -> None:
        """End the streams and close the shards; callers that still wait hear that their outcome is unknown."""
        await self.drain(0)
        self.context.voter.off_raised(self._fenced)
        if self.streams is not None:
            await self.streams.close(
                HandedOver(f"{self.context.node_id} no longer leads group {self.context.group}")
            )
        if self.writer is not None:
            await self.writer.end_checkpoints()
        if self._thread is not None:
            await self._thread.close()

    def placed(self, placement: Placement) -> None:
        """The map has changed."""
        if placement.epoch > self.epoch:
            self._fenced(placement.epoch)

    async def _serve(self) -> None:
        await self._begin(self._unlogged)
        while True:
            await next_tick(TIDY_SECONDS)
            await self._tidy()

    async def _watch(self) -> None:
        """Step down when no majority has been heard for the failure timeout, or when the disk keeps failing."""
        timeout = self.context.configuration.election.failure_timeout_seconds
        while True:
            await next_tick(self.context.configuration.replication.heartbeat_seconds)
            now = self._loop.time()
            if self.lease.valid(now):
                self.context.voter.watch.heard(now)
            for node in self.source.receivers if self.source is not None else ():
                self._tenure.heard(node, now)
            if self._tenure.is_over(now):
                self._end(TermEnded(f"no majority of the voters was heard for {timeout:g} s"))
            trouble = self.writer.trouble or self.writer.failure if self.writer is not None else None
            if trouble is None:
                self._trouble_since = None
            elif self._trouble_since is None:
                self._trouble_since = now
            elif now - self._trouble_since >= timeout:
                self._end(TermEnded(trouble, disk_failed=True))

    def _part_ended(self, part: asyncio.Task[None]) -> None:
        """Serving or watching is over: without either this node must not go on to lead."""
        error = None if part.cancelled() else part.exception()
        if error is not None and not self._ended.done():
            self._ended.set_exception(error)

    def _end(self, ended: TermEnded) -> None:
        if not self._ended.done():
            self._ended.set_result(ended)

    def _heard(self, node: str, sent_at: float) -> None:
        sent_at = min(sent_at, self._loop.time())
        self.lease.echoed(node, sent_at)
        self._tenure.heard(node, sent_at)

    async def _begin(self, ahead: frozenset[int]) -> None:
        context, configuration = self.context, self.context.configuration
        layout = context.cluster.layout
        voters = self.voters
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
        context.positions.written_by(context.group, lambda shard: thread.owned.shards[shard].position)
        beginning = await thread.run(thread.owned.begin_epoch, context.cluster.cluster_id, ahead)
        tracker = self.tracker = CommitTracker(context.node_id, voters, beginning.opening_lsn)
        streams = self.streams = StandbyStreams(
            Identity(context.cluster.cluster_id, layout, context.group, context.node_id, self.epoch),
            context.log,
            voters=voters,
            committed=lambda: tracker.committed_lsn,
            on_durable=self._durable,
            on_hello=tracker.goes_on_from,
            on_heard=self._heard,
            on_fenced=self._fenced,
            traces=None if self._traces is None else self._traces.sent,
            heartbeats=context.heartbeats.given,
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
            quorum_needs=self._quorum_needs,
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
            on_visible=lambda position: context.positions.advance(context.group, position),
            on_batch=None if self._traces is None else self._traces.batched,
        )
        self.writer.start()
        self._wait_for(f"a quorum must hold what begins epoch {self.epoch}, up to lsn {beginning.last_lsn}")
        self.writer.durable(context.node_id, context.log.durable_lsn)
        streams.doorbell.ring()
        await self._on_begun()
        await self._wait_committed(beginning.last_lsn)
        self._registry.lead(context.group, self.writer, self.lease)
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
        self.context.log.note_committed(lsn)
        if self.streams is not None:
            self.streams.doorbell.ring()

    def _fenced(self, promised_epoch: int) -> None:
        """A higher epoch was promised to another node: nothing may be acknowledged here any more."""
        if promised_epoch > self.epoch:
            if self.writer is not None:
                self.writer.depose(f"epoch {promised_epoch} was promised to another primary")
            self._registry.step_down(self.context.group)
            self._end(TermEnded(f"epoch {promised_epoch} was promised to another primary"))

    async def _wait_committed(self, lsn: int) -> None:
        assert self.tracker is not None, "there is an epoch to commit in"
        assert self.streams is not None, "likewise"
        with self.streams.doorbell.listen() as wake:
            while self.tracker.committed_lsn < lsn:
                wake.clear()
                await wake.wait()

    def _quorum_needs(self, node: str) -> bool:
        """Whether nothing more can be committed before `node` is resynced, as far as streams tell.

        A stream alone is not enough: behind a reset a standby acknowledges nothing before its own resync.
        """
        assert self.tracker is not None, "there is an epoch to commit in"
        assert self.streams is not None, "likewise"
        assert self.source is not None, "it asks"
        next_lsn = max(self.tracker.opening_lsn, self.tracker.committed_lsn + 1)
        holding = [
            name
            for name, one in self.streams.progress.items()
            if one.state is StandbyState.STREAMING and one.durable_lsn >= next_lsn
        ]
        return quorum_needs(
            node, self.tracker.voters, {self.context.node_id, *holding}, frozenset(self.source.receivers)
        )

    async def _tidy(self) -> None:
        """Drop the log that nobody needs.

        The shard that holds most of it back is checkpointed, which lets more go the next time.
        """
        assert self.writer is not None, "the group has begun"
        assert self.tracker is not None, "likewise"
        assert self.streams is not None, "likewise"
        replication_log = self.context.log
        bound = self.context.configuration.storage.log_retention_mib * MIB
        needs = {shard: state.backlog.needs_lsn for shard, state in self.writer.database.shards.items()}
        pending = {shard: lsn for shard, lsn in needs.items() if lsn is not None}
        if pending and replication_log.size_bytes > bound // 2:
            self.writer.order_checkpoint(min(pending, key=lambda shard: pending[shard]))
        last_lsn = replication_log.last.lsn
        through = droppable_through(
            committed_lsn=self.tracker.committed_lsn,
            checkpointed_lsns=needs.values(),
            standbys=self.streams.needs(),
            holds=self.streams.holds(),
            standby_bytes=bound,
        )
        if (through, last_lsn) == self._tidied:
            return  # Nothing was written since, so there is no other segment to drop.
        try:
            await asyncio.to_thread(replication_log.drop_through, through)
            self._tidied = through, last_lsn
        except OSError as error:
            # What is too long still serves; the next look tries again.
            log.warning("log could not be shortened", group=self.context.group, reason=str(error))
