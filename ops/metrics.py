"""Turns a node's snapshot into Prometheus' metric families when it is scraped.

Nothing is counted here: the hot path has plain numbers, and this reads them. All cost falls on the scrape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.core import (
    Metric as Family,
)
from prometheus_client.registry import Collector

from agent_core.histogram import Histogram
from ops import metric_catalogue as catalogue
from ops.metric_catalogue import CATALOGUE, Metric
from ops.node_snapshot import (
    ElectionSnapshot,
    FollowingSnapshot,
    GroupSnapshot,
    NodeSnapshot,
    PrimarySnapshot,
    ReadsSnapshot,
    SessionsSnapshot,
    ShardSnapshot,
)

ROLES = ("primary", "standby", "reader")

Sample = tuple[Metric, Sequence[str], "float | Histogram | None"]
"""A metric, the values of its labels, and its value; None for what is not measured."""


def build_registry(snapshot: Callable[[], NodeSnapshot]) -> CollectorRegistry:
    """A registry of the node's own metrics and those of its process."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(NodeCollector(snapshot))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class NodeCollector(Collector):
    """Asks for a snapshot at each scrape; every metric of the catalogue appears, measured or not."""

    def __init__(self, snapshot: Callable[[], NodeSnapshot]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Family]:
        """The families of one scrape, in the catalogue's order."""
        families = {metric: _family(metric) for metric in CATALOGUE}
        for metric, labels, value in _samples(self._snapshot()):
            if value is not None:
                _add(families[metric], metric, labels, value)
        yield from families.values()

    def describe(self) -> Iterator[Family]:
        """The families without their samples."""
        return map(_family, CATALOGUE)


def _family(metric: Metric) -> Family:
    match metric.kind:
        case "counter":
            return CounterMetricFamily(metric.name, metric.description, labels=metric.labels)
        case "gauge":
            return GaugeMetricFamily(metric.name, metric.description, labels=metric.labels)
        case "histogram":
            return HistogramMetricFamily(metric.name, metric.description, labels=metric.labels)
        case "info":
            return InfoMetricFamily(metric.name, metric.description)


def _add(family: Family, metric: Metric, labels: Sequence[str], value: float | Histogram) -> None:
    if isinstance(family, HistogramMetricFamily):
        assert isinstance(value, Histogram)
        # A copy, since another thread may go on observing: sum of buckets and count must agree.
        cumulative = list(accumulate(list(value.counts)))
        bounds = [*(repr(float(bound)) for bound in value.bounds), "+Inf"]
        family.add_metric(labels, list(zip(bounds, cumulative, strict=True)), value.sum)
    elif isinstance(family, InfoMetricFamily):
        family.add_metric((), dict(zip(metric.labels, labels, strict=True)))
    elif isinstance(family, CounterMetricFamily | GaugeMetricFamily):
        assert not isinstance(value, Histogram)
        family.add_metric(labels, value)


def _samples(node: NodeSnapshot) -> Iterator[Sample]:
    yield catalogue.NODE, (node.cluster_id, node.node_id, node.version), 1
    yield catalogue.READY, (), not node.not_ready
    yield catalogue.FILESYSTEM_BYTES, (), node.filesystem_bytes
    yield catalogue.FILESYSTEM_AVAILABLE_BYTES, (), node.filesystem_available_bytes
    yield catalogue.RAFT_LEADER, (), node.control.raft_leader == node.node_id
    yield catalogue.MAP_VERSION, (), node.control.map_version
    yield catalogue.DRAINING, (), node.node_id in node.control.draining
    yield catalogue.NOMINATIONS, (), node.control.nominations
    for election in node.control.elections:
        yield from _election_samples(election)
    for group in node.groups:
        yield from _group_samples(group)
    for shard in node.shards:
        yield from _shard_samples(shard)
    yield from _session_samples(node.sessions)
    yield from _read_samples(node.reads)


def _election_samples(election: ElectionSnapshot) -> Iterator[Sample]:
    label = (str(election.group),)
    yield catalogue.VOTERS, label, election.voters
    yield catalogue.ELECTIONS, (*label, "won"), election.won
    yield catalogue.ELECTIONS, (*label, "lost"), election.lost
    yield catalogue.STEP_DOWNS, label, election.step_downs
    yield catalogue.PROMISED_EPOCH, label, election.promised_epoch
    yield catalogue.LEASE_SECONDS, label, election.lease_remaining_seconds or 0


def _group_samples(group: GroupSnapshot) -> Iterator[Sample]:
    label = (str(group.group),)
    for role in ROLES:
        yield catalogue.GROUP_ROLE, (*label, role), role == group.role
    yield catalogue.GROUP_SERVING, label, group.primary is not None and group.primary.serving
    yield catalogue.GROUP_EPOCH, label, group.epoch
    yield catalogue.DURABLE_LSN, label, group.durable_lsn
    yield catalogue.COMMITTED_LSN, label, group.committed_lsn
    yield catalogue.APPLIED_LSN, label, group.applied_lsn
    yield catalogue.LOG_FIRST_LSN, label, group.log_first_lsn
    yield catalogue.LOG_BYTES, label, group.log_bytes
    yield catalogue.LOG_DISK_READS, label, group.log_disk_reads
    yield catalogue.LOG_END_LOST, label, group.log_end_lost
    yield catalogue.FSYNC_SECONDS, label, group.fsync_seconds
    if group.primary is not None:
        yield from _primary_samples(label, group.primary)
    if group.following is not None:
        yield from _following_samples(label, group.following)


