"""A group that another node leads: this node follows it and applies what it commits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator

from agent_core.position import Position
from agent_core.rpc import replication_pb2 as pb
from ops.group_context import GroupContext
from ops.settings import MIB
from replica.following import Follower
from replica.group_shards import Keeping
from replica.incoming import FollowerSettings
from replica.standby_group import StandbyGroup
from replica.tracing import ApplyTraces
from replica.voting import presumed_primary


class FollowingGroup:
    """Follows one group.

    Attributes:
        shards: The group's shards, applied to.
        follower: Keeps the group's log.
    """

    def __init__(self, context: GroupContext, shards: StandbyGroup, follower: Follower) -> None:
        self.context = context
        self.shards = shards
        self.follower = follower
        context.voter.on_promised(self.primary_changed)
        self.resume()

    @property
    def able(self) -> bool:
        """Whether this node could lead the group: its shards need no resync."""
        return self.shards.complete

    def primary_changed(self) -> None:
        """Another node may lead, by the map or by this node's own promise: turn to it at once."""
        context = self.context
        primary = presumed_primary(
            context.voter.promise, context.view.placement(context.group), node_id=context.node_id
        )
        self.follower.try_now(elsewhere=primary != context.presumed)

    async def pause(self) -> None:
        """Follow nobody; nothing touches the log once this returns. The shards stay open."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def resume(self) -> None:
        """Follow again."""
        self._task = asyncio.create_task(self.follower.run(), name=f"follow group {self.context.group}")

    @classmethod
    async def start(cls, context: GroupContext, contained: Position | None = None) -> FollowingGroup:
        """Open the shards and begin to follow.

        Args:
            context: What both roles need.
            contained: Up to where the shards are known to contain the log; None: it is looked through.

        Raises:
            HeadwaterError: A shard cannot be opened.
        """
        configuration, cluster = context.configuration, context.cluster

        def exchange(requests: AsyncIterator[pb.ResyncRequest]) -> AsyncIterable[pb.ResyncResponse]:
            return context.peers.stub(follower.primary).Resync(requests)

        shards = await StandbyGroup.open(
            context.data_directory,
            cluster_id=cluster.cluster_id,
            node_id=context.node_id,
            layout=cluster.layout,
            group=context.group,
            log=context.log,
            exchange=exchange,
            readers_away=context.pool.away,
            keeping=Keeping(
                checkpoint_bytes=configuration.storage.checkpoint_mib * MIB,
                log_bytes=configuration.storage.log_retention_mib * MIB // 4,
            ),
            contained=contained,
        )

        def applied(position: Position) -> None:
            context.positions.advance(context.group, position)

        def committed(position: Position) -> None:
            context.positions.reveal(context.group, position)

        context.positions.judge_by(context.group, shards)
        context.positions.written_by(context.group, lambda shard: shards.appliers[shard].applied)
        applied(shards.visible)
        shards.on_applied(applied)
        shards.on_committed(committed)
        heartbeat_seconds = configuration.replication.heartbeat_seconds
        traces = None if context.tracer is None else ApplyTraces(context.tracer, context.group)
        if traces is not None:
            shards.on_applied(traces.applied)
        follower = Follower(
            node_id=context.node_id,
            cluster_id=cluster.cluster_id,
            layout=cluster.layout,
            group=context.group,
            replication_log=context.log,
            voter=context.voter,
            shards=shards,
            presume=lambda misled: context.presumed_primary(misled=misled),
            connect=context.peers.stub,
            listening=context.heartbeats.heard,
            on_traced=None if traces is None else traces.received,
            settings=FollowerSettings(heartbeat_seconds=heartbeat_seconds, silence_seconds=20 * heartbeat_seconds),
        )
        return cls(context, shards, follower)

    async def stop(self) -> None:
        """Stop following and close the shards."""
        self.context.voter.off_promised(self.primary_changed)
        await self.pause()
        await self.shards.close()
