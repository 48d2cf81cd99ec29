"""Appends at a primary while heavy queries run on a standby: latency, and the time until an entry is visible.

Rounds of three kinds take turns: nothing else; queries; and, as a measure of the machine, as many processes as the
standby lets run such queries at once that do nothing but use a processor, with the priority of a query's worker.
What these cost, anything costs that uses a processor there, however politely: where client, primary and standbys
share two processors, that is no small part. So the goals are about what queries cost beyond it.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

import grpc.aio

from agent_core.client import Client, Reader
from agent_core.errors import HeadwaterError
from agent_core.rpc.read_pb2_grpc import ReadingStub
from agent_core.rpc.replication_pb2 import Position
from agent_core.rpc.session_pb2 import GetSessionRequest
from ops.benchmarks.figures import Figures, Progress, percentile
from ops.benchmarks.load import create_sessions, payloads
from ops.benchmarks.read_load import LoadPlan
from replica.reading.sql.priority import give_way, processors

if TYPE_CHECKING:
    from agent_core.rpc.read_pb2_grpc import ReadingAsyncStub  # a class of the stubs' types only

HEAVY_SQL = """
SELECT a.kind, count(*), sum(length(a.payload)), count(DISTINCT hash(a.payload) + b.seq)
FROM entries a JOIN entries b ON b.session_id = a.session_id GROUP BY ALL
"""
QUERY_SECONDS = 2
START_SECONDS = 30.0
AGAIN_SECONDS = 0.05
"""Until a query is asked again that was refused or ran out of time."""
SAMPLE_EVERY = 2
"""Of so many appends, one is waited for at the standby."""


@dataclass(slots=True)
class _Round:
    """What was measured in one round, in seconds."""

    append_seconds: list[float] = field(default_factory=list)
    visible_seconds: list[float] = field(default_factory=list)


class _Queries:
    """Heavy queries on one standby, several at once."""

    def __init__(self, reader: Reader, at_once: int) -> None:
        self._reader = reader
        self._at_once = at_once
        self.ended = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Ask without pause; what still runs at the end is cancelled."""
        tasks = [asyncio.create_task(self._ask()) for _ in range(self._at_once)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self) -> None:
        while True:
            try:
                await self._reader.query(HEAVY_SQL, timeout_ms=QUERY_SECONDS * 1000)
            except HeadwaterError:
                # Out of time, or others hold all workers: what dashboards do to a node.
                await asyncio.sleep(AGAIN_SECONDS)
            self.ended += 1


async def measure_latency_beside_queries(primary: str, standby: str, plan: LoadPlan, progress: Progress) -> Figures:
    """Append latency, and time until an entry is visible on a standby, with and without heavy queries on it."""
    without: list[_Round] = []
    beside_queries: list[_Round] = []
    beside_idle_work: list[_Round] = []
    async with (
        Client(primary) as client,
        grpc.aio.insecure_channel(standby) as channel,
        Reader(standby, timeout_seconds=2 * QUERY_SECONDS) as reader,
    ):
        sessions = await create_sessions(client, plan.writers)
        queries = _Queries(reader, plan.queries)

        async def append() -> _Round:
            measured = _Round()
            await _append_at(client, ReadingStub(channel), sessions, measured, plan)
            return measured

        await append()
        for number in range(plan.rounds):
            progress("appends without and with heavy queries", 0.5 + 0.3 * number / plan.rounds)
            without.append(await append())
            async with queries.running():
                beside_queries.append(await append())
            async with _idle_work(max(1, processors() // 2)):
                beside_idle_work.append(await append())
    return {
        "appends_per_second": plan.rate,
        "rounds": plan.rounds,
        "heavy_queries": plan.queries,
        "queries_ended": queries.ended,
        "without": _milliseconds(without),
        "with": _milliseconds(beside_queries),
        "beside_idle_work": _milliseconds(beside_idle_work),
        "ratio": _ratios(beside_queries, without),
        "ratio_spread": _spread(beside_queries, without),
        "ratio_of_idle_work": _ratios(beside_idle_work, without),
        "ratio_to_idle_work": _ratios(beside_queries, beside_idle_work),
        "ratio_to_idle_work_spread": _spread(beside_queries, beside_idle_work),
    }


@asynccontextmanager
async def _idle_work(count: int) -> AsyncIterator[None]:
    """Processes that use a processor each, with the priority of a query's worker."""
    context = multiprocessing.get_context("spawn")
    started = [context.Event() for _ in range(count)]
    processes = [context.Process(target=_spin, args=(event,), daemon=True) for event in started]
    for process in processes:
        process.start()
    try:
        for event in started:
            if not await asyncio.to_thread(event.wait, START_SECONDS):
                raise RuntimeError(f"a process that only uses a processor did not start within {START_SECONDS:g} s")
        yield
    finally:
        for process in processes:
            process.kill()
            await asyncio.to_thread(process.join)


def _spin(started: multiprocessing.synchronize.Event) -> None:
    os.setsid()  # as a worker: a session of its own, whose priority is the lowest too
    give_way()
    started.set()
    while True:
        pass


async def _append_at(
    client: Client, standby: ReadingAsyncStub, sessions: list[str], measured: _Round, plan: LoadPlan
) -> None:
    texts = payloads(500)

    async def one(number: int) -> None:
        session = sessions[number % len(sessions)]
        started = time.perf_counter()
        appended = await client.append(session, "message", texts[number % len(texts)])
        acknowledged = time.perf_counter()
        measured.append_seconds.append(acknowledged - started)
        if number % SAMPLE_EVERY == 0:
            position = Position(epoch=appended.position.epoch, lsn=appended.position.lsn)
            await standby.GetSession(GetSessionRequest(session_id=session, min_position=position, wait_ms=5000))
            measured.visible_seconds.append(time.perf_counter() - acknowledged)

    async with asyncio.TaskGroup() as tasks:
        started = time.perf_counter()
        for number in range(int(plan.rate * plan.seconds)):
            await asyncio.sleep(max(0.0, started + number / plan.rate - time.perf_counter()))
            tasks.create_task(one(number))


def _milliseconds(rounds: Sequence[_Round]) -> dict[str, float]:
    """Medians and tails of all rounds together: of one alone, a single stall of the machine is its tail."""
    appends = list(chain.from_iterable(each.append_seconds for each in rounds))
    visible = list(chain.from_iterable(each.visible_seconds for each in rounds))
    return {
        "append_p50_ms": round(percentile(appends, 0.5) * 1e3, 2),
        "append_p99_ms": round(percentile(appends, 0.99) * 1e3, 2),
        "visible_p50_ms": round(percentile(visible, 0.5) * 1e3, 2),
        "visible_p99_ms": round(percentile(visible, 0.99) * 1e3, 2),
    }


def _ratios(rounds: Sequence[_Round], others: Sequence[_Round]) -> dict[str, float]:
    beside, alone = _milliseconds(rounds), _milliseconds(others)
    return {name: round(beside[name] / max(alone[name], 0.01), 2) for name in beside}


def _spread(rounds: Sequence[_Round], others: Sequence[_Round]) -> dict[str, list[float]]:
    """The least and the greatest ratio when any one pair of rounds is left out: how much a single one decides."""
    ratios = [
        _ratios(_without(number, rounds) or rounds, _without(number, others) or others)
        for number in range(len(rounds))
    ]
    by_name = {name: [each[name] for each in ratios] for name in ratios[0]}
    return {name: [min(values), max(values)] for name, values in by_name.items()}


def _without(number: int, rounds: Sequence[_Round]) -> list[_Round]:
    return [*rounds[:number], *rounds[number + 1 :]]