def _primary_samples(label: tuple[str], primary: PrimarySnapshot) -> Iterator[Sample]:
    for mode, count in primary.appends_by_acknowledgement.items():
        yield catalogue.APPENDS, (*label, mode), count
    for reason, count in primary.failed_appends_by_reason.items():
        yield catalogue.FAILED_APPENDS, (*label, reason), count
    yield catalogue.APPEND_SECONDS, label, primary.append_seconds
    yield catalogue.COMMITS, label, primary.commits
    yield catalogue.BATCH_ENTRIES, label, primary.batch_entries
    yield catalogue.BATCH_TRANSACTIONS, label, primary.batch_transactions
    yield catalogue.CAPTURED_BYTES, label, primary.captured_bytes
    yield catalogue.QUEUE_ENTRIES, label, primary.queue_entries
    yield catalogue.QUEUE_BYTES, label, primary.queue_bytes
    yield catalogue.UNCOMMITTED_TRANSACTIONS, label, primary.uncommitted_transactions
    yield catalogue.UNCOMMITTED_BYTES, label, primary.uncommitted_bytes
    yield catalogue.WRITER_FAILED, label, primary.failure is not None
    yield catalogue.VOTERS_CONNECTED, label, primary.voters_connected
    for standby in primary.standbys:
        labels = (*label, standby.node_id)
        yield catalogue.STANDBY_CONNECTED, labels, standby.connected
        yield catalogue.STANDBY_DURABLE_LSN, labels, standby.durable_lsn
        yield catalogue.STANDBY_APPLIED_LSN, labels, standby.applied_lsn
        yield catalogue.STANDBY_LAG_TRANSACTIONS, labels, standby.lag.transactions
        yield catalogue.STANDBY_LAG_BYTES, labels, standby.lag.bytes
        yield catalogue.STANDBY_LAG_SECONDS, labels, standby.lag.seconds
        yield catalogue.STREAM_SENT_BYTES, labels, standby.sent_bytes


def _following_samples(label: tuple[str], following: FollowingSnapshot) -> Iterator[Sample]:
    yield catalogue.FOLLOWING, label, following.connected
    yield catalogue.LAG_TRANSACTIONS, label, following.lag.transactions
    yield catalogue.LAG_BYTES, label, following.lag.bytes
    yield catalogue.LAG_SECONDS, label, following.lag.seconds
    yield catalogue.STREAM_RECEIVED_BYTES, label, following.received_bytes
    for reason, count in following.refused_records_by_reason.items():
        yield catalogue.REFUSED_RECORDS, (*label, reason), count
    yield catalogue.APPLIED, label, following.applied_transactions
    yield catalogue.WAITING_RESYNCS, label, following.waiting_resyncs
    yield catalogue.RESYNCS, label, following.resyncs
    yield catalogue.RESYNC_BYTES, label, following.resync_bytes


def _shard_samples(shard: ShardSnapshot) -> Iterator[Sample]:
    labels = (str(shard.group), str(shard.shard))
    yield catalogue.SHARD_BYTES, labels, shard.file_bytes
    yield catalogue.WAL_BYTES, labels, shard.wal_bytes
    yield catalogue.CHECKPOINTS, labels, shard.checkpoints
    yield catalogue.BLOCKED_CHECKPOINTS, labels, shard.blocked_checkpoints
    yield catalogue.FAILED_CHECKPOINTS, labels, shard.failed_checkpoints


def _session_samples(sessions: SessionsSnapshot) -> Iterator[Sample]:
    yield catalogue.SESSIONS_LIVE, (), sessions.live
    yield catalogue.SESSIONS_BYTES, (), sessions.memory_bytes
    yield catalogue.SESSION_LOADS, (), sessions.loads
    for reason, count in sessions.evictions_by_reason.items():
        yield catalogue.SESSION_EVICTIONS, (reason,), count
    yield catalogue.REPEATED_APPENDS, (), sessions.repeated_appends
    yield catalogue.SUBSCRIBERS, (), sessions.subscribers


def _read_samples(reads: ReadsSnapshot) -> Iterator[Sample]:
    yield catalogue.SHARD_READS, (), reads.shard_reads
    yield catalogue.FAILED_SHARD_READS, (), reads.failed_shard_reads
    yield catalogue.POSITION_TIMEOUTS, (), reads.position_timeouts
    yield catalogue.SQL_QUERIES, (), reads.sql_queries
    yield catalogue.SQL_WORKERS_STOPPED, (), reads.sql_workers_stopped
