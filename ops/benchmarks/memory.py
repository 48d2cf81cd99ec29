"""What live sessions cost their primary in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agent_core.client import Client
from ops.benchmarks.figures import MEGABYTE, Figures, Goal, Progress, judged, over_runs, unheard
from ops.benchmarks.load import create_sessions, fill, payloads
from ops.benchmarks.node_metrics import RESIDENT_BYTES, SESSIONS_BYTES, SESSIONS_LIVE, read_metrics
from ops.benchmarks.placement import let_lead
from ops.cluster_files import ClusterPlan
from ops.local_cluster import LocalCluster

PRIMARY = "node-1"

GOALS = (Goal("appended_above_empty_mb", at_most=400), Goal("brought_up_above_empty_mb", at_most=400))


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """How memory is measured.

    Attributes:
        sessions: Live sessions.
        session_bytes: Payloads of each.
        entry_bytes: The size of an entry's payload; the default is near the mean of coding agents' transcripts.
        runs: How often it is measured, each time on a new cluster.
    """

    sessions: int = 1000
    session_bytes: int = 250_000
    entry_bytes: int = 2500
    runs: int = 3


async def measure_memory(directory: Path, plan: MemoryPlan, progress: Progress = unheard) -> Figures:
    """Resident memory of the primary above that of the empty daemon, in megabytes of 10^6 bytes.

    Measured twice: after the sessions were appended entry by entry, which leaves the log's tail and SQLite's caches
    in memory too; and after a restart that has brought every session up from its shard. The registry's own
    estimate, which decides about evictions, stands beside it.
    """
    runs = []
    for run in range(plan.runs):

        def show(doing: str, share: float, run: int = run) -> None:
            progress(f"run {run + 1}: {doing}", (run + share) / plan.runs)

        runs.append(await _measure_once(directory / f"{run}", plan, show))
    digits = dict.fromkeys(runs[0], 1) | {"sessions": 0}
    figures: Figures = {
        "session_bytes": _entries(plan) * plan.entry_bytes,
        "entry_bytes": plan.entry_bytes,
        **over_runs(runs, digits),
    }
    return {**figures, "goals": judged(figures, GOALS)}


async def _measure_once(directory: Path, plan: MemoryPlan, progress: Progress) -> dict[str, float]:
    texts = payloads(plan.entry_bytes)
    async with LocalCluster(directory, ClusterPlan(base_port=0)) as cluster:
        await let_lead(cluster, PRIMARY)
        address = cluster.address(PRIMARY)
        empty = await _resident_mb(address.http_address)
        async with Client(address.grpc_address) as client:
            sessions = await create_sessions(client, plan.sessions)
            await fill(client, sessions, texts, _entries(plan), lambda share: progress("appending", share / 2))
            appended = await _resident_mb(address.http_address)
        await cluster.restart(PRIMARY)
        await let_lead(cluster, PRIMARY)
        restarted = await _resident_mb(address.http_address)
        async with Client(address.grpc_address) as client:
            for number, session in enumerate(sessions):
                progress("bringing sessions up", 0.5 + number / len(sessions) / 2)
                await client.get_session(session)
        metrics = await read_metrics(address.http_address)
    loaded = metrics[RESIDENT_BYTES] / MEGABYTE
    return {
        "sessions": metrics[SESSIONS_LIVE],
        "empty_resident_mb": empty,
        "appended_above_empty_mb": appended - empty,
        "restarted_resident_mb": restarted,
        "brought_up_above_empty_mb": loaded - empty,
        "brought_up_above_restarted_mb": loaded - restarted,
        "estimate_mb": metrics[SESSIONS_BYTES] / MEGABYTE,
    }


def _entries(plan: MemoryPlan) -> int:
    """Entries of each session."""
    return max(1, plan.session_bytes // plan.entry_bytes)


async def _resident_mb(http_address: str) -> float:
    return (await read_metrics(http_address))[RESIDENT_BYTES] / MEGABYTE
