"""Puts what a node's parts know into one snapshot, for metrics, health and status."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from agent_core.errors import OutcomeUnknown, Unavailable, WriteFailed
from agent_core.lag import Lag
from agent_core.quorum import Acknowledgement
from ops.following import FollowingGroup
from ops.leading import LeadingGroup
from ops.node_snapshot import (
    FollowingSnapshot,
    GroupSnapshot,
    NodeSnapshot,
    PrimarySnapshot,
    SessionsSnapshot,
    ShardSnapshot,
    StandbySnapshot,
)
from ops.settings import NodeConfiguration
from primary.progress import StandbyState
from primary.registry import SessionRegistry
from replica.following import FollowerState

VERSION = version("headwater")
FAILURES = tuple(error.code for error in (OutcomeUnknown, Unavailable, WriteFailed))
"""What a group's writer answers when it cannot acknowledge."""


class NodeState:
    """Looks at a node's groups; everything runs on the event loop."""

    def __init__(
        self,
        configuration: NodeConfiguration,
        registry: SessionRegistry,
        leading: Mapping[int, LeadingGroup],
        following: Mapping[int, FollowingGroup],
    ) -> None:
        self.configuration = configuration
        self._registry = registry
        self._leading = leading
        self._following = following
        self.stopping = False
        self.failures: dict[int, str] = {}

    def snapshot(self) -> NodeSnapshot:
        """The node at this moment."""
        counters = self._registry.counters
        filesystem_bytes, available_bytes = _filesystem(self.configuration.node.data_directory)
        return NodeSnapshot(
            cluster_id=self.configuration.cluster.id,
            node_id=self.configuration.node.id,
            version=VERSION,
            not_ready=tuple(self._not_ready()),
            filesystem_bytes=filesystem_bytes,
            filesystem_available_bytes=available_bytes,
            groups=(
                *(self._led(group) for group in self._leading.values()),
                *(self._followed(group) for group in self._following.values()),
            ),
            shards=tuple(self._shards()),
            sessions=SessionsSnapshot(
                live=self._registry.live_sessions,
                memory_bytes=self._registry.memory_bytes,
                loads=counters.loads,
                evictions_by_reason={"idle": counters.evictions_idle, "memory": counters.evictions_memory},
                subscribers=self._registry.subscribers,
            ),
        )

    def _not_ready(self) -> Iterator[str]:
        if self.stopping:
            yield "the node is stopping"
        for number, leading in self._leading.items():
            if leading.waiting_for is not None:
                yield f"group {number}: {leading.waiting_for}"
            if leading.writer is not None and leading.writer.trouble is not None:
                yield f"group {number}: {leading.writer.trouble}"
        for number, following in self._following.items():
            if following.follower.state is not FollowerState.FOLLOWING:
                yield f"group {number}: {following.follower.state}: {following.follower.reason}"
            if following.shards.trouble is not None:
                yield f"group {number}: {following.shards.trouble}"

    def _led(self, leading: LeadingGroup) -> GroupSnapshot:
        log, writer = leading.context.log, leading.writer
        committed_lsn = leading.tracker.committed_lsn if leading.tracker is not None else 0
        standbys = tuple(_standbys(leading))
        voters = {node.node_id for node in leading.context.cluster.voters()}
        primary = PrimarySnapshot(
            failure=self.failures.get(leading.context.group),
            voters=len(voters),
            voters_connected=1 + sum(standby.connected and standby.node_id in voters for standby in standbys),
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
                serving=leading.waiting_for is None and not (writer.failure or primary.failure),
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
            following=FollowingSnapshot(
                connected=follower.state is FollowerState.FOLLOWING,
                lag=follower.lag(),
                received_bytes=follower.counters.record_bytes,
                refused_records_by_reason={
                    str(reason): count for reason, count in follower.receiver.refusals.items()
                },
                applied_transactions=sum(applier.transactions_applied for applier in shards.appliers.values()),
                resyncs=shards.counters.resyncs,
                shards_awaiting_resync=len(shards.needs_resync),
                resync_bytes=shards.counters.resync_bytes,
                failure=follower.reason if follower.state is FollowerState.DIVERGED else None,
            ),
        )

    def _shards(self) -> Iterator[ShardSnapshot]:
        for number, leading in self._leading.items():
            states = leading.writer.database.shards if leading.writer is not None else {}
            for shard, state in states.items():
                yield ShardSnapshot(
                    shard=shard,
                    group=number,
                    file_bytes=_size(state.path),
                    wal_bytes=_size(_wal(state.path)),
                    checkpoints=state.checkpoints,
                    blocked_checkpoints=state.checkpoints_blocked,
                )
        for number, following in self._following.items():
            for shard, applier in following.shards.appliers.items():
                yield ShardSnapshot(
                    shard=shard,
                    group=number,
                    file_bytes=_size(applier.path),
                    wal_bytes=_size(_wal(applier.path)),
                    checkpoints=applier.checkpoints_completed,
                    blocked_checkpoints=applier.checkpoints_blocked,
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
