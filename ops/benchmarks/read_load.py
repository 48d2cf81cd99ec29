"""Appends at a primary while a standby is read from: rate beside pages, latency beside heavy queries."""

from __future__ import annotations

import asyncio
import statistics
import time
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import grpc.aio

from agent_core.client import Client, Reader
from agent_core.errors import HeadwaterError
from agent_core.rpc.read_pb2_grpc import ReadingStub
from agent_core.rpc.replication_pb2 import Position
from agent_core.rpc.session_pb2 import GetSessionRequest
from ops.benchmarks.figures import Figures, Progress, percentile
from ops.benchmarks.load import append_for, create_sessions, payloads
from ops.benchmarks.read_pages import FILTERS, TRANSCRIPT_PATH, ask_for

if TYPE_CHECKING:
    from agent_core.rpc.read_pb2_grpc import ReadingAsyncStub  # a class of the stubs' types only

HEAVY_SQL = """
SELECT a.kind, count(*), sum(length(a.payload)), count(DISTINCT hash(a.payload) + b.seq)
FROM entries a JOIN entries b ON b.session_id = a.session_id GROUP BY ALL
"""
QUERY_SECONDS = 2
WARM_SECONDS = 1.0
SAMPLE_EVERY = 5
"""Of so many appends, one is waited for at the standby."""


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """The appends, and what happens beside them.

    Attributes:
        writers: Sessions that append at once, each waiting for its acknowledgement, beside pages.
        rate: Appends per second, beside heavy queries.
        seconds: The length of each round.
        rounds: Rounds with reads; as many without.
        queries: Heavy queries at once.
    """

    writers: int = 64
    rate: int = 200
    seconds: float = 4.0
    rounds: int = 4
    queries: int = 10


async def measure_appends_beside_reads(
    primary: str, standby: str, readers: Executor, plan: LoadPlan, progress: Progress
) -> Figures:
    """Acknowledged appends per second while nobody reads, and while one connection reads pages without pause."""
    paths = [f"/v1/sessions?{urlencode(asked)}" for asked in FILTERS.values()] + [TRANSCRIPT_PATH]
    texts = payloads(500)
    loop = asyncio.get_running_loop()
    alone, beside, reads = [], [], 0
    async with Client(primary) as client:
        sessions = await create_sessions(client, plan.writers)
        await append_for(client, sessions, texts, WARM_SECONDS)
        for number in range(plan.rounds):
            progress("appends without and with reads", 0.8 + 0.2 * number / plan.rounds)
            alone.append(len(await append_for(client, sessions, texts, plan.seconds)) / plan.seconds)
            reading = loop.run_in_executor(readers, ask_for, standby, paths, plan.seconds)
            beside.append(len(await append_for(client, sessions, texts, plan.seconds)) / plan.seconds)
            reads += len(await reading)
    return {
        "writers": plan.writers,
        "rounds": plan.rounds,
        "reads_per_second": round(reads / plan.rounds / plan.seconds),
        "appends_per_second_alone": round(statistics.median(alone)),
        "appends_per_second_alone_all": [round(rate) for rate in alone],
        "appends_per_second_beside": round(statistics.median(beside)),
        "appends_per_second_beside_all": [round(rate) for rate in beside],
        "loss_share": round(1 - statistics.median(beside) / statistics.median(alone), 3),
    }


@dataclass(slots=True)
class _Phase:
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


async def measure_latency_beside_queries(primary: str, standby: str, plan: LoadPlan, progress: Progress) -> Figures:
    """Append latency, and time until an entry is visible on a standby, with and without heavy queries on it."""
    without, beside = _Phase(), _Phase()
    async with (
        Client(primary) as client,
        grpc.aio.insecure_channel(standby) as channel,
        Reader(standby, timeout_seconds=2 * QUERY_SECONDS) as reader,
    ):
        sessions = await create_sessions(client, plan.writers)
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

        async def append(phase: _Phase) -> None:
            await _append_at(client, ReadingStub(channel), sessions, phase, plan)

        await append(_Phase())
        for number in range(plan.rounds):
            progress("appends without and with heavy queries", 0.5 + 0.3 * number / plan.rounds)
            await append(without)
            running = [asyncio.create_task(query()) for _ in range(plan.queries)]
            await append(beside)
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
    before, during = without.figures(), beside.figures()
    return {
        "appends_per_second": plan.rate,
        "rounds": plan.rounds,
        "heavy_queries": plan.queries,
        "queries_ended": ended,
        "without": before,
        "with": during,
        "ratio": {name: round(during[name] / max(before[name], 0.01), 2) for name in before},
    }


async def _append_at(
    client: Client,
    standby: ReadingAsyncStub,
    sessions: list[str],
    phase: _Phase,
    plan: LoadPlan,
) -> None:
    texts = payloads(500)

    async def one(number: int) -> None:
        session = sessions[number % len(sessions)]
        started = time.perf_counter()
        appended = await client.append(session, "message", texts[number % len(texts)])
        acknowledged = time.perf_counter()
        phase.append_seconds.append(acknowledged - started)
        if number % SAMPLE_EVERY == 0:
            position = Position(epoch=appended.position.epoch, lsn=appended.position.lsn)
            await standby.GetSession(GetSessionRequest(session_id=session, min_position=position, wait_ms=5000))
            phase.visible_seconds.append(time.perf_counter() - acknowledged)

    async with asyncio.TaskGroup() as tasks:
        started = time.perf_counter()
        for number in range(int(plan.rate * plan.seconds)):
            await asyncio.sleep(max(0.0, started + number / plan.rate - time.perf_counter()))
            tasks.create_task(one(number))


def _milliseconds(seconds: list[float], share: float) -> float:
    return round(percentile(seconds, share) * 1e3, 2)
