"""Appends per second and their latency."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agent_core.client import Client
from ops.benchmarks.figures import Figures, Progress, over_runs, percentile, unheard
from ops.benchmarks.load import append_for, create_sessions, payloads
from ops.cluster_files import ClusterPlan
from ops.local_cluster import LocalCluster

WARM_SECONDS = 1.0
"""How long connections are opened and caches filled before appends count."""


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
    entry_bytes: int = 500
    groups: int | None = None


async def measure_appends(directory: Path, plan: AppendPlan, progress: Progress = unheard) -> Figures:
    """Appends per second and their latency, each writer waiting for its own acknowledgement."""
    texts = payloads(plan.entry_bytes)
    settings = {} if plan.groups is None else {"cluster": {"shard_group_count": plan.groups}}
    runs = []
    async with (
        LocalCluster(directory, ClusterPlan(base_port=0, settings=settings)) as cluster,
        Client(cluster.address("node-1").grpc_address) as client,
    ):
        groups = cluster.configurations["node-1"].cluster.shard_group_count
        sessions = await create_sessions(client, plan.writers)
        await append_for(client, sessions, texts, WARM_SECONDS)
        for run in range(plan.runs):
            progress(f"run {run + 1}", run / plan.runs)
            latencies = await append_for(client, sessions, texts, plan.seconds)
            runs.append(
                {
                    "appends_per_second": len(latencies) / plan.seconds,
                    "p50_ms": percentile(latencies, 0.5) * 1e3,
                    "p99_ms": percentile(latencies, 0.99) * 1e3,
                }
            )
    return {
        "writers": plan.writers,
        "entry_bytes": plan.entry_bytes,
        "groups": groups,
        **over_runs(runs, {"appends_per_second": 0, "p50_ms": 2, "p99_ms": 2}),
    }
