"""What a node tells readers of the cluster and its lag; `cluster_routes` and `cluster_service` only pass it on.

Each model has a message of the same fields in `cluster.proto`; what is None here is unset there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pydantic import BaseModel, Field

from agent_core.cluster import Cluster
from agent_core.control.cluster_map import Placement
from agent_core.lag import Lag
from ops.node_snapshot import ElectionSnapshot, GroupSnapshot, NodeSnapshot


class NodeModel(BaseModel):
    """A node as the cluster's configuration names it."""

    node_id: str
    grpc_address: str
    http_address: str
    voter: bool
    raft_member: bool = Field(description="Whether it keeps the map of who leads which group.")
    draining: bool = Field(description="Whether it shall lead nothing that another voter can lead.")


class LagModel(BaseModel):
    """How far a node's shards of a group are behind the group's primary."""

    transactions: int
    bytes: int
    seconds: float


class StandbyModel(BaseModel):
    """A standby of a group, as the group's primary sees it."""

    node_id: str
    connected: bool
    durable_lsn: int
    applied_lsn: int
    lag: LagModel


class GroupModel(BaseModel):
    """A shard group on this node."""

    group: int
    role: str = Field(description="primary, standby or reader")
    primary: str = Field(description="The node that leads the group; empty: nobody ever did.")
    epoch: int = Field(description="Since which epoch.")
    durable_lsn: int
    committed_lsn: int
    applied_lsn: int
    log_first_lsn: int
    log_bytes: int
    connected: bool | None = Field(description="Whether it has a stream from the primary; null where it leads.")
    lag: LagModel | None = Field(description="As it measures itself; null where it leads.")
    acknowledged_appends: int | None = Field(
        default=None, description="Where it leads: entries acknowledged in this term."
    )
    standbys: list[StandbyModel] = Field(description="Where it leads, the others.")
    age_seconds: float | None = Field(
        default=None,
        description="For how long the primary may have held more than this node tells; 0 where it leads.",
    )
    failure: str | None = Field(description="What has stopped for good.")


class ElectionModel(BaseModel):
    """How a group's election stands, whatever this node's role in it."""

    group: int
    primary: str | None = Field(description="Who leads it, as the map records it.")
    epoch: int = Field(description="Since which epoch.")
    promised_epoch: int = Field(description="This node's seal: it follows nothing below.")
    promised_to: str = Field(description="The node that the seal was given to.")
    lease_remaining_seconds: float | None = Field(description="Where this node leads: how long it may read alone.")
    elections_won: int
    elections_lost: int
    step_downs: int


class ShardModel(BaseModel):
    """A shard file on this node."""

    shard: int
    group: int
    file_bytes: int
    wal_bytes: int


class ClusterResponse(BaseModel):
    """A cluster as one node sees it: only a group's primary knows how the group's standbys do."""

    cluster_id: str
    node_id: str = Field(description="The node that answers.")
    version: str
    shard_count: int
    shard_group_count: int
    not_ready: list[str]
    raft_leader: str | None = Field(description="The Raft leader as this node knows it.")
    map_version: int
    nodes: list[NodeModel]
    groups: list[GroupModel]
    elections: list[ElectionModel]
    shards: list[ShardModel]


class GroupLagModel(BaseModel):
    """The lag of one node in one group, and who measured it."""

    group: int
    node_id: str
    measured_by: str
    connected: bool
    applied_lsn: int
    lag: LagModel
    age_seconds: float | None = Field(
        default=None, description="For how long the primary may have held more than who measured knew; 0: it leads."
    )


class LagResponse(BaseModel):
    """This node's lag in the groups that it follows, and the standbys' in those that it leads."""

    lags: list[GroupLagModel]


