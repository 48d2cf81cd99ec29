"""What a resync sends, and how long it takes."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc.aio

from agent_core.client import Client
from agent_core.database.build import PAGE_SIZE, open_for_writing
from agent_core.database.pages import PAGE_HASH_BYTES
from agent_core.database.schema import read_position, set_position, shard_path
from agent_core.position import Position
from ops.benchmarks.figures import MEGABYTE, Figures, Goal, Progress, judged, over_runs, unheard
from ops.benchmarks.load import create_sessions, fill, payloads, until
from ops.benchmarks.node_metrics import RESYNC_BYTES, RESYNCS, read_metrics
from ops.benchmarks.placement import let_lead
from ops.benchmarks.standby import ASK_SECONDS, PRIMARY, STANDBY, WITHIN_SECONDS, stop_standby
from ops.cluster_files import ClusterPlan
from ops.local_cluster import LocalCluster
from ops.verify import compare_nodes

SESSIONS = 64
ENTRY_BYTES = 3800
"""A page holds one such entry, so changing entries changes as many pages."""

GOALS = (Goal("sent_share", at_most=0.05),)

AHEAD_BY = 1_000_000
"""How far past the log the standby's shard claims to be; no log goes on from there."""


@dataclass(frozen=True, slots=True)
class ResyncPlan:
    """How a resync is measured.

    Attributes:
        megabytes: Size of the shard, in 10^6 bytes.
        differing_share: The share of its pages that differ, from 0 to 1.
        runs: How often it is measured.
    """

    megabytes: float = 200.0
    differing_share: float = 0.01
    runs: int = 3


async def measure_resync(directory: Path, plan: ResyncPlan, progress: Progress = unheard) -> Figures:
    """Bytes that the resync of one shard sends in both directions, as a share of the shard, and its seconds.

    The standby's shard is changed while the standby is down, as if it had written transactions that nobody else
    has. The seconds begin with the start of the standby's process.
    """
    entries = max(1, round(plan.megabytes * MEGABYTE / PAGE_SIZE / SESSIONS))
    settings = {"cluster": {"shard_count": 1}}
    runs = []
    async with (
        LocalCluster(directory, ClusterPlan(base_port=0, settings=settings)) as cluster,
        Client(cluster.address(PRIMARY).grpc_address) as client,
    ):
        await let_lead(cluster, PRIMARY)
        sessions = await create_sessions(client, SESSIONS)
        await fill(client, sessions, payloads(ENTRY_BYTES), entries, partial(progress, "writing the shard"))
        for run in range(plan.runs):
            progress(f"run {run + 1}", run / plan.runs)
            await stop_standby(cluster)
            changed = await asyncio.to_thread(diverge, _shard_file(cluster), plan.differing_share)
            shard_bytes = _shard_file(cluster).stat().st_size
            received, seconds = await _resync(cluster)
            hashes = shard_bytes // PAGE_SIZE * PAGE_HASH_BYTES
            runs.append(
                {
                    "sent_share": (received + hashes) / shard_bytes,
                    "differing_share": changed * PAGE_SIZE / shard_bytes,
                    "shard_mb": shard_bytes / MEGABYTE,
                    "pages_sent_mb": received / MEGABYTE,
                    "hashes_sent_mb": hashes / MEGABYTE,
                    "seconds_from_process_start": seconds,
                }
            )
        identical = await _identical(cluster)
    digits = {"sent_share": 4, "differing_share": 4, "shard_mb": 1, "pages_sent_mb": 2, "hashes_sent_mb": 2}
    figures = over_runs(runs, {**digits, "seconds_from_process_start": 2})
    return {**figures, "identical": identical, "goals": judged(figures, GOALS)}


def diverge(path: Path, share: float) -> int:
    """Change a share of a stopped shard's pages and put it ahead of its log; returns how many pages changed."""
    connection = open_for_writing(path)
    try:
        connection.execute("BEGIN IMMEDIATE")
        every = max(1, round(1 / share))
        changed = connection.execute("UPDATE entries SET kind = 'changed' WHERE id % ? = 0", (every,)).rowcount
        position = read_position(connection)
        assert position is not None, "the shard has its tables"
        set_position(connection, Position(position.epoch, position.lsn + AHEAD_BY), 0)
        connection.execute("COMMIT")
    finally:
        connection.close()
    return changed + 1


def _shard_file(cluster: LocalCluster) -> Path:
    configuration = cluster.configurations[STANDBY]
    return shard_path(configuration.node.data_directory, configuration.cluster_map.layout.shard_file_name(0))


async def _resync(cluster: LocalCluster) -> tuple[float, float]:
    """Start the standby and wait for its resync; returns the bytes of pages received, and the seconds."""
    address = cluster.address(STANDBY).http_address
    started = time.perf_counter()
    starting = asyncio.create_task(cluster.start_node(STANDBY))

    async def resynced() -> bool:
        try:
            return (await read_metrics(address))[RESYNCS] > 0
        except OSError:  # the process is still starting
            return False

    try:
        await until(resynced, every_seconds=ASK_SECONDS, within_seconds=WITHIN_SECONDS)
        seconds = time.perf_counter() - started
    finally:
        await starting
    return (await read_metrics(address))[RESYNC_BYTES], seconds


async def _identical(cluster: LocalCluster) -> bool:
    """Whether both nodes' shards are the same, page by page."""
    async with (
        grpc.aio.insecure_channel(cluster.address(PRIMARY).grpc_address) as primary,
        grpc.aio.insecure_channel(cluster.address(STANDBY).grpc_address) as standby,
    ):
        comparisons = await compare_nodes({PRIMARY: primary, STANDBY: standby})
    return all(comparison.problem is None for comparison in comparisons)
