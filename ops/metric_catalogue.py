"""Every metric that a node exports: name, kind, labels, and what it tells.

Names follow Prometheus: one prefix, base units (seconds, bytes), `_total` for what only grows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PREFIX = "headwater_"

Kind = Literal["counter", "gauge", "histogram", "info"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric family.

    Attributes:
        name: As a query writes it, but for the suffixes that the kind brings: `_total` of a counter, `_info`
            of an info, `_bucket`, `_sum` and `_count` of a histogram.
        kind: What Prometheus calls its type.
        labels: Names of its labels, in the order in which values are given.
        description: The help text.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    description: str


CATALOGUE: list[Metric] = []
"""All of them, in the order in which they are exported."""


def _define(name: str, kind: Kind, labels: str, description: str) -> Metric:
    metric = Metric(PREFIX + name, kind, tuple(labels.split()), description)
    CATALOGUE.append(metric)
    return metric


NODE = _define("node", "info", "cluster node version", "The node, its cluster, and its version of Headwater.")
READY = _define("node_ready", "gauge", "", "1 when the node is ready for requests, else 0.")
FILESYSTEM_BYTES = _define(
    "filesystem_size_bytes", "gauge", "", "Size of the filesystem that holds the node's data directory."
)
FILESYSTEM_AVAILABLE_BYTES = _define(
    "filesystem_available_bytes", "gauge", "", "What the node can still write to that filesystem."
)

RAFT_LEADER = _define("raft_leader", "gauge", "", "1 while this node leads the Raft members, else 0.")
MAP_VERSION = _define("map_version", "gauge", "", "Version of the map of primaries that this node knows.")
DRAINING = _define("node_draining", "gauge", "", "1 while this node shall lead nothing, else 0.")
NOMINATIONS = _define("nominations", "counter", "", "Candidates that this node nominated as the Raft leader.")

VOTERS = _define("voters", "gauge", "group", "Nodes that vote in the group, as this node is configured.")
ELECTIONS = _define("elections", "counter", "group outcome", "Elections that this node stood for, by outcome.")
STEP_DOWNS = _define("step_downs", "counter", "group", "Terms of this node as primary that ended.")
PROMISED_EPOCH = _define(
    "promised_epoch", "gauge", "group", "Epoch that this node promised to follow nothing below."
)
LEASE_SECONDS = _define(
    "lease_remaining_seconds", "gauge", "group", "How long this primary may still read alone; 0 where it is none."
)

GROUP_ROLE = _define("group_role", "gauge", "group role", "1 for the role that the node has in the group, else 0.")
GROUP_SERVING = _define(
    "group_serving", "gauge", "group", "1 when the node leads the group and takes its writes, else 0."
)
GROUP_EPOCH = _define("group_epoch", "gauge", "group", "Epoch that the node leads, or has promised to follow.")
DURABLE_LSN = _define("durable_lsn", "gauge", "group", "Last record that the node's log holds with fsync.")
COMMITTED_LSN = _define("committed_lsn", "gauge", "group", "Last record that the node knows to be committed.")
APPLIED_LSN = _define("applied_lsn", "gauge", "group", "Last record that the node's shards contain.")
LOG_FIRST_LSN = _define("log_first_lsn", "gauge", "group", "First record that the node's log still holds.")
LOG_BYTES = _define("log_size_bytes", "gauge", "group", "Records in the node's replication log.")
LOG_DISK_READS = _define(
    "log_disk_reads", "counter", "group", "Reads of the log for records that were no longer in memory."
)
LOG_END_LOST = _define(
    "log_end_lost", "gauge", "group", "1 while the log lacks records that it once held with fsync, else 0."
)
FSYNC_SECONDS = _define("log_fsync_duration_seconds", "histogram", "group", "Time of one fsync of the log.")

APPENDS = _define(
    "appends", "counter", "group acknowledgement", "Entries acknowledged to their callers, by acknowledgement mode."
)
FAILED_APPENDS = _define("append_failures", "counter", "group reason", "Entries whose callers got an error.")
APPEND_SECONDS = _define(
    "append_duration_seconds", "histogram", "group", "Time from an append's arrival to its acknowledgement."
)
COMMITS = _define("commits", "counter", "group", "SQLite transactions committed by the group's writer.")
BATCH_ENTRIES = _define("batch_entries", "histogram", "group", "Entries in one batch of the group's writer.")
BATCH_TRANSACTIONS = _define("batch_transactions", "histogram", "group", "Transactions in one batch.")
CAPTURED_BYTES = _define("wal_captured_bytes", "counter", "group", "WAL frames read after commits.")
QUEUE_ENTRIES = _define("writer_queue_entries", "gauge", "group", "Entries that wait for the group's writer.")
QUEUE_BYTES = _define("writer_queue_bytes", "gauge", "group", "Bytes of the entries that wait for the writer.")
UNCOMMITTED_TRANSACTIONS = _define(
    "uncommitted_transactions", "gauge", "group", "Transactions written here and not yet committed by the quorum."
)
UNCOMMITTED_BYTES = _define(
    "uncommitted_bytes", "gauge", "group", "Entries written here and not yet committed by the quorum."
)
WRITER_FAILED = _define(
    "writer_failed", "gauge", "group", "1 when the group's writer has stopped for good, else 0; /healthz says why."
)

VOTERS_CONNECTED = _define(
    "voters_connected", "gauge", "group", "Voters with a stream from this primary, which counts itself."
)
STANDBY_CONNECTED = _define(
    "standby_connected", "gauge", "group standby", "1 when the standby has a stream from this primary, else 0."
)
STANDBY_DURABLE_LSN = _define(
    "standby_durable_lsn", "gauge", "group standby", "Last record that the standby acknowledged as durable."
)
STANDBY_APPLIED_LSN = _define(
    "standby_applied_lsn", "gauge", "group standby", "Last record that the standby's shards contain."
)
STANDBY_LAG_TRANSACTIONS = _define(
    "standby_lag_transactions", "gauge", "group standby", "Transactions that the standby lacks; measured here."
)
STANDBY_LAG_BYTES = _define(
    "standby_lag_bytes", "gauge", "group standby", "Bytes of log that the standby lacks; measured here."
)
STANDBY_LAG_SECONDS = _define(
    "standby_lag_seconds", "gauge", "group standby", "Age of the standby's state; measured at the primary."
)
STREAM_SENT_BYTES = _define("stream_sent_bytes", "counter", "group standby", "Records sent to the standby.")

FOLLOWING = _define("following", "gauge", "group", "1 when this standby has a stream from the primary, else 0.")
LAG_TRANSACTIONS = _define(
    "replication_lag_transactions", "gauge", "group", "Transactions that this standby lacks; measured by itself."
)
LAG_BYTES = _define(
    "replication_lag_bytes", "gauge", "group", "Bytes of log that this standby lacks; measured by itself."
)
LAG_SECONDS = _define(
    "replication_lag_seconds", "gauge", "group", "Age of this standby's state; grows while the primary is gone."
)
STREAM_RECEIVED_BYTES = _define("stream_received_bytes", "counter", "group", "Records received from the primary.")
REFUSED_RECORDS = _define(
    "refused_records", "counter", "group reason", "Records that this standby refused to take."
)
APPLIED = _define("applied_transactions", "counter", "group", "Records applied to this standby's shards.")
WAITING_RESYNCS = _define(
    "shards_waiting_for_resync", "gauge", "group", "Shards that wait for a resync or are in one."
)
RESYNCS = _define("resyncs", "counter", "group", "Shards made equal to the primary's by their differing pages.")
RESYNC_BYTES = _define("resync_received_bytes", "counter", "group", "Pages received by resyncs.")

SHARD_BYTES = _define("shard_size_bytes", "gauge", "group shard", "Size of the shard's database file.")
WAL_BYTES = _define("wal_size_bytes", "gauge", "group shard", "Size of the shard's write-ahead log.")
CHECKPOINTS = _define(
    "checkpoints", "counter", "group shard", "Checkpoints that moved all of the shard's WAL into its file."
)
BLOCKED_CHECKPOINTS = _define(
    "checkpoints_blocked", "counter", "group shard", "Checkpoints that a reader kept from moving all."
)
FAILED_CHECKPOINTS = _define(
    "checkpoints_failed", "counter", "group shard", "Checkpoints that SQLite could not make, as on a full disk."
)

SESSIONS_LIVE = _define("sessions_live", "gauge", "", "Sessions in memory.")
SESSIONS_BYTES = _define("sessions_memory_bytes", "gauge", "", "Memory of the transcripts of live sessions.")
SESSION_LOADS = _define("session_loads", "counter", "", "Sessions brought into memory from their shard.")
SESSION_EVICTIONS = _define("session_evictions", "counter", "reason", "Sessions that left memory.")
REPEATED_APPENDS = _define(
    "repeated_appends", "counter", "", "Appends whose idempotency key was used before; they added nothing."
)
SUBSCRIBERS = _define("subscribers", "gauge", "", "Open subscriptions.")

SHARD_READS = _define("shard_reads", "counter", "", "Reads of shard files, lists and transcripts; not SQL.")
FAILED_SHARD_READS = _define("shard_read_failures", "counter", "", "Of those, what SQLite could not serve.")
POSITION_TIMEOUTS = _define(
    "position_wait_timeouts", "counter", "", "Reads whose min_position was not reached before their deadline."
)
SQL_QUERIES = _define("sql_queries", "counter", "", "SQL statements from outside that a worker process was given.")
SQL_WORKERS_STOPPED = _define(
    "sql_workers_stopped", "counter", "", "Worker processes stopped because their query overran or was given up."
)
