"""Puts what a node's parts know into one snapshot, for metrics, health and status."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from agent_core.database.checkpointer import WrittenShard
from agent_core.errors import OutcomeUnknown, Overloaded, Unavailable, WriteFailed
from agent_core.lag import Lag
from agent_core.log.durable_mark import LogEnd
from agent_core.quorum import Acknowledgement
from ops.control.control_plane import ControlPlane
from ops.control.view import MapView
from ops.following import FollowingGroup
from ops.lasting_tasks import LastingTasks
from ops.leading import LeadingGroup
from ops.membership import GroupMember
from ops.node_snapshot import (
    ControlSnapshot,
    ElectionSnapshot,
    FollowingSnapshot,
    GroupSnapshot,
    NodeSnapshot,
    PrimarySnapshot,
    ReadsSnapshot,
    SessionsSnapshot,
    ShardSnapshot,
    StandbySnapshot,
)
from ops.settings import NodeConfiguration
from primary.progress import StandbyState
from primary.registry import SessionRegistry
from replica.following import FollowerState
from replica.reading.reading import Reading

VERSION = version("headwater")
FAILURES = tuple(error.code for error in (OutcomeUnknown, Overloaded, Unavailable, WriteFailed))
"""What a group's writer answers when it cannot acknowledge."""


class NodeState:
    """Looks at a node's groups; everything runs on the event loop."""

    def __init__(
        self,
        configuration: NodeConfiguration,
        registry: SessionRegistry,
        reading: Reading,
        members: Mapping[int, GroupMember],
        *,
        view: MapView,
        control: ControlPlane,
        tasks: LastingTasks,
    ) -> None:
        self.configuration = configuration
        self._registry = registry
        self._reading = reading
        self._members = members
        self._view = view
        self._control = control
        self._tasks = tasks
        self.starting = True
        self.stopping = False

    @property
    def _leading(self) -> Mapping[int, LeadingGroup]:
        return {group: member.leading for group, member in self._members.items() if member.leading is not None}

    @property
    def _following(self) -> Mapping[int, FollowingGroup]:
        return {group: member.following for group, member in self._members.items() if member.following is not None}

    def snapshot(self) -> NodeSnapshot:
        """The node at this moment."""
        residency = self._registry.residency
        filesystem_bytes, available_bytes = _filesystem(self.configuration.node.data_directory)
        return NodeSnapshot(
            cluster_id=self.configuration.cluster.id,
            node_id=self.configuration.node.id,
            version=VERSION,
            not_ready=tuple(self._not_ready()),
            ended_tasks=tuple(self._tasks.troubles()),
            refusing_logs={
                group: member.context.log.refusal
                for group, member in self._members.items()
                if member.context.log.refusal is not None
            },
            filesystem_bytes=filesystem_bytes,
            filesystem_available_bytes=available_bytes,
            groups=(
                *(self._led(group) for group in self._leading.values()),
                *(self._followed(group) for group in self._following.values()),
            ),
            control=ControlSnapshot(
                raft_leader=self._control.raft_leader,
                map_version=self._view.map.version,
                draining=tuple(member.node_id for member in self._view.map.members if member.draining),
                nominations=self._control.nominations,
                elections=tuple(self._elections()),
            ),
            shards=tuple(self._shards()),
            sessions=SessionsSnapshot(
                live=len(residency),
                memory_bytes=residency.memory_bytes,
                loads=self._registry.arrivals.loads,
                evictions_by_reason={"idle": residency.evicted_idle, "memory": residency.evicted_for_memory},
                repeated_appends=self._registry.repeated_appends,
                subscribers=self._registry.subscribers,
            ),
            reads=ReadsSnapshot(
                shard_reads=self._reading.pool.reads,
                failed_shard_reads=self._reading.pool.failures,
                position_timeouts=self._reading.applied.timeouts,
                sql_queries=sum(workers.queries for workers in self._reading.workers),
                sql_workers_stopped=sum(workers.killed for workers in self._reading.workers),
            ),
        )

    def _not_ready(self) -> Iterator[str]:
        if self.starting:
            yield "the node is starting"
        if self.stopping:
            yield "the node is stopping"
        for number, member in self._members.items():
            yield from (f"group {number}: {reason}" for reason in member.not_ready())
        for number, leading in self._leading.items():
            yield from _lost_end(number, leading.context.log.end)
            if leading.waiting_for is not None:
                yield f"group {number}: {leading.waiting_for}"
            if leading.writer is not None and leading.writer.trouble is not None:
                yield f"group {number}: {leading.writer.trouble}"
        for number, following in self._following.items():
            yield from _lost_end(number, following.context.log.end)
            for shard, reason in following.shards.needs_resync.items():
                yield f"group {number}: shard {shard} waits for a resync: {reason}"
            for shard, position in following.shards.awaits_commit.items():
                yield f"group {number}: shard {shard} was resynced, and shows it once {position} is committed"
            if following.follower.state is not FollowerState.FOLLOWING:
                yield f"group {number}: {following.follower.state}: {following.follower.reason}"
            if following.shards.trouble is not None:
                yield f"group {number}: {following.shards.trouble}"

    def _elections(self) -> Iterator[ElectionSnapshot]:
        now = asyncio.get_running_loop().time()
        for group, member in self._members.items():
            placement, promise = self._view.placement(group), member.context.voter.promise
            lease = member.leading.lease if member.leading is not None else None
            yield ElectionSnapshot(
                group=group,
                primary=placement.primary,
                epoch=placement.epoch,
                voters=len(member.context.cluster.voters()),
                promised_epoch=promise.epoch,
                promised_to=promise.candidate,
                lease_remaining_seconds=lease.remaining_seconds(now) if lease is not None else None,
                won=member.candidacy.won,
                lost=member.candidacy.lost,
                step_downs=member.step_downs,
            )

    def _failure(self, leading: LeadingGroup) -> str | None:
        return self._members[leading.context.group].failure

    def _led(self, leading: LeadingGroup) -> GroupSnapshot:
        log, writer = leading.context.log, leading.writer
        committed_lsn = leading.tracker.committed_lsn if leading.tracker is not None else 0
        standbys = tuple(_standbys(leading))
        primary = PrimarySnapshot(
            failure=self._failure(leading),
            voters_connected=1
            + sum(standby.connected and standby.node_id in leading.voters for standby in standbys),
            standbys=standbys,
        )
        if writer is not None:
            counters = writer.counters
            primary = replace(
                primary,
                # From zero on: a counter that appears with its first event hides that event from rate().
                appends_by_acknowledgement={str(mode): counters.acknowledged[mode] for mode in Acknowledgement},
                failed_appends_by_reason=dict.fromkeys(FAILURES, 0) | counters.failed,
                append_seconds=counters.append_seconds,
                commits=counters.transactions,
                batch_entries=counters.batch_mutations,
                batch_transactions=counters.batch_transactions,
                captured_bytes=counters.wal_bytes,
                queue_entries=writer.queued,
                queue_bytes=writer.queued_bytes,
                uncommitted_transactions=writer.unreleased,
                uncommitted_bytes=writer.unreleased_bytes,
                failure=writer.failure or primary.failure,
                serving=leading.serving and not primary.failure,
            )
        return GroupSnapshot(
            group=leading.context.group,
            role="primary",
            epoch=leading.epoch,
            durable_lsn=log.durable_lsn,
            committed_lsn=committed_lsn,
            applied_lsn=log.last.lsn,
            log_bytes=log.size_bytes,
            log_first_lsn=log.first_lsn,
            log_disk_reads=log.disk_reads,
            log_end_lost=log.end.lost,
            fsync_seconds=writer.counters.fsync_seconds if writer is not None else None,
            primary=primary,
        )

    def _followed(self, following: FollowingGroup) -> GroupSnapshot:
        context, follower, shards = following.context, following.follower, following.shards
        return GroupSnapshot(
            group=context.group,
            role="standby" if self.configuration.own_address.voter else "reader",
            epoch=context.voter.promise.epoch,
            durable_lsn=context.log.durable_lsn,
            committed_lsn=shards.committed_lsn,
            applied_lsn=shards.applied.lsn,
            log_bytes=context.log.size_bytes,
            log_first_lsn=context.log.first_lsn,
            log_disk_reads=context.log.disk_reads,
            log_end_lost=context.log.end.lost,
            following=FollowingSnapshot(
                connected=follower.state is FollowerState.FOLLOWING,
                state=str(follower.state),
                lag=follower.lag(),
                received_bytes=follower.counters.record_bytes,
                refused_records_by_reason={
                    str(reason): count for reason, count in follower.receiver.refusals.items()
                },
                applied_transactions=sum(applier.transactions_applied for applier in shards.appliers.values()),
                waiting_resyncs=len(shards.needs_resync),
                resyncs=shards.counters.resyncs,
                resync_bytes=shards.counters.resync_bytes,
                failure=follower.reason if follower.state is FollowerState.DIVERGED else None,
            ),
        )

    def _shards(self) -> Iterator[ShardSnapshot]:
        for number, leading in self._leading.items():
            states = leading.writer.database.shards if leading.writer is not None else {}
            for shard, state in states.items():
                yield _shard(shard, number, state)
        for number, following in self._following.items():
            for shard, applier in following.shards.appliers.items():
                yield _shard(shard, number, applier)


