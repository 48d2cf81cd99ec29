"""The metrics of a node as a scrape sees them, and the conventions that their names keep."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from agent_core.histogram import BATCH_SIZES, LATENCY_SECONDS, Histogram
from agent_core.lag import Lag
from ops.metric_catalogue import CATALOGUE, Metric
from ops.metrics import build_registry
from ops.node_snapshot import (
    ControlSnapshot,
    ElectionSnapshot,
    FollowingSnapshot,
    GroupSnapshot,
    NodeSnapshot,
    PrimarySnapshot,
    ReadsSnapshot,
    SessionsSnapshot,
    ShardSnapshot,
    StandbySnapshot,
)


def histogram(bounds: tuple[float, ...], *values: float) -> Histogram:
    made = Histogram(bounds)
    for value in values:
        made.observe(value)
    return made


def node(primary: PrimarySnapshot | None = None) -> NodeSnapshot:
    """Leads group 0, follows group 1, and has something to say for every metric."""
    leading = primary or PrimarySnapshot(
        appends_by_acknowledgement={"quorum": 100, "local": 7},
        failed_appends_by_reason={"outcome_unknown": 2},
        append_seconds=histogram(LATENCY_SECONDS, 0.001, 0.003, 9),
        commits=12,
        batch_entries=histogram(BATCH_SIZES, 1, 64),
        batch_transactions=histogram(BATCH_SIZES, 1, 16),
        captured_bytes=4096,
        queue_entries=5,
        serving=True,
        voters_connected=2,
        standbys=(
            StandbySnapshot(
                node_id="node-2", connected=True, durable_lsn=11, lag=Lag(1, 300, 0.002), sent_bytes=9000
            ),
            StandbySnapshot(node_id="node-3", connected=False, lag=Lag(12, 4000, 8.5)),
        ),
    )
    following = FollowingSnapshot(
        connected=True,
        lag=Lag(3, 900, 0.25),
        refused_records_by_reason={"bad_checksum": 1},
        resyncs=2,
        resync_bytes=8192,
    )
    place = GroupSnapshot(group=0, role="primary", epoch=4, durable_lsn=12, committed_lsn=11, applied_lsn=10)
    return NodeSnapshot(
        cluster_id="test",
        node_id="node-1",
        version="0.1.0",
        filesystem_bytes=1 << 40,
        filesystem_available_bytes=1 << 38,
        groups=(
            replace(place, primary=leading, log_disk_reads=4, fsync_seconds=histogram(LATENCY_SECONDS, 0.0003)),
            replace(place, group=1, role="standby", following=following),
        ),
        control=ControlSnapshot(
            raft_leader="node-1",
            map_version=7,
            draining=("node-3",),
            nominations=3,
            elections=(
                ElectionSnapshot(
                    group=0, voters=3, promised_epoch=4, lease_remaining_seconds=0.5, won=2, lost=1, step_downs=1
                ),
                ElectionSnapshot(group=1, voters=3, promised_epoch=9),
            ),
        ),
        shards=(
            ShardSnapshot(
                shard=3, group=1, wal_bytes=4152, checkpoints=2, blocked_checkpoints=1, failed_checkpoints=3
            ),
        ),
        sessions=SessionsSnapshot(
            live=4, memory_bytes=1 << 20, loads=6, evictions_by_reason={"idle": 2}, repeated_appends=5
        ),
        reads=ReadsSnapshot(
            shard_reads=20, failed_shard_reads=1, position_timeouts=2, sql_queries=7, sql_workers_stopped=3
        ),
    )


Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(snapshot: NodeSnapshot) -> Samples:
    text = generate_latest(build_registry(lambda: snapshot)).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[f"headwater_{name}", tuple(sorted(labels.items()))]


def test_a_primary_shows_its_writer_and_each_standby() -> None:
    samples = scrape(node())
    assert value(samples, "appends_total", group="0", acknowledgement="quorum") == 100
    assert value(samples, "append_failures_total", group="0", reason="outcome_unknown") == 2
    assert value(samples, "commits_total", group="0") == 12
    assert value(samples, "writer_queue_entries", group="0") == 5
    assert value(samples, "standby_connected", group="0", standby="node-3") == 0
    assert value(samples, "standby_lag_transactions", group="0", standby="node-2") == 1
    assert value(samples, "standby_lag_bytes", group="0", standby="node-2") == 300
    assert value(samples, "standby_lag_seconds", group="0", standby="node-3") == 8.5
    assert value(samples, "stream_sent_bytes_total", group="0", standby="node-2") == 9000


def test_a_standby_shows_its_own_lag_and_what_it_refused() -> None:
    samples = scrape(node())
    assert value(samples, "replication_lag_transactions", group="1") == 3
    assert value(samples, "replication_lag_bytes", group="1") == 900
    assert value(samples, "replication_lag_seconds", group="1") == 0.25
    assert value(samples, "refused_records_total", group="1", reason="bad_checksum") == 1
    assert value(samples, "resync_received_bytes_total", group="1") == 8192


def test_roles_epochs_and_positions_are_gauges_of_the_group() -> None:
    samples = scrape(node())
    roles = {role: value(samples, "group_role", group="1", role=role) for role in ("primary", "standby", "reader")}
    assert roles == {"primary": 0, "standby": 1, "reader": 0}
    assert value(samples, "group_epoch", group="0") == 4
    assert [value(samples, f"{lsn}_lsn", group="0") for lsn in ("durable", "committed", "applied")] == [12, 11, 10]


def test_a_group_shows_whether_it_is_served_and_by_how_many_voters() -> None:
    samples = scrape(node())
    assert [value(samples, "group_serving", group=group) for group in ("0", "1")] == [1, 0]
    assert [value(samples, "voters", group=group) for group in ("0", "1")] == [3, 3]
    assert value(samples, "voters_connected", group="0") == 2
    assert ("headwater_voters_connected", (("group", "1"),)) not in samples


def test_the_room_on_the_disk_shows_where_it_can_be_told() -> None:
    samples = scrape(node())
    assert value(samples, "filesystem_size_bytes") == 1 << 40
    assert value(samples, "filesystem_available_bytes") == 1 << 38
    unknown = scrape(replace(node(), filesystem_available_bytes=None))
    assert ("headwater_filesystem_available_bytes", ()) not in unknown


def test_elections_show_their_outcomes_seals_and_the_lease() -> None:
    samples = scrape(node())
    outcomes = [value(samples, "elections_total", group="0", outcome=outcome) for outcome in ("won", "lost")]
    assert outcomes == [2, 1]
    assert value(samples, "step_downs_total", group="0") == 1
    assert [value(samples, "promised_epoch", group=group) for group in ("0", "1")] == [4, 9]
    assert [value(samples, "lease_remaining_seconds", group=group) for group in ("0", "1")] == [0.5, 0]


def test_the_control_plane_shows_who_leads_it_and_whether_the_node_drains() -> None:
    samples = scrape(node())
    assert (value(samples, "raft_leader"), value(samples, "node_draining")) == (1, 0)
    assert (value(samples, "map_version"), value(samples, "nominations_total")) == (7, 3)
    other = scrape(replace(node(), node_id="node-3"))
    assert (value(other, "raft_leader"), value(other, "node_draining")) == (0, 1)


def test_shards_sessions_build_and_process_are_there() -> None:
    samples = scrape(node())
    assert value(samples, "wal_size_bytes", group="1", shard="3") == 4152
    assert value(samples, "checkpoints_blocked_total", group="1", shard="3") == 1
    assert value(samples, "checkpoints_failed_total", group="1", shard="3") == 3
    assert value(samples, "sessions_memory_bytes") == 1 << 20
    assert value(samples, "session_evictions_total", reason="idle") == 2
    assert value(samples, "repeated_appends_total") == 5
    assert value(samples, "node_info", cluster="test", node="node-1", version="0.1.0") == 1
    assert samples["process_resident_memory_bytes", ()] > 0


def test_histograms_are_cumulative_and_end_with_everything() -> None:
    samples = scrape(node())
    assert value(samples, "append_duration_seconds_bucket", group="0", le="0.001") == 1
    assert value(samples, "append_duration_seconds_bucket", group="0", le="0.004") == 2
    assert value(samples, "append_duration_seconds_bucket", group="0", le="+Inf") == 3
    assert value(samples, "append_duration_seconds_count", group="0") == 3
    assert value(samples, "append_duration_seconds_sum", group="0") == pytest.approx(9.004)


def test_a_failed_writer_shows() -> None:
    assert value(scrape(node()), "writer_failed", group="0") == 0
    assert value(scrape(node(PrimarySnapshot(failure="the disk is full"))), "writer_failed", group="0") == 1


def test_reads_show_with_what_became_of_them() -> None:
    samples = scrape(node())
    assert value(samples, "shard_reads_total") == 20
    assert value(samples, "shard_read_failures_total") == 1
    assert value(samples, "position_wait_timeouts_total") == 2
    assert value(samples, "sql_queries_total") == 7
    assert value(samples, "sql_workers_stopped_total") == 3
    assert value(samples, "log_disk_reads_total", group="0") == 4


def test_a_scrape_asks_for_the_state_of_that_moment() -> None:
    moments = iter([node(PrimarySnapshot(commits=1)), node(PrimarySnapshot(commits=2))])
    registry = build_registry(lambda: next(moments))
    assert b'headwater_commits_total{group="0"} 1.0' in generate_latest(registry)
    assert b'headwater_commits_total{group="0"} 2.0' in generate_latest(registry)


def test_openmetrics_takes_it_too() -> None:
    families = {
        family.name
        for family in parse_openmetrics(generate_openmetrics(build_registry(node)).decode())  # type: ignore[no-untyped-call] # the library's
    }
    assert {metric.name for metric in CATALOGUE} <= families


def test_every_metric_of_the_catalogue_is_exported_with_exactly_its_labels() -> None:
    text = generate_latest(build_registry(node)).decode()
    # The text format names counters and infos with their suffixes.
    exported = {
        re.sub(r"_(total|info)$", "", family.name): family for family in text_string_to_metric_families(text)
    }
    for metric in CATALOGUE:
        samples = exported[metric.name].samples
        assert samples, metric.name
        assert {tuple(sorted(sample.labels.keys() - {"le"})) for sample in samples} == {
            tuple(sorted(metric.labels))
        }


UNITS = ("seconds", "bytes", "lsn", "entries", "transactions")
SHORTENED = ("_ms", "_millis", "_kb", "_mib", "_mb", "_us", "_minutes", "_percent", "_count", "_sum", "_bucket")


def faults(metric: Metric) -> list[str]:
    """What Prometheus' naming rules say against a metric."""
    found = []
    if not re.fullmatch(r"headwater(_[a-z]+)+", metric.name):
        found.append("the name is lower case, with one prefix")
    if metric.name.endswith(("_total", "_info", *SHORTENED)):
        found.append("suffixes come from the kind, and units are base units in full")
    if metric.kind == "histogram" and not metric.name.endswith(UNITS):
        found.append("a histogram names its unit")
    if any(unit in metric.name and not metric.name.endswith(unit) for unit in ("seconds", "bytes")):
        found.append("the unit stands last")
    if not re.fullmatch(r"[A-Z0-9].*\.", metric.description):
        found.append("the help is a sentence")
    if set(metric.labels) & {"le", "quantile", "job", "instance"}:
        found.append("labels are not those that Prometheus sets")
    if set(metric.labels) & {"reason", "acknowledgement"} & set(metric.name.split("_")):
        found.append("what a label says is not said by the name")
    return found


@pytest.mark.parametrize("metric", CATALOGUE, ids=lambda metric: metric.name)
def test_names_units_labels_and_help_keep_the_conventions(metric: Metric) -> None:
    assert faults(metric) == []


def test_no_two_metrics_share_a_name() -> None:
    assert len({metric.name for metric in CATALOGUE}) == len(CATALOGUE)


@pytest.mark.parametrize(
    ("name", "kind", "description"),
    [
        ("headwater_appends_total", "counter", "Appends."),
        ("headwater_lag_ms", "gauge", "Lag."),
        ("lag_seconds", "gauge", "Lag."),
        ("headwater_append_duration", "histogram", "Time."),
        ("headwater_bytes_sent", "counter", "Sent."),
        ("headwater_lag_seconds", "gauge", ""),
    ],
)
def test_the_rules_find_what_breaks_them(name: str, kind: str, description: str) -> None:
    assert faults(Metric(name, kind, (), description))  # type: ignore[arg-type] # kinds come from the table
