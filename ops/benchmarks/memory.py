"""What live sessions cost their primary in memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agent_core.client import Client
from ops.benchmarks.figures import MEGABYTE, Figures, Progress, unheard
from ops.benchmarks.load import create_sessions, fill, payloads
from ops.benchmarks.node_metrics import RESIDENT_BYTES, SESSIONS_BYTES, SESSIONS_LIVE, read_metrics
from ops.benchmarks.placement import let_lead
from ops.cluster_files import ClusterPlan
from ops.local_cluster import LocalCluster

PRIMARY = "node-1"


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """How memory is measured.

    Attributes:
        sessions: Live sessions.
        session_bytes: Payloads of each.
        entry_bytes: The size of an entry's payload; the default is near the mean of coding agents' transcripts.
    """

    sessions: int = 1000
    session_bytes: int = 250_000
    entry_bytes: int = 2500


async def measure_memory(directory: Path, plan: MemoryPlan, progress: Progress = unheard) -> Figures:
    """Resident memory of the primary above that of the empty daemon, in megabytes of 10^6 bytes.

    Measured twice: after the sessions were appended entry by entry, which leaves the log's tail and SQLite's caches
    in memory too; and after a restart that has brought every session up from its shard. The registry's own
    estimate, which decides about evictions, stands beside it.
    """
    texts = payloads(plan.entry_bytes)
    entries = max(1, plan.session_bytes // plan.entry_bytes)
    async with LocalCluster(directory, ClusterPlan(base_port=0)) as cluster:
        await let_lead(cluster, PRIMARY)
        address = cluster.address(PRIMARY)
        empty = await _resident_mb(address.http_address)
        async with Client(address.grpc_address) as client:
            sessions = await create_sessions(client, plan.sessions)
            await fill(client, sessions, texts, entries, partial(progress, "appending"))
            appended = await _resident_mb(address.http_address)
        await cluster.restart(PRIMARY)
        await let_lead(cluster, PRIMARY)
        restarted = await _resident_mb(address.http_address)
        async with Client(address.grpc_address) as client:
            for number, session in enumerate(sessions):
                progress("bringing sessions up", number / len(sessions))
                await client.get_session(session)
        metrics = await read_metrics(address.http_address)
    loaded, estimate = metrics[RESIDENT_BYTES] / MEGABYTE, metrics[SESSIONS_BYTES] / MEGABYTE
    return {
        "sessions": int(metrics[SESSIONS_LIVE]),
        "session_bytes": entries * plan.entry_bytes,
        "entry_bytes": plan.entry_bytes,
        "empty_resident_mb": round(empty, 1),
        "appended_above_empty_mb": round(appended - empty, 1),
        "restarted_resident_mb": round(restarted, 1),
        "brought_up_above_empty_mb": round(loaded - empty, 1),
        "brought_up_above_restarted_mb": round(loaded - restarted, 1),
        "estimate_mb": round(estimate, 1),
    }


async def _resident_mb(http_address: str) -> float:
    return (await read_metrics(http_address))[RESIDENT_BYTES] / MEGABYTE
