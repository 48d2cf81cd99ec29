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
        failure_reason: The failure in one word, for a label.
        serving: Whether its epoch is open and it takes writes.
        voters: The group's voters, itself among them.
        voters_connected: Those of them with a stream, itself counted.
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
    failure_reason: str = "failed"
    serving: bool = False
    voters: int = 1
    voters_connected: int = 1
    standbys: tuple[StandbySnapshot, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowingSnapshot:
    """What a standby does to follow a group's primary.

    Attributes:
        connected: Whether it has a stream.
        lag: How far it is behind, as it measures itself; goes on growing when the primary is gone.
        received_bytes: Records received.
        refused_records_by_reason: Records that were not taken, for example by "checksum", "order" or "epoch".
        applied_transactions: Records applied to shards.
        apply_seconds: Time to apply what was merged into one transaction of a shard.
        resyncs: Shards made equal to the primary's by their differing pages.
        shards_awaiting_resync: Shards that the log alone cannot continue.
        resync_bytes: Pages received for resyncs.
        failure: Why following stopped for good; None while it goes on or tries to.
    """

    connected: bool
    lag: Lag = NO_LAG
    received_bytes: int = 0
    refused_records_by_reason: Mapping[str, int] = field(default_factory=dict)
    applied_transactions: int = 0
    apply_seconds: Histogram | None = None
    resyncs: int = 0
    shards_awaiting_resync: int = 0
    resync_bytes: int = 0
    failure: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSnapshot:
    """A shard group on this node.

    Attributes:
        group: Its number.
        role: `primary`, `standby` or `reader`.
        epoch: The epoch that the node follows or leads.
        durable_lsn: What its log holds with fsync.
        committed_lsn: What it knows to be committed.
        applied_lsn: What its shards contain.
        log_bytes: Records that its log holds.
        log_first_lsn: The first of them.
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
    fsync_seconds: Histogram | None = None
    primary: PrimarySnapshot | None = None
    following: FollowingSnapshot | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardSnapshot:
    """A shard file on this node.

    Attributes:
        shard: Its number; the workspace shard is the last.
        group: The group it belongs to.
        file_bytes: Size of the database file.
        wal_bytes: Size of its `-wal` file.
        checkpoints: Checkpoints that emptied the WAL.
        blocked_checkpoints: Checkpoints that a reader kept from doing so.
    """

    shard: int
    group: int
    file_bytes: int = 0
    wal_bytes: int = 0
    checkpoints: int = 0
    blocked_checkpoints: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsSnapshot:
    """The sessions in memory.

    Attributes:
        live: How many there are.
        memory_bytes: What their transcripts take.
        loads: Sessions that were brought into memory from their shard.
        evictions_by_reason: Sessions that left it, by "idle" or "memory".
        subscribers: Open subscriptions.
    """

    live: int = 0
    memory_bytes: int = 0
    loads: int = 0
    evictions_by_reason: Mapping[str, int] = field(default_factory=dict)
    subscribers: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSnapshot:
    """A whole node.

    Attributes:
        cluster_id: The cluster it belongs to.
        node_id: Its name there.
        version: Of Headwater.
        not_ready: Why it should get no requests; empty when it is ready.
        filesystem_bytes: Size of the filesystem that holds its data; None when that cannot be told.
        filesystem_available_bytes: What it can still write there; None likewise.
        groups: Its groups.
        shards: Its shard files.
        sessions: The sessions in its memory.
    """

    cluster_id: str
    node_id: str
    version: str
    not_ready: tuple[str, ...] = ()
    filesystem_bytes: int | None = None
    filesystem_available_bytes: int | None = None
    groups: tuple[GroupSnapshot, ...] = ()
    shards: tuple[ShardSnapshot, ...] = ()
    sessions: SessionsSnapshot = field(default_factory=SessionsSnapshot)

    def failures(self) -> list[str]:
        """What has stopped for good and only a restart can mend; a node with none is alive."""
        parts = [(group.group, part) for group in self.groups for part in (group.primary, group.following)]
        return [f"group {number}: {part.failure}" for number, part in parts if part is not None and part.failure]
