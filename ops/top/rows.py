"""Rows for the eye, made of what was heard. Pure: the same history at the same time makes the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from agent_core.rpc.administration_pb2 import GroupStatus
from ops.top.history import ClusterHistory, NodeHistory


class Order(StrEnum):
    """What the rows of nodes are sorted by, in the order in which the key goes through them."""

    NODE = "node"
    GROUP = "group"
    LAG = "lag"
    APPENDS = "appends/s"
    HEARD = "heard"

    def next(self) -> Order:
        """The one after this; the first after the last."""
        orders = list(Order)
        return orders[(orders.index(self) + 1) % len(orders)]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRow:
    """One group on one node; a node that never answered has one row without a group.

    Attributes:
        address: The node's.
        node_id: Its name; the address while that is not known.
        group: The group's number; None where the node never told of any.
        role: primary, standby or reader; empty while unknown.
        epoch: That it follows or leads.
        durable_lsn: What its log holds with fsync.
        committed_lsn: What it knows to be committed.
        applied_lsn: What its shards contain.
        lag_transactions: How far it is behind; None for a primary, or if nobody can tell.
        lag_seconds: The same in seconds.
        lags: Seconds behind at each question, the newest last.
        appends_per_second: Where it leads; None where it does not, or there are no two answers yet.
        wal_bytes: Of its shards' `-wal` files.
        log_bytes: Of its replication log.
        state: What it is doing, in a word.
        troubled: Whether that word calls for a look.
        heard_seconds: Age of the node's last answer; None if it never answered.
        stale: Whether that is too old to tell how the node is now.
    """

    address: str
    node_id: str
    group: int | None = None
    role: str = ""
    epoch: int = 0
    durable_lsn: int = 0
    committed_lsn: int = 0
    applied_lsn: int = 0
    lag_transactions: int | None = None
    lag_seconds: float | None = None
    lags: Sequence[float | None] = ()
    appends_per_second: float | None = None
    wal_bytes: int = 0
    log_bytes: int = 0
    state: str
    troubled: bool = False
    heard_seconds: float | None = None
    stale: bool = True

    @property
    def key(self) -> str:
        """What stays the same when the row's values change."""
        return self.address if self.group is None else f"{self.address}/{self.group}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRow:
    """One session.

    Attributes:
        session_id: Its id.
        title: Its title.
        workspace: Its workspace.
        entries: How many entries it has.
        entries_per_second: How fast it grows; None before it was seen twice.
    """

    session_id: str
    title: str
    workspace: str
    entries: int
    entries_per_second: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The cluster in a line or two.

    Attributes:
        cluster: Its id and mode of acknowledgement; empty while no node answered.
        raft_leader: As the newest map names it; empty for none.
        draining: Nodes that shall lead nothing.
        nodes: How many were named.
        silent: Those that do not answer now.
        appends_per_second: Of all groups together; None while unknown.
        problems: Why nodes are not ready, and clusters that do not belong together.
    """

    cluster: str = ""
    raft_leader: str = ""
    draining: Sequence[str] = ()
    nodes: int = 0
    silent: Sequence[str] = ()
    appends_per_second: float | None = None
    problems: Sequence[str] = field(default_factory=tuple)


def group_rows(history: ClusterHistory, now: float) -> list[GroupRow]:
    """One row for each group of each node, the nodes in the order in which they were named."""
    return [row for node in history.nodes.values() for row in _rows_of(history, node, now)]


def in_order(rows: Sequence[GroupRow], order: Order) -> list[GroupRow]:
    """The same rows sorted; among equals as they came."""
    match order:
        case Order.NODE:
            return list(rows)
        case Order.GROUP:
            # The primary of each group first.
            return sorted(rows, key=lambda row: (row.group is None, row.group or 0, row.role != "primary"))
        case Order.LAG:
            return sorted(rows, key=lambda row: -1.0 if row.lag_seconds is None else row.lag_seconds, reverse=True)
        case Order.APPENDS:
            return sorted(rows, key=lambda row: row.appends_per_second or 0.0, reverse=True)
        case Order.HEARD:
            return sorted(
                rows, key=lambda row: float("inf") if row.heard_seconds is None else row.heard_seconds, reverse=True
            )


def node_facts(node: NodeHistory) -> list[tuple[str, str]]:
    """What a node says of itself beside its groups, each fact with its name."""
    facts = [("address", node.address)]
    if node.failure:
        facts.append(("not reached", node.failure))
    answer = node.answer
    if answer is None:
        return facts
    facts += [
        ("HTTP", answer.http_address),
        ("version", answer.version),
        ("cluster", f"{answer.cluster_id}, {answer.shard_count} shards in {answer.shard_group_count} groups"),
        ("Raft leader", answer.raft_leader or "none"),
        (
            "sealed",
            ", ".join(
                f"group {election.group}: epoch {election.promised_epoch} to {election.promised_to or 'nobody'}"
                for election in answer.elections
            ),
        ),
    ]
    return facts + [("not ready", reason) for reason in answer.not_ready]


def session_rows(history: ClusterHistory) -> list[SessionRow]:
    """The sessions of the last page, the busiest first, among equals the most recently updated."""
    rows = [
        SessionRow(
            session_id=session.session_id,
            title=session.title,
            workspace=session.workspace,
            entries=session.entry_count,
            entries_per_second=history.entries_per_second(session.session_id),
        )
        for session in history.sessions
    ]
    return sorted(rows, key=lambda row: row.entries_per_second or 0.0, reverse=True)


def summary(history: ClusterHistory, now: float) -> Summary:
    """The cluster as the nodes that answer tell it."""
    answers = [
        node.answer for node in history.nodes.values() if node.answer is not None and not history.silent(node, now)
    ]
    silent = [
        node.answer.node_id if node.answer is not None else node.address
        for node in history.nodes.values()
        if history.silent(node, now)
    ]
    if not answers:
        return Summary(nodes=len(history.nodes), silent=silent)
    newest = max(answers, key=lambda answer: (answer.map_version, bool(answer.raft_leader)))
    clusters = sorted({answer.cluster_id for answer in answers})
    problems = [f"{answer.node_id} is not ready: {reason}" for answer in answers for reason in answer.not_ready]
    if len(clusters) > 1:
        problems.insert(0, f"these nodes belong to different clusters: {', '.join(clusters)}")
    rates = [
        rate.per_second
        for (address, _), rate in history.appends.items()
        if rate.per_second is not None and not history.silent(history.nodes[address], now)
    ]
    return Summary(
        cluster=f"{newest.cluster_id}, acknowledgement {newest.acknowledgement}",
        raft_leader=newest.raft_leader,
        draining=tuple(newest.draining),
        nodes=len(history.nodes),
        silent=silent,
        appends_per_second=sum(rates) if rates else None,
        problems=problems,
    )


def _rows_of(history: ClusterHistory, node: NodeHistory, now: float) -> list[GroupRow]:
    silent, age = history.silent(node, now), node.age(now)
    if node.answer is None:
        state = "not reached" if node.failure else "asking"
        return [GroupRow(address=node.address, node_id=node.address, state=state, troubled=bool(node.failure))]
    if not node.answer.groups:
        state = "not reached" if silent else "no group"
        return [
            GroupRow(
                address=node.address,
                node_id=node.answer.node_id,
                state=state,
                troubled=True,
                heard_seconds=age,
                stale=silent,
            )
        ]
    groups = sorted(node.answer.groups, key=lambda group: group.group)
    return [_row(history, node, group, now, silent=silent) for group in groups]


def _row(history: ClusterHistory, node: NodeHistory, group: GroupStatus, now: float, *, silent: bool) -> GroupRow:
    assert node.answer is not None, "a group was told by an answer"
    leads = group.role == "primary"
    lag: tuple[int, float] | None = None if leads else (group.lag_transactions, group.lag_seconds)
    state = "not ready" if node.answer.not_ready else group.state
    if silent:
        state, lag = "not reached", history.told_lag(node.address, group.group, now)
    rate = history.appends.get((node.address, group.group))
    return GroupRow(
        address=node.address,
        node_id=node.answer.node_id,
        group=group.group,
        role=group.role,
        epoch=group.epoch,
        durable_lsn=group.durable.lsn,
        committed_lsn=group.committed_lsn,
        applied_lsn=group.applied_lsn,
        lag_transactions=None if lag is None else lag[0],
        lag_seconds=None if lag is None else lag[1],
        lags=tuple(history.lags(node.address, group.group)),
        appends_per_second=rate.per_second if rate is not None and leads and not silent else None,
        wal_bytes=group.wal_bytes,
        log_bytes=group.log_bytes,
        state=state,
        troubled=silent or bool(node.answer.not_ready),
        heard_seconds=node.age(now),
        stale=silent,
    )