class ClusterView:
    """The cluster as this node sees it, at the moment of each question."""

    def __init__(
        self,
        snapshot: Callable[[], NodeSnapshot],
        cluster: Cluster,
        placement_of: Callable[[int], Placement],
        age_of: Callable[[int], float],
    ) -> None:
        """Tell what one node knows.

        Args:
            snapshot: Tells the node's state; called in the event loop for each question.
            cluster: Its nodes and shards.
            placement_of: Who leads a group, and since which epoch, as this node's copy of the map has it.
            age_of: The age in seconds of what this node has of a group.
        """
        self._snapshot = snapshot
        self._cluster = cluster
        self._placement_of = placement_of
        self._age_of = age_of

    def cluster(self) -> ClusterResponse:
        """Nodes, and this node's groups with their roles, positions and lag."""
        node, cluster = self._snapshot(), self._cluster
        return ClusterResponse(
            cluster_id=node.cluster_id,
            node_id=node.node_id,
            version=node.version,
            shard_count=cluster.layout.shard_count,
            shard_group_count=cluster.layout.shard_group_count,
            not_ready=[*node.failures(), *node.not_ready],
            raft_leader=node.control.raft_leader,
            map_version=node.control.map_version,
            nodes=[
                NodeModel(
                    node_id=other.node_id,
                    grpc_address=other.grpc_address,
                    http_address=other.http_address,
                    voter=other.voter,
                    raft_member=other.raft_address is not None,
                    draining=other.node_id in node.control.draining,
                )
                for other in cluster.nodes
            ],
            groups=[
                _group(group, self._placement_of(group.group), self._age_of(group.group)) for group in node.groups
            ],
            elections=[election_model(election) for election in node.control.elections],
            shards=[
                ShardModel(
                    shard=shard.shard, group=shard.group, file_bytes=shard.file_bytes, wal_bytes=shard.wal_bytes
                )
                for shard in node.shards
            ],
        )

    def lag(self) -> LagResponse:
        """Every lag that this node measures."""
        node = self._snapshot()
        return LagResponse(
            lags=[lag for group in node.groups for lag in _lags(group, node.node_id, self._age_of(group.group))]
        )


def _group(group: GroupSnapshot, placement: Placement, age_seconds: float) -> GroupModel:
    leading, following = group.primary, group.following
    return GroupModel(
        group=group.group,
        role=group.role,
        # Both from the map: the node itself may have promised an epoch whose election is not over, or lost.
        primary=placement.primary or "",
        epoch=placement.epoch,
        durable_lsn=group.durable_lsn,
        committed_lsn=group.committed_lsn,
        applied_lsn=group.applied_lsn,
        log_first_lsn=group.log_first_lsn,
        log_bytes=group.log_bytes,
        connected=None if following is None else following.connected,
        lag=None if following is None else _lag(following.lag),
        acknowledged_appends=None if leading is None else leading.acknowledged_appends,
        standbys=[
            StandbyModel(
                node_id=standby.node_id,
                connected=standby.connected,
                durable_lsn=standby.durable_lsn,
                applied_lsn=standby.applied_lsn,
                lag=_lag(standby.lag),
            )
            for standby in (() if leading is None else leading.standbys)
        ],
        failure=next((part.failure for part in (leading, following) if part is not None and part.failure), None),
        age_seconds=round(age_seconds, 3),
    )


def election_model(election: ElectionSnapshot) -> ElectionModel:
    """How an election stands, as readers and operators are told it."""
    return ElectionModel(
        group=election.group,
        primary=election.primary,
        epoch=election.epoch,
        promised_epoch=election.promised_epoch,
        promised_to=election.promised_to,
        lease_remaining_seconds=election.lease_remaining_seconds,
        elections_won=election.won,
        elections_lost=election.lost,
        step_downs=election.step_downs,
    )


def _lags(group: GroupSnapshot, node_id: str, age_seconds: float) -> Iterator[GroupLagModel]:
    if group.following is not None:
        yield GroupLagModel(
            group=group.group,
            node_id=node_id,
            measured_by=node_id,
            connected=group.following.connected,
            applied_lsn=group.applied_lsn,
            lag=_lag(group.following.lag),
            age_seconds=round(age_seconds, 3),
        )
    for standby in () if group.primary is None else group.primary.standbys:
        yield GroupLagModel(
            group=group.group,
            node_id=standby.node_id,
            measured_by=node_id,
            connected=standby.connected,
            applied_lsn=standby.applied_lsn,
            lag=_lag(standby.lag),
            age_seconds=round(age_seconds, 3),
        )


def _lag(lag: Lag) -> LagModel:
    return LagModel(transactions=lag.transactions, bytes=lag.bytes, seconds=lag.seconds)
