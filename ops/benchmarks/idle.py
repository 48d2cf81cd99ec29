"""What the processes of a cluster take while nobody asks for anything: elections, heartbeats, metrics, Python."""

from __future__ import annotations

import asyncio
import time

from ops.benchmarks.figures import Figures
from ops.benchmarks.node_metrics import CPU_SECONDS, read_metrics
from ops.local_cluster import LocalCluster

SETTLE_SECONDS = 2.0
"""How long a cluster rests before it counts as idle."""


async def measure_idle(cluster: LocalCluster, seconds: float) -> Figures:
    """The share of one core that each node's process takes, and the largest of them."""
    await asyncio.sleep(SETTLE_SECONDS)
    before = await _cpu_seconds(cluster)
    began = time.monotonic()
    await asyncio.sleep(seconds)
    after, passed = await _cpu_seconds(cluster), time.monotonic() - began
    shares = {node: round((after[node] - before[node]) / passed, 4) for node in after}
    return {"cpu_share_worst": max(shares.values()), "cpu_share_by_node": shares}


async def _cpu_seconds(cluster: LocalCluster) -> dict[str, float]:
    return {node.node_id: (await read_metrics(node.http_address))[CPU_SECONDS] for node in cluster.addresses}
