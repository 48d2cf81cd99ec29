"""What `headwater bench dashboards` measures: whether heavy queries on a standby are felt by those who append."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio

from agent_core.client import Client, Reader
from agent_core.errors import HeadwaterError
from agent_core.rpc.read_pb2_grpc import ReadingStub
from agent_core.rpc.replication_pb2 import Position
from agent_core.rpc.session_pb2 import GetSessionRequest
from ops.benchmarks.figures import Figures, Progress, percentile, unheard
from ops.benchmarks.load import payloads
from ops.benchmarks.placement import let_lead
from ops.cluster_files import ClusterPlan
from ops.local_cluster import LocalCluster

HEAVY_SQL = """
SELECT a.kind, count(*), sum(length(a.payload)), count(DISTINCT b.payload)
FROM entries a JOIN entries b ON b.session_id = a.session_id GROUP BY ALL
"""
QUERY_SECONDS = 2
SESSIONS = 64


@dataclass(slots=True)
class Phase:
    """What was measured while there were heavy queries, or while there were none."""

    append_seconds: list[float] = field(default_factory=list)
    visible_seconds: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        """Medians and tails in milliseconds."""
        return {
            "append_p50_ms": _milliseconds(self.append_seconds, 0.5),
            "append_p99_ms": _milliseconds(self.append_seconds, 0.99),
            "visible_p50_ms": _milliseconds(self.visible_seconds, 0.5),
            "visible_p99_ms": _milliseconds(self.visible_seconds, 0.99),
        }


async def measure_dashboards(
    directory: Path, *, rate: int, seconds: float, rounds: int, queries: int, progress: Progress = unheard
) -> Figures:
    """Append latency, and time until an entry is visible on a standby, with and without heavy queries on it.

    Rounds of both kinds alternate in one run, so that what else the machine does falls on both alike.
    """
    without, heavy = Phase(), Phase()
    texts = payloads(500)
    async with (
        LocalCluster(directory, ClusterPlan(base_port=0)) as cluster,
        Client(cluster.address("node-1").grpc_address) as client,
        grpc.aio.insecure_channel(cluster.address("node-2").grpc_address) as channel,
        Reader(cluster.address("node-2").grpc_address, timeout_seconds=2 * QUERY_SECONDS) as reader,
    ):
        await let_lead(cluster, "node-1")
        sessions = [(await client.create_session()).session_id for _ in range(SESSIONS)]
        for start in range(0, len(texts)):
            await asyncio.gather(*(client.append(session, "message", texts[start]) for session in sessions))
        ended = 0

        async def query() -> None:
            nonlocal ended
            while True:
                try:
                    await reader.query(HEAVY_SQL, timeout_ms=QUERY_SECONDS * 1000)
                except HeadwaterError:
                    # Out of time, or others hold all workers: what dashboards do to a node.
                    await asyncio.sleep(0.05)
                ended += 1

        await _append_at(client, channel, sessions, texts, Phase(), rate=rate, seconds=seconds)
        for number in range(rounds):
            progress("rounds without and with queries", number / rounds)
            await _append_at(client, channel, sessions, texts, without, rate=rate, seconds=seconds)
            running = [asyncio.create_task(query()) for _ in range(queries)]
            await _append_at(client, channel, sessions, texts, heavy, rate=rate, seconds=seconds)
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
    before, during = without.figures(), heavy.figures()
    return {
        "appends_per_second": rate,
        "rounds": rounds,
        "heavy_queries": queries,
        "queries_ended": ended,
        "without": before,
        "with": during,
        "ratio": {name: round(during[name] / max(before[name], 0.01), 2) for name in before},
    }


async def _append_at(
    client: Client,
    channel: grpc.aio.Channel,
    sessions: list[str],
    texts: list[bytes],
    phase: Phase,
    *,
    rate: int,
    seconds: float,
) -> None:
    reading = ReadingStub(channel)

    async def one(number: int) -> None:
        session = sessions[number % len(sessions)]
        started = time.perf_counter()
        appended = await client.append(session, "message", texts[number % len(texts)])
        acknowledged = time.perf_counter()
        phase.append_seconds.append(acknowledged - started)
        if number % 10 == 0:
            position = Position(epoch=appended.position.epoch, lsn=appended.position.lsn)
            await reading.GetSession(GetSessionRequest(session_id=session, min_position=position, wait_ms=5000))
            phase.visible_seconds.append(time.perf_counter() - acknowledged)

    async with asyncio.TaskGroup() as tasks:
        started = time.perf_counter()
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, started + number / rate - time.perf_counter()))
            tasks.create_task(one(number))


def _milliseconds(seconds: list[float], share: float) -> float:
    return round(percentile(seconds, share) * 1e3, 2)
