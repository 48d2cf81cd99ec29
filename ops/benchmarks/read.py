"""What `headwater bench read` measures: how fast a standby answers, and whether the primary feels its readers.

One cluster of real nodes, started on a large data set, serves all of it; what is compared is measured in turns, so
that what else the machine does falls on both sides alike.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

from ops.benchmarks.affinity import Cores, pin, pin_node
from ops.benchmarks.figures import Figures, Goal, Progress, judged, unheard
from ops.benchmarks.placement import let_lead
from ops.benchmarks.read_aggregate import measure_aggregate
from ops.benchmarks.read_beside_queries import measure_latency_beside_queries
from ops.benchmarks.read_data import ReadData, prepare
from ops.benchmarks.read_load import LoadPlan, measure_appends_beside_reads
from ops.benchmarks.read_pages import measure_pages
from ops.cluster_files import ClusterPlan
from ops.local_cluster import LocalCluster

PRIMARY, STANDBY, OTHER = "node-1", "node-2", "node-3"


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """How reading is measured.

    Attributes:
        data: What there is to read.
        requests: For each page, and filter.
        aggregates: How often the aggregate is asked for, with each engine.
        load: The appends, and the reads and queries beside them.
    """

    data: ReadData = field(default_factory=ReadData)
    requests: int = 200
    aggregates: int = 5
    load: LoadPlan = field(default_factory=LoadPlan)


GOALS = (
    Goal("session_list.worst_p50_ms", 20),
    Goal("session_list.worst_p99_ms", 60),
    Goal("transcript.p50_ms", 10),
    Goal("aggregate.headwater_seconds", 1.0),
    Goal("aggregate.share_of_sqlite", 0.5),
    Goal("appends_beside_queries.ratio_to_idle_work.append_p50_ms", 1.25),
    Goal("appends_beside_queries.ratio_to_idle_work.append_p99_ms", 1.5),
    Goal("appends_beside_queries.ratio_to_idle_work.visible_p50_ms", 1.25),
    Goal("appends_beside_queries.ratio_to_idle_work.visible_p99_ms", 1.5),
    Goal("appends_beside_reads.loss_share", 0.10),
)


async def measure_reading(directory: Path, plan: ReadPlan, progress: Progress = unheard) -> Figures:
    """Everything about reading from a standby, with its goals."""
    cluster = LocalCluster(directory, ClusterPlan(base_port=0))
    configurations = cluster.configurations
    await asyncio.to_thread(
        prepare, list(configurations.values()), plan.data, lambda share: progress("writing shards", 0.2 * share)
    )
    cores = Cores.of_this_machine()
    async with cluster:
        await let_lead(cluster, PRIMARY)
        with ProcessPoolExecutor(
            plan.load.connections, get_context("spawn"), initializer=pin, initargs=(cores.readers,)
        ) as readers:
            standby = cluster.address(STANDBY)
            figures: Figures = {
                "sessions": plan.data.sessions,
                "entries": plan.data.entries,
                "shards": configurations[STANDBY].cluster.shard_count,
                **await measure_pages(standby.http_address, readers, plan.requests, progress),
                "aggregate": await measure_aggregate(
                    standby.http_address,
                    configurations[STANDBY].node.data_directory,
                    configurations[STANDBY].cluster_map.layout,
                    plan.aggregates,
                    progress,
                ),
                "appends_beside_queries": await measure_latency_beside_queries(
                    cluster.address(PRIMARY).grpc_address, standby.grpc_address, plan.load, progress
                ),
            }
            if cores.apart:
                for node_id, own in ((PRIMARY, cores.primary), (STANDBY, cores.standby), (OTHER, cores.rest)):
                    pin_node(cluster.pid(node_id), own)
                pin(cores.rest)
            figures["appends_beside_reads"] = await measure_appends_beside_reads(
                cluster.address(PRIMARY).grpc_address, standby.http_address, readers, plan.load, progress
            )
            figures["pinned"] = cores.apart
    return {**figures, "goals": judged(figures, GOALS)}