def _shard(shard: int, group: int, written: WrittenShard) -> ShardSnapshot:
    return ShardSnapshot(
        shard=shard,
        group=group,
        file_bytes=_size(written.path),
        wal_bytes=_size(_wal(written.path)),
        checkpoints=written.backlog.completed,
        blocked_checkpoints=written.backlog.blocked,
        failed_checkpoints=written.backlog.failed,
    )


def _lost_end(group: int, end: LogEnd) -> Iterator[str]:
    if end.lost:
        yield (
            f"group {group}: the log lost its end: {end}; until it goes as far again this node gives its vote to "
            "nobody whose log does not"
        )


def _standbys(leading: LeadingGroup) -> Iterator[StandbySnapshot]:
    if leading.streams is None:
        return
    for node, progress in leading.streams.progress.items():
        lag: Lag = leading.streams.lag(node)
        yield StandbySnapshot(
            node_id=node,
            connected=progress.state is not StandbyState.GONE,
            durable_lsn=progress.durable_lsn,
            applied_lsn=progress.applied_lsn,
            lag=lag,
            sent_bytes=progress.sent_bytes,
        )


def _filesystem(directory: Path) -> tuple[int | None, int | None]:
    """Bytes of the filesystem around `directory`, and those that can still be written."""
    try:
        usage = shutil.disk_usage(directory)
    except OSError:
        return None, None
    return usage.total, usage.free


def _wal(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
