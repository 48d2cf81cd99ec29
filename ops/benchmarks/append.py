"""Appends per second and their latency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agent_core.client import Client
from ops.benchmarks.figures import Figures, Goal, Progress, judged, over_runs, percentile, unheard
from ops.benchmarks.load import append_for, create_sessions, payloads
from ops.benchmarks.placement import let_lead
from ops.cluster_files import ClusterPlan
from ops.local_cluster import LocalCluster

PRIMARY = "node-1"
WARM_SECONDS = 1.0
"""How long connections are opened and caches filled before appends count."""

ENTRY_BYTES = 500
GOALS = {
    64: (Goal("appends_per_second", at_least=7500, aim=15_000),),
    1: (Goal("p50_ms", at_most=2, aim=1),),
}
"""By the number of writers, for entries of `ENTRY_BYTES`; other loads have none."""


@dataclass(frozen=True, slots=True)
class AppendPlan:
    """How appends are measured.

    Attributes:
        writers: Sessions that append at once.
        seconds: The length of each run.
        runs: How often it is measured.
        entry_bytes: The size of an entry's payload.
        groups: Shard groups of the cluster; None: its default.
    """

    writers: int = 64
    seconds: float = 5.0
    runs: int = 3
    entry_bytes: int = ENTRY_BYTES
    groups: int | None = None


async def measure_appends(directory: Path, plan: AppendPlan, progress: Progress = unheard) -> Figures:
    """Appends per second and their latency, each writer waiting for its own acknowledgement.

    One node leads every group, and is the one that the client asks: no append is redirected or forwarded.
    """
    texts = payloads(plan.entry_bytes)
    settings = {} if plan.groups is None else {"cluster": {"shard_group_count": plan.groups}}
    runs = []
    async with (
        LocalCluster(directory, ClusterPlan(base_port=0, settings=settings)) as cluster,
        Client(cluster.address(PRIMARY).grpc_address) as client,
    ):
        groups = cluster.configurations[PRIMARY].cluster.shard_group_count
        await let_lead(cluster, PRIMARY)
        sessions = await create_sessions(client, plan.writers)
        await append_for(client, sessions, texts, WARM_SECONDS)
        for run in range(plan.runs):
            progress(f"run {run + 1}", run / plan.runs)
            await let_lead(cluster, PRIMARY)
            latencies = await append_for(client, sessions, texts, plan.seconds)
            runs.append(
                {
                    "appends_per_second": len(latencies) / plan.seconds,
                    "p50_ms": percentile(latencies, 0.5) * 1e3,
                    "p99_ms": percentile(latencies, 0.99) * 1e3,
                }
            )
    figures: Figures = {
        "writers": plan.writers,
        "entry_bytes": plan.entry_bytes,
        "groups": groups,
        **over_runs(runs, {"appends_per_second": 0, "p50_ms": 2, "p99_ms": 2}),
    }
    goals = GOALS.get(plan.writers, ()) if plan.entry_bytes == ENTRY_BYTES else ()
    return {**figures, "goals": judged(figures, goals)}


async def measure_group_counts(
    directory: Path, plan: AppendPlan, counts: Sequence[int], progress: Progress = unheard
) -> Figures:
    """`measure_appends` with each of several counts of shard groups, on a cluster each, one after another."""
    figures: Figures = {}
    for place, count in enumerate(counts):

        def show(doing: str, share: float, place: int = place, count: int = count) -> None:
            progress(f"{count} groups, {doing}", (place + share) / len(counts))

        figures[f"groups_{count}"] = await measure_appends(
            directory / f"{count}", replace(plan, groups=count), show
        )
    return figures
