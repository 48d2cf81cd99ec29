"""What an append costs by the length of its session's transcript."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

from agent_core.client import Client
from ops.benchmarks.figures import Figures, Goal, Progress, judged, over_runs, percentile, unheard
from ops.benchmarks.load import create_sessions, fill, payloads
from ops.benchmarks.placement import let_lead
from ops.cluster_files import ClusterPlan
from ops.local_cluster import LocalCluster

SESSIONS_OF_EACH = 16
ENTRY_BYTES = 500
PRIMARY = "node-1"

GOALS = (Goal("ratio", at_most=1.1),)


@dataclass(frozen=True, slots=True)
class LengthPlan:
    """How the cost is measured.

    Attributes:
        short: Entries of a short transcript.
        long: Entries of a long one.
        pairs: Appends to each kind in one run.
        runs: How often it is measured.
    """

    short: int = 10
    long: int = 10_000
    pairs: int = 1000
    runs: int = 5


async def measure_length(directory: Path, plan: LengthPlan, progress: Progress = unheard) -> Figures:
    """The median latency of an append to a long transcript as a multiple of that to a short one.

    One append at a time, to the two kinds in turn, so that whatever else the machine does meets both alike. A run
    takes new short sessions, which do not grow by more than a few entries.
    """
    texts = payloads(ENTRY_BYTES)
    runs = []
    async with (
        LocalCluster(directory, ClusterPlan(base_port=0)) as cluster,
        Client(cluster.address(PRIMARY).grpc_address) as client,
    ):
        await let_lead(cluster, PRIMARY)
        long = await create_sessions(client, SESSIONS_OF_EACH)
        await fill(client, long, texts, plan.long, lambda share: progress("long transcripts", share))
        for run in range(plan.runs):
            progress(f"run {run + 1}", run / plan.runs)
            await let_lead(cluster, PRIMARY)
            short = await create_sessions(client, max(SESSIONS_OF_EACH, plan.pairs // max(1, plan.short // 2)))
            await fill(client, short, texts, plan.short)
            seconds: tuple[list[float], list[float]] = ([], [])
            for pair in islice(zip(cycle(short), cycle(long)), plan.pairs):
                for session, taken in zip(pair, seconds, strict=True):
                    started = time.perf_counter()
                    await client.append(session, "message", texts[len(taken) % len(texts)])
                    taken.append(time.perf_counter() - started)
            short_ms, long_ms = (percentile(taken, 0.5) * 1e3 for taken in seconds)
            runs.append({"ratio": long_ms / short_ms, "short_p50_ms": short_ms, "long_p50_ms": long_ms})
    figures: Figures = {
        "short_entries": plan.short,
        "long_entries": plan.long,
        "pairs": plan.pairs,
        **over_runs(runs, {"ratio": 3, "short_p50_ms": 3, "long_p50_ms": 3}),
    }
    return {**figures, "goals": judged(figures, GOALS)}
