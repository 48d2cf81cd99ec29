"""How nodes see a cluster, made up for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ops.cluster_view import ClusterResponse, GroupModel, LagModel, NodeModel

NODES = ("node-1", "node-2", "node-3")


def view(
    node: str,
    primaries: Mapping[int, tuple[str, int]],
    *,
    nodes: Sequence[str] = NODES,
    connected: bool = True,
    lag_seconds: float = 0.0,
    raft_leader: str | None = "node-1",
    draining: Sequence[str] = (),
) -> ClusterResponse:
    """How `node` sees a cluster whose groups are led by `primaries`, each since an epoch."""
    return ClusterResponse(
        cluster_id="test",
        node_id=node,
        version="0",
        shard_count=4,
        shard_group_count=len(primaries),
        not_ready=[],
        raft_leader=raft_leader,
        map_version=max(epoch for _, epoch in primaries.values()),
        nodes=[
            NodeModel(
                node_id=other,
                grpc_address=f"{other}:7101",
                http_address=f"{other}:7201",
                voter=True,
                raft_member=True,
                draining=other in draining,
            )
            for other in nodes
        ],
        groups=[
            GroupModel(
                group=group,
                role="primary" if primary == node else "standby",
                primary=primary,
                epoch=epoch,
                durable_lsn=10,
                committed_lsn=10,
                applied_lsn=10,
                acknowledged_appends=10 if primary == node else None,
                log_first_lsn=1,
                log_bytes=0,
                connected=None if primary == node else connected,
                lag=None if primary == node else LagModel(transactions=0, bytes=0, seconds=lag_seconds),
                standbys=[],
                failure=None,
            )
            for group, (primary, epoch) in primaries.items()
        ],
        elections=[],
        shards=[],
    )
