"""The Administration service: a node's state, digests of its shards, and their repair."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import structlog
from grpc.aio import ServicerContext

from agent_core.database.pages import PAGE_HASH_BYTES, RUN_PAGES, PageSnapshot, page_digest
from agent_core.database.schema import shard_path
from agent_core.errors import HeadwaterError, InvalidRequest, Unavailable
from agent_core.lag import Lag
from agent_core.position import START
from agent_core.routing import ShardLayout
from agent_core.rpc import administration_pb2 as pb
from agent_core.rpc.administration_pb2_grpc import AdministrationServicer
from agent_core.rpc_errors import abort
from agent_core.stream import to_message
from ops.cluster_view import election_model
from ops.control.view import MapView
from ops.membership import GroupMember
from ops.node_snapshot import GroupSnapshot, NodeSnapshot
from ops.settings import NodeConfiguration
from replica.standby_group import StandbyGroup

log = structlog.get_logger(__name__)


class AdministrationService(AdministrationServicer):
    """Answers operators."""

    def __init__(
        self,
        configuration: NodeConfiguration,
        view: MapView,
        snapshot: Callable[[], NodeSnapshot],
        members: Mapping[int, GroupMember],
    ) -> None:
        """Answer for one node, which takes part in the groups of `members`."""
        self._configuration = configuration
        self._view = view
        self._snapshot = snapshot
        self._members = members

    async def Status(  # noqa: N802 - the name in the proto
        self, request: pb.StatusRequest, context: ServicerContext[Any, Any]
    ) -> pb.StatusResponse:
        """The node at this moment."""
        node, configuration = self._snapshot(), self._configuration
        wal_bytes: dict[int, int] = {}
        for shard in node.shards:
            wal_bytes[shard.group] = wal_bytes.get(shard.group, 0) + shard.wal_bytes
        return pb.StatusResponse(
            cluster_id=node.cluster_id,
            node_id=node.node_id,
            shard_count=configuration.cluster.shard_count,
            shard_group_count=configuration.cluster.shard_group_count,
            acknowledgement=configuration.cluster.acknowledgement,
            groups=[self._group(group, wal_bytes.get(group.group, 0)) for group in node.groups],
            http_address=configuration.own_address.http_address,
            version=node.version,
            not_ready=[*node.failures(), *node.not_ready],
            elections=[
                pb.GroupElection(**election_model(election).model_dump(exclude_none=True))
                for election in node.control.elections
            ],
            raft_leader=node.control.raft_leader or "",
            map_version=node.control.map_version,
            draining=node.control.draining,
        )

    async def ShardDigest(  # noqa: N802 - the name in the proto
        self, request: pb.ShardDigestRequest, context: ServicerContext[Any, Any]
    ) -> pb.ShardDigestResponse:
        """The hashes of a shard's pages, in one snapshot."""
        layout = self._configuration.cluster_map.layout
        try:
            if request.shard > layout.workspace_shard:
                raise InvalidRequest(f"shard is {request.shard}; allowed are 0 to {layout.workspace_shard}")
            path = shard_path(self._configuration.node.data_directory, layout.shard_file_name(request.shard))
            if not path.exists():
                raise Unavailable(f"shard {request.shard} has not arrived on this node yet")
            return await asyncio.to_thread(_digest, path, request)
        except HeadwaterError as error:
            await abort(context, error)

    async def ResyncShards(  # noqa: N802 - the name in the proto
        self, request: pb.ResyncShardsRequest, context: ServicerContext[Any, Any]
    ) -> pb.ResyncShardsResponse:
        """Resync shards, all at once where they belong to different groups."""
        try:
            shards = shards_to_resync(request, self._configuration.cluster_map.layout)
            standbys = {shard: self._standby_of(shard) for shard in shards}
            log.info("resync ordered", shards=shards)
            orders = [standby.order_resync(shard) for shard, standby in standbys.items()]
            outcomes = zip(shards, await asyncio.gather(*orders), strict=True)
        except HeadwaterError as error:
            await abort(context, error)
        return pb.ResyncShardsResponse(
            shards=[
                pb.ResyncedShard(shard=shard, position=to_message(done.position), pages=done.pages)
                for shard, done in outcomes
            ]
        )

    def _standby_of(self, shard: int) -> StandbyGroup:
        group = self._configuration.cluster_map.layout.group_of(shard)
        following = self._members[group].following
        if following is None:
            raise InvalidRequest(
                f"shard {shard} is of group {group}, which {self._configuration.node.id} does not follow; a "
                "standby is resynced, and the primary is what it is made equal to"
            )
        return following.shards

    def _group(self, group: GroupSnapshot, wal_bytes: int) -> pb.GroupStatus:
        following = group.following
        lag = following.lag if following is not None else Lag(0, 0, 0.0)
        return pb.GroupStatus(
            group=group.group,
            role=group.role,
            primary=self._view.placement(group.group).primary or "",
            epoch=group.epoch,
            durable=to_message(START._replace(epoch=group.epoch, lsn=group.durable_lsn)),
            committed_lsn=group.committed_lsn,
            applied_lsn=group.applied_lsn,
            wal_bytes=wal_bytes,
            log_bytes=group.log_bytes,
            log_first_lsn=group.log_first_lsn,
            standbys=[
                pb.StandbyStatus(
                    node_id=standby.node_id,
                    connected=standby.connected,
                    durable_lsn=standby.durable_lsn,
                    applied_lsn=standby.applied_lsn,
                    lag_transactions=standby.lag.transactions,
                    lag_bytes=standby.lag.bytes,
                    lag_seconds=standby.lag.seconds,
                )
                for standby in (group.primary.standbys if group.primary is not None else ())
            ],
            lag_transactions=lag.transactions,
            lag_bytes=lag.bytes,
            lag_seconds=lag.seconds,
            state=following.state if following is not None else "leading",
            acknowledged_appends=group.primary.acknowledged_appends if group.primary is not None else 0,
        )


def shards_to_resync(request: pb.ResyncShardsRequest, layout: ShardLayout) -> list[int]:
    """The shards that a request names, each once.

    Raises:
        InvalidRequest: It names none, or one that the cluster does not have.
    """
    shards = set(request.shards)
    for group in request.groups:
        if group >= layout.shard_group_count:
            raise InvalidRequest(f"group is {group}; allowed are 0 to {layout.shard_group_count - 1}")
        shards.update(layout.shards_of(group))
    if not shards:
        raise InvalidRequest("neither a shard nor a group is named")
    if max(shards) > layout.workspace_shard:
        raise InvalidRequest(f"shard is {max(shards)}; allowed are 0 to {layout.workspace_shard}")
    return sorted(shards)


def _digest(path: Path, request: pb.ShardDigestRequest) -> pb.ShardDigestResponse:
    snapshot = PageSnapshot.open(path)
    try:
        hashes = b"".join(
            snapshot.hashes(first, min(RUN_PAGES, snapshot.page_count - first + 1))
            for first in range(1, snapshot.page_count + 1, RUN_PAGES)
        )
        assert len(hashes) == snapshot.page_count * PAGE_HASH_BYTES, "one hash a page"
        return pb.ShardDigestResponse(
            shard=request.shard,
            position=to_message(snapshot.position or START),
            page_count=snapshot.page_count,
            digest=page_digest(hashes),
            page_hashes=hashes if request.page_hashes else b"",
        )
    finally:
        snapshot.close()
