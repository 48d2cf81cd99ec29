"""Makes `headwater.json`, a Grafana dashboard over the metrics that Prometheus scrapes from nodes.

`make dashboard` writes the file, `make check` compares it: to change the dashboard, change this. To use it, import
the file into Grafana and choose the Prometheus that `ops/prometheus` configures.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import count
from string import ascii_uppercase

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common, dashboard

SOURCE = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")
CLUSTER = 'job=~"$job"'
GROUP = f'{CLUSTER}, group=~"$group"'

STAT_WIDTH, STAT_HEIGHT = 4, 4
CHART_WIDTH, CHART_HEIGHT = 8, 8


@dataclass(frozen=True, slots=True)
class Chart:
    """One panel over time.

    Attributes:
        title: What is shown, in a few words.
        unit: Grafana's name of the unit.
        queries: Expressions, each with the legend of its series.
        description: What a reader should know to judge it.
    """

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    description: str


STATS: tuple[tuple[str, str, str], ...] = (
    ("Nodes up", "none", f"sum(up{{{CLUSTER}}})"),
    ("Groups served", "none", f"sum(job_group:headwater_group_serving:max{{{GROUP}}})"),
    ("Appends", "ops", f"sum(job_group:headwater_appends:rate1m{{{GROUP}}})"),
    ("Append latency p99", "s", f"max(job_group:headwater_append_duration_seconds:p99_5m{{{GROUP}}})"),
    ("Largest lag", "s", f"max(job_group_standby:headwater_standby_lag_seconds:max{{{GROUP}}})"),
    ("Least room on a disk", "percentunit", f"min(job_instance:headwater_filesystem_available:ratio{{{CLUSTER}}})"),
)
"""The first row: title, unit and expression."""

ROWS: tuple[tuple[str, tuple[Chart, ...]], ...] = (
    (
        "Appends",
        (
            Chart(
                "Acknowledged",
                "ops",
                ((f"job_group:headwater_appends:rate1m{{{GROUP}}}", "group {{group}}"),),
                "Entries acknowledged to their callers.",
            ),
            Chart(
                "Latency",
                "s",
                (
                    (f"job_group:headwater_append_duration_seconds:p50_5m{{{GROUP}}}", "group {{group}} p50"),
                    (f"job_group:headwater_append_duration_seconds:p99_5m{{{GROUP}}}", "group {{group}} p99"),
                ),
                "From an append's arrival at the primary to its acknowledgement.",
            ),
            Chart(
                "Failures",
                "ops",
                ((f"job_group_reason:headwater_append_failures:rate1m{{{GROUP}}}", "group {{group}} {{reason}}"),),
                "Entries whose callers got an error. outcome_unknown: a quorum did not answer in time.",
            ),
            Chart(
                "Entries in a batch",
                "short",
                (
                    (
                        f"sum by (group) (rate(headwater_batch_entries_sum{{{GROUP}}}[$__rate_interval]))"
                        f" / sum by (group) (rate(headwater_batch_entries_count{{{GROUP}}}[$__rate_interval]))",
                        "group {{group}}",
                    ),
                ),
                "How many entries share one fsync, on average.",
            ),
            Chart(
                "Waiting",
                "bytes",
                (
                    (f"headwater_writer_queue_bytes{{{GROUP}}}", "group {{group}} for the writer"),
                    (f"headwater_uncommitted_bytes{{{GROUP}}}", "group {{group}} for a quorum"),
                ),
                "Both are bounded by limits.queue_bytes and limits.uncommitted_bytes.",
            ),
            Chart(
                "fsync of the log, p99",
                "s",
                ((f"job_group:headwater_log_fsync_duration_seconds:p99_5m{{{GROUP}}}", "group {{group}}"),),
                "The primary's disk. An append cannot be faster than this.",
            ),
        ),
    ),
    (
        "Replication",
        (
            Chart(
                "Lag",
                "s",
                (
                    (
                        f"job_group_standby:headwater_standby_lag_seconds:max{{{GROUP}}}",
                        "{{standby}} group {{group}}",
                    ),
                ),
                "Age of what each standby shows, as the primary measures it.",
            ),
            Chart(
                "Lag in bytes",
                "bytes",
                ((f"job_group_standby:headwater_standby_lag_bytes:max{{{GROUP}}}", "{{standby}} group {{group}}"),),
                "Log that each standby has not applied yet.",
            ),
            Chart(
                "Lag as standbys see it",
                "s",
                ((f"headwater_replication_lag_seconds{{{GROUP}}}", "{{instance}} group {{group}}"),),
                "Measured by each standby for itself; goes on growing while the primary is gone.",
            ),
            Chart(
                "Sent to standbys",
                "Bps",
                (
                    (
                        f"sum by (standby) (rate(headwater_stream_sent_bytes_total{{{GROUP}}}[$__rate_interval]))",
                        "{{standby}}",
                    ),
                ),
                "Records of the log.",
            ),
            Chart(
                "Voters connected",
                "none",
                (
                    (f"max by (group) (headwater_voters_connected{{{GROUP}}})", "group {{group}}"),
                    (f"floor(max by (group) (headwater_voters{{{GROUP}}}) / 2) + 1", "group {{group}} needs"),
                ),
                "The primary counts itself. Below the line nothing can be committed.",
            ),
            Chart(
                "Resyncs and refused records",
                "short",
                (
                    (f"increase(headwater_resyncs_total{{{GROUP}}}[$__rate_interval])", "{{instance}} resyncs"),
                    (
                        f"increase(headwater_refused_records_total{{{GROUP}}}[$__rate_interval]) > 0",
                        "{{instance}} {{reason}}",
                    ),
                ),
                "Both should be rare. A refused record is fetched again.",
            ),
        ),
    ),
    (
        "Storage",
        (
            Chart(
                "Largest WAL",
                "bytes",
                ((f"job_instance_group:headwater_wal_size_bytes:max{{{GROUP}}}", "{{instance}} group {{group}}"),),
                "Begins anew past storage.checkpoint_mib and keeps its size; grows while a reader is in the way.",
            ),
            Chart(
                "Checkpoints",
                "ops",
                (
                    (
                        f"sum by (instance) (rate(headwater_checkpoints_total{{{GROUP}}}[$__rate_interval]))",
                        "{{instance}}",
                    ),
                    (
                        f"sum by (instance) (increase(headwater_checkpoints_blocked_total{{{GROUP}}}[5m])) > 0",
                        "{{instance}} blocked, in 5 minutes",
                    ),
                ),
                "Those that moved all of a WAL, and those that a reader kept from it.",
            ),
            Chart(
                "Shards and log",
                "bytes",
                (
                    (f"sum by (instance) (headwater_shard_size_bytes{{{GROUP}}})", "{{instance}} shards"),
                    (f"sum by (instance) (headwater_log_size_bytes{{{GROUP}}})", "{{instance}} log"),
                ),
                "What the node keeps on its disk, WALs apart.",
            ),
        ),
    ),
    (
        "Sessions and processes",
        (
            Chart(
                "Live sessions",
                "short",
                (
                    (f"headwater_sessions_live{{{CLUSTER}}}", "{{instance}}"),
                    (f"headwater_subscribers{{{CLUSTER}}}", "{{instance}} subscribers"),
                ),
                "Sessions whose transcripts are in memory.",
            ),
            Chart(
                "Memory",
                "bytes",
                (
                    (f"process_resident_memory_bytes{{{CLUSTER}}}", "{{instance}}"),
                    (f"headwater_sessions_memory_bytes{{{CLUSTER}}}", "{{instance}} transcripts"),
                ),
                "Transcripts are bounded by sessions.memory_budget_mib.",
            ),
            Chart(
                "CPU",
                "short",
                ((f"rate(process_cpu_seconds_total{{{CLUSTER}}}[$__rate_interval])", "{{instance}}"),),
                "Cores in use.",
            ),
        ),
    ),
)


def build() -> str:
    """The dashboard as JSON, ending with a line feed."""
    built = (
        builders.Dashboard("Headwater")
        .uid("headwater")
        .description("Appends, replication and storage of a Headwater cluster.")
        .tags(["headwater"])
        .refresh("10s")
        .time("now-1h", "now")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .with_variable(builders.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(_variable("job", "Cluster", "label_values(headwater_node_info, job)"))
        .with_variable(_variable("group", "Group", f"label_values(headwater_group_epoch{{{CLUSTER}}}, group)"))
        .annotation(
            builders.AnnotationQuery()
            .name("Fail-overs")
            .datasource(SOURCE)
            .icon_color("orange")
            .enable(True)
            .expr(f"max by (group) (changes(headwater_group_epoch{{{GROUP}}}[$__interval])) > 0")
        )
    )
    numbers = count(1)
    for title, unit, expression in STATS:
        built.with_panel(_stat(title, unit, expression).id(next(numbers)))
    for title, charts in ROWS:
        built.with_row(builders.Row(title).id(next(numbers)))
        for chart in charts:
            built.with_panel(_panel(chart).id(next(numbers)))
    return JSONEncoder(sort_keys=True, indent=2).encode(built.build()) + "\n"


def _variable(name: str, label: str, query: str) -> builders.QueryVariable:
    return (
        builders.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(query)
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
    )


def _stat(title: str, unit: str, expression: str) -> stat.Panel:
    return (
        stat.Panel()
        .title(title)
        .datasource(SOURCE)
        .unit(unit)
        .span(STAT_WIDTH)
        .height(STAT_HEIGHT)
        .graph_mode(common.BigValueGraphMode.AREA)
        .with_target(prometheus.Dataquery().expr(expression).ref_id("A"))
    )


def _panel(chart: Chart) -> timeseries.Panel:
    panel = (
        timeseries.Panel()
        .title(chart.title)
        .description(chart.description)
        .datasource(SOURCE)
        .unit(chart.unit)
        .min(0)
        .span(CHART_WIDTH)
        .height(CHART_HEIGHT)
        .fill_opacity(8)
        .legend(
            common_builders.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI))
    )
    for letter, (expression, legend) in zip(ascii_uppercase, chart.queries, strict=False):
        panel.with_target(prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(letter))
    return panel


if __name__ == "__main__":
    sys.stdout.write(build())
