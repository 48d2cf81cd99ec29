"""One picture of the cluster, put together from how several nodes see it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ops.cluster_view import ClusterResponse, GroupModel, NodeModel


@dataclass(frozen=True, slots=True)
class Member:
    """A node's part in one group.

    Attributes:
        node_id: The node.
        role: primary, standby or reader.
        connected: Whether it has a stream from the primary; None where it leads, or nobody knows.
        durable_lsn: The end of its log; None: nobody who was asked knows.
        applied_lsn: What its shards contain.
        lag_seconds: How far it is behind; None where it leads, or nobody knows.
        lag_transactions: The same in transactions.
        failure: What stopped for good.
    """

    node_id: str
    role: str
    connected: bool | None = None
    durable_lsn: int | None = None
    applied_lsn: int | None = None
    lag_seconds: float | None = None
    lag_transactions: int | None = None
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """A shard group: who leads it since which epoch, how much of it is committed, and each node's part."""

    group: int
    primary: str
    epoch: int
    committed_lsn: int
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """A node.

    Attributes:
        node_id: Its name.
        http_address: Where it answers.
        grpc_address: Where clients and other nodes reach it.
        voter: Whether it votes and may lead.
        raft_member: Whether it keeps the map.
        draining: Whether it shall lead nothing.
        answers: Whether it answered the last question; None: it leads, and is spared.
        problems: Why it does not answer, or what it says it cannot do.
        leads: The groups that it leads.
        database_bytes: Of its shards and their WAL files; None: not known.
    """

    node_id: str
    http_address: str
    grpc_address: str
    voter: bool
    raft_member: bool
    draining: bool
    answers: bool | None
    problems: tuple[str, ...]
    leads: tuple[int, ...]
    database_bytes: int | None


@dataclass(frozen=True, slots=True)
class Picture:
    """The cluster."""

    cluster_id: str
    version: str
    shard_count: int
    raft_leader: str | None
    nodes: tuple[Node, ...]
    groups: tuple[Group, ...]


def draw(views: Mapping[str, ClusterResponse], failures: Mapping[str, str]) -> Picture | None:
    """The picture that these views make; None where there is no view.

    Args:
        views: How each node that answered sees the cluster, by node.
        failures: Why others did not answer, by node.
    """
    if not views:
        return None
    newest = max(views.values(), key=lambda view: view.map_version)
    groups = tuple(_group(number, views, newest.nodes) for number in range(newest.shard_group_count))
    return Picture(
        cluster_id=newest.cluster_id,
        version=newest.version,
        shard_count=newest.shard_count,
        raft_leader=newest.raft_leader,
        nodes=tuple(_node(node, views, failures, groups) for node in newest.nodes),
        groups=groups,
    )


def _node(
    node: NodeModel, views: Mapping[str, ClusterResponse], failures: Mapping[str, str], groups: Sequence[Group]
) -> Node:
    view, failure = views.get(node.node_id), failures.get(node.node_id)
    return Node(
        node_id=node.node_id,
        http_address=node.http_address,
        grpc_address=node.grpc_address,
        voter=node.voter,
        raft_member=node.raft_member,
        draining=node.draining,
        answers=True if view is not None else (False if failure is not None else None),
        problems=tuple(view.not_ready) if view is not None else ((failure,) if failure is not None else ()),
        leads=tuple(group.group for group in groups if group.primary == node.node_id),
        database_bytes=None if view is None else sum(shard.file_bytes + shard.wal_bytes for shard in view.shards),
    )


def _group(number: int, views: Mapping[str, ClusterResponse], nodes: Iterable[NodeModel]) -> Group:
    seen = {node_id: group for node_id, view in views.items() for group in view.groups if group.group == number}
    newest = max(seen.values(), key=lambda group: (group.epoch, group.committed_lsn), default=None)
    if newest is None:
        return Group(number, "", 0, 0, ())
    members = {node_id: _member(node_id, group) for node_id, group in seen.items()}
    # Where the primary was asked too, it tells of the standbys that were not.
    for standby in (standby for group in seen.values() for standby in group.standbys):
        members.setdefault(
            standby.node_id,
            Member(
                standby.node_id,
                "standby",
                standby.connected,
                standby.durable_lsn,
                standby.applied_lsn,
                standby.lag.seconds,
                standby.lag.transactions,
            ),
        )
    if newest.primary:
        members.setdefault(newest.primary, Member(newest.primary, "primary"))
    # Every node takes part in every group, also where nobody who was asked tells how it does.
    for node in nodes:
        members.setdefault(node.node_id, Member(node.node_id, "standby" if node.voter else "reader"))
    ordered = sorted(members.values(), key=lambda member: (member.node_id != newest.primary, member.node_id))
    return Group(number, newest.primary, newest.epoch, newest.committed_lsn, tuple(ordered))


def _member(node_id: str, group: GroupModel) -> Member:
    return Member(
        node_id=node_id,
        role=group.role,
        connected=group.connected,
        durable_lsn=group.durable_lsn,
        applied_lsn=group.applied_lsn,
        lag_seconds=None if group.lag is None else group.lag.seconds,
        lag_transactions=None if group.lag is None else group.lag.transactions,
        failure=group.failure,
    )
