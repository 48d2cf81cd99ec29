"""What a node tells about itself at one moment: plain values that metrics and health are made from.

Whatever only grows counts from the start of the process. Mappings are by the label that their name ends on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent_core.histogram import Histogram
from agent_core.lag import Lag

NO_LAG = Lag(0, 0, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class StandbySnapshot:
    """One standby of a group, as the group's primary sees it.

    Attributes:
        node_id: The standby.
        connected: Whether it has a stream.
        durable_lsn: What it acknowledged as durable.
        applied_lsn: What it said that its shards contain.
        lag: How far its shards are behind the primary's log.
        sent_bytes: Records sent to it.
    """

    node_id: str
    connected: bool
    durable_lsn: int = 0
    applied_lsn: int = 0
    lag: Lag = NO_LAG
    sent_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PrimarySnapshot:
    """What a group's primary does: its writer and its standbys.

    Attributes:
        appends_by_acknowledgement: Entries that were acknowledged.
        failed_appends_by_reason: Entries whose callers got an error, by its code.
        append_seconds: From a caller's append to its acknowledgement.
        commits: SQLite transactions.
        batch_entries: Entries per batch.
        batch_transactions: Transactions per batch.
        captured_bytes: WAL bytes that were read after commits.
        queue_entries: Entries that wait for a batch.
        queue_bytes: Their bytes.
        uncommitted_transactions: Written, and not yet committed by the quorum.
        uncommitted_bytes: Their bytes.
        failure: Why the writer stopped for good; None while it works.
        serving: Whether its epoch is open and it takes writes.
        voters_connected: The voters with a stream, itself counted.
        standbys: The other nodes of the group.
    """

    appends_by_acknowledgement: Mapping[str, int] = field(default_factory=dict)
    failed_appends_by_reason: Mapping[str, int] = field(default_factory=dict)
    append_seconds: Histogram | None = None
    commits: int = 0
    batch_entries: Histogram | None = None
    batch_transactions: Histogram | None = None
    captured_bytes: int = 0
    queue_entries: int = 0
    queue_bytes: int = 0
    uncommitted_transactions: int = 0
    uncommitted_bytes: int = 0
    failure: str | None = None
    serving: bool = False
    voters_connected: int = 1
    standbys: tuple[StandbySnapshot, ...] = ()

    @property
    def acknowledged_appends(self) -> int:
        """Entries that were acknowledged, whatever the acknowledgement asked for."""
        return sum(self.appends_by_acknowledgement.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowingSnapshot:
    """What a standby does to follow a group's primary.

    Attributes:
        connected: Whether it has a stream.
        state: What it is doing, in a word, for example "following", "connecting" or "resyncing".
        lag: How far it is behind, as it measures itself; goes on growing when the primary is gone.
        received_bytes: Records received.
        refused_records_by_reason: Records that were not taken, by `RefusalReason`.
        applied_transactions: Records applied to shards.
        waiting_resyncs: Shards that wait for a resync or are in one; nothing is acknowledged meanwhile.
        resyncs: Shards made equal to the primary's by their differing pages.
        resync_bytes: Pages received for resyncs.
        failure: Why following stopped for good; None while it goes on or tries to.
    """

    connected: bool
    state: str = "connecting"
    lag: Lag = NO_LAG
    received_bytes: int = 0
    refused_records_by_reason: Mapping[str, int] = field(default_factory=dict)
    applied_transactions: int = 0
    waiting_resyncs: int = 0
    resyncs: int = 0
    resync_bytes: int = 0
    failure: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSnapshot:
    """A shard group on this node.

    Attributes:
        group: Its number.
        role: `primary`, `standby` or `reader`.
        epoch: The epoch that the node leads; where it follows, the highest that it promised to follow.
        durable_lsn: What its log holds with fsync.
        committed_lsn: What it knows to be committed.
        applied_lsn: What its shards contain.
        log_bytes: Records that its log holds.
        log_first_lsn: The first of them.
        log_disk_reads: Reads of the log whose records were no longer in memory.
        log_end_lost: Whether it lacks records that it once held with fsync.
        fsync_seconds: Time of each fsync of the log.
        primary: What it does as primary; None for the other roles.
        following: What it does to follow; None for a primary.
    """

    group: int
    role: str
    epoch: int
    durable_lsn: int
    committed_lsn: int
    applied_lsn: int
    log_bytes: int = 0
    log_first_lsn: int = 1
    log_disk_reads: int = 0
    log_end_lost: bool = False
    fsync_seconds: Histogram | None = None
    primary: PrimarySnapshot | None = None
    following: FollowingSnapshot | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ElectionSnapshot:
    """How a group's election stands, whatever this node's role in the group.

    Attributes:
        group: Its number.
        primary: Who leads it, as the map records it; None while nobody ever did.
        epoch: Since which epoch.
        voters: How many nodes vote in it.
        promised_epoch: This node's seal: it follows nothing below.
        promised_to: The node that the seal was given to; empty when there is none.
        lease_remaining_seconds: For how long this node may still answer reads without asking anybody; None where
            it does not lead.
        won: Elections that this node stood for and won.
        lost: Elections that it stood for and did not win.
        step_downs: Terms as primary that ended.
    """

    group: int
    primary: str | None = None
    epoch: int = 0
    voters: int = 1
    promised_epoch: int = 0
    promised_to: str = ""
    lease_remaining_seconds: float | None = None
    won: int = 0
    lost: int = 0
    step_downs: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlSnapshot:
    """The control plane, as this node knows it.

    Attributes:
        raft_leader: The Raft leader; None while there is none.
        map_version: The version of the map; 0 before the cluster is formed.
        draining: The nodes that shall lead nothing.
        nominations: Made by this node as the Raft leader.
        elections: One for each group.
    """

    raft_leader: str | None = None
    map_version: int = 0
    draining: tuple[str, ...] = ()
    nominations: int = 0
    elections: tuple[ElectionSnapshot, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardSnapshot:
    """A shard file on this node.

    Attributes:
        shard: Its number; the workspace shard is the last.
        group: The group it belongs to.
        file_bytes: Size of the database file.
        wal_bytes: Size of its `-wal` file.
        checkpoints: Checkpoints that left nothing in the WAL that is not in the file.
        blocked_checkpoints: Checkpoints that a reader kept from doing so.
        failed_checkpoints: Checkpoints that SQLite could not make.
    """

    shard: int
    group: int
    file_bytes: int = 0
    wal_bytes: int = 0
    checkpoints: int = 0
    blocked_checkpoints: int = 0
    failed_checkpoints: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsSnapshot:
    """The sessions in memory.

    Attributes:
        live: How many there are.
        memory_bytes: What their transcripts take.
        loads: Sessions that were brought into memory from their shard.
        evictions_by_reason: Sessions that left it, by "idle" or "memory".
        repeated_appends: Appends whose idempotency key was used before; they added nothing.
        subscribers: Open subscriptions.
    """

    live: int = 0
    memory_bytes: int = 0
    loads: int = 0
    evictions_by_reason: Mapping[str, int] = field(default_factory=dict)
    repeated_appends: int = 0
    subscribers: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadsSnapshot:
    """Reads that were asked of the node from outside.

    Attributes:
        shard_reads: Reads of shard files, for lists and transcripts; SQL is counted apart.
        failed_shard_reads: Those that SQLite could not serve.
        position_timeouts: Waits for a `min_position` that ended without it.
        sql_queries: Statements that a worker process was given.
        sql_workers_stopped: Worker processes that had to be stopped, because a query overran or was given up.
    """

    shard_reads: int = 0
    failed_shard_reads: int = 0
    position_timeouts: int = 0
    sql_queries: int = 0
    sql_workers_stopped: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSnapshot:
    """A whole node.

    Attributes:
        cluster_id: The cluster it belongs to.
        node_id: Its name there.
        version: Of Headwater.
        not_ready: Why it should get no requests; empty when it is ready.
        ended_tasks: What should run for as long as the node does and ended by itself lately, in a sentence each.
        refusing_logs: By group, why its log takes nothing before the node is started again, whatever its role.
        filesystem_bytes: Size of the filesystem that holds its data; None when that cannot be told.
        filesystem_available_bytes: What it can still write there; None likewise.
        groups: Its groups; one that changes its role at this moment is not among them.
        control: The map, the Raft leader, and the elections.
        shards: Its shard files.
        sessions: The sessions in its memory.
        reads: What was read from it.
    """

    cluster_id: str
    node_id: str
    version: str
    not_ready: tuple[str, ...] = ()
    ended_tasks: tuple[str, ...] = ()
    refusing_logs: Mapping[int, str] = field(default_factory=dict)
    filesystem_bytes: int | None = None
    filesystem_available_bytes: int | None = None
    groups: tuple[GroupSnapshot, ...] = ()
    control: ControlSnapshot = field(default_factory=ControlSnapshot)
    shards: tuple[ShardSnapshot, ...] = ()
    sessions: SessionsSnapshot = field(default_factory=SessionsSnapshot)
    reads: ReadsSnapshot = field(default_factory=ReadsSnapshot)

    def failures(self) -> list[str]:
        """What has stopped and may need a restart; a node with none is alive."""
        parts = [(group.group, part) for group in self.groups for part in (group.primary, group.following)]
        return [
            *self.ended_tasks,
            *(f"group {number}: {part.failure}" for number, part in parts if part is not None and part.failure),
            *(f"group {number}: {reason}" for number, reason in self.refusing_logs.items()),
        ]
