"""How fast a standby catches up after an outage."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agent_core.client import Client
from agent_core.database.build import PAGE_SIZE
from agent_core.database.wal import FRAME_SIZE
from ops.benchmarks.figures import MEGABYTE, Figures, Goal, Progress, judged, over_runs, unheard
from ops.benchmarks.load import append_while, create_sessions, payloads, until
from ops.benchmarks.node_metrics import CAPTURED_BYTES, read_metrics
from ops.benchmarks.placement import let_lead
from ops.benchmarks.standby import PRIMARY, STANDBY, WITHIN_SECONDS, StandbyWatch, stop_standby
from ops.cluster_files import ClusterPlan
from ops.local_cluster import LocalCluster

MEASURE_WRITTEN_SECONDS = 0.25

GOALS = (Goal("pages_mb_per_second", at_least=50),)


@dataclass(frozen=True, slots=True)
class CatchUpPlan:
    """How catching up is measured.

    Attributes:
        megabytes: Pages, in 10^6 bytes, that the primary logs while the standby is down.
        writers: Sessions that append meanwhile.
        entry_bytes: The size of an entry's payload.
        runs: How often it is measured.
    """

    megabytes: float = 200.0
    writers: int = 64
    entry_bytes: int = 500
    runs: int = 3


async def measure_catch_up(directory: Path, plan: CatchUpPlan, progress: Progress = unheard) -> Figures:
    """Pages per second from a standby's hello after an outage until it has applied everything.

    Pages are what the primary's transactions wrote, each time one was written. Nothing is written while the
    standby catches up. The start of its process, about a second of Python, is told apart.
    """
    runs = []
    async with (
        LocalCluster(directory, ClusterPlan(base_port=0)) as cluster,
        Client(cluster.address(PRIMARY).grpc_address) as client,
    ):
        await let_lead(cluster, PRIMARY)
        write = partial(
            append_while, client, await create_sessions(client, plan.writers), payloads(plan.entry_bytes)
        )
        for run in range(plan.runs):
            await stop_standby(cluster)
            written = await _write_pages(
                cluster, write, plan.megabytes, partial(progress, f"run {run + 1}: writing")
            )
            progress(f"run {run + 1}: catching up", 1.0)
            start_seconds, seconds = await _catch_up(cluster)
            runs.append(
                {
                    "pages_mb_per_second": written / seconds,
                    "pages_mb": written,
                    "seconds": seconds,
                    "seconds_until_hello": start_seconds,
                }
            )
    digits = {"pages_mb_per_second": 1, "pages_mb": 1, "seconds": 3, "seconds_until_hello": 2}
    figures: Figures = {"writers": plan.writers, "entry_bytes": plan.entry_bytes, **over_runs(runs, digits)}
    return {**figures, "goals": judged(figures, GOALS)}


async def _write_pages(
    cluster: LocalCluster,
    write_while: Callable[[Callable[[], bool]], Coroutine[object, object, object]],
    megabytes: float,
    on_share: Callable[[float], None],
) -> float:
    """Append until the primary has written that many megabytes of pages; returns how many they are."""
    http_address = cluster.address(PRIMARY).http_address
    before = (await read_metrics(http_address))[CAPTURED_BYTES]
    written = 0.0

    async def enough() -> bool:
        nonlocal written
        frames = (await read_metrics(http_address))[CAPTURED_BYTES] - before
        written = frames / FRAME_SIZE * PAGE_SIZE / MEGABYTE
        on_share(min(1.0, written / megabytes))
        return written >= megabytes

    writing = asyncio.create_task(write_while(lambda: written < megabytes))
    try:
        await until(enough, every_seconds=MEASURE_WRITTEN_SECONDS, within_seconds=WITHIN_SECONDS)
        await writing
    finally:
        writing.cancel()
    await enough()
    return written


async def _catch_up(cluster: LocalCluster) -> tuple[float, float]:
    """Start the standby; returns the seconds until its hello, and from there until it has applied everything."""
    async with StandbyWatch(cluster) as watch:
        started = time.perf_counter()
        starting = asyncio.create_task(cluster.start_node(STANDBY))
        try:
            await watch.until_connected()
            said_hello = time.perf_counter()
            await watch.until_caught_up()
            ended = time.perf_counter()
        finally:
            await starting
    return said_hello - started, ended - said_hello
