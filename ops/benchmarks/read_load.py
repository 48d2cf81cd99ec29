"""Appends at a primary while pages are read from a standby: what share of the rate the readers cost."""

from __future__ import annotations

import asyncio
import statistics
from concurrent.futures import Executor
from dataclasses import dataclass
from urllib.parse import urlencode

from agent_core.client import Client
from ops.benchmarks.figures import Figures, Progress, median_interval
from ops.benchmarks.load import append_for, create_sessions, payloads
from ops.benchmarks.read_pages import FILTERS, TRANSCRIPT_PATH, ask_for

WARM_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """The appends, and what happens beside them.

    Attributes:
        writers: Sessions that append at once, each waiting for its acknowledgement, beside pages.
        connections: Which read pages at once, each without pause, from a process of its own.
        rate: Appends per second, beside heavy queries.
        seconds: The length of each round.
        rounds: Rounds with reads; as many without.
        queries: Heavy queries at once.
    """

    writers: int = 64
    connections: int = 1
    rate: int = 200
    seconds: float = 4.0
    rounds: int = 8
    queries: int = 10


async def measure_appends_beside_reads(
    primary: str, standby: str, readers: Executor, plan: LoadPlan, progress: Progress
) -> Figures:
    """Acknowledged appends per second while nobody reads, and while pages are read without pause.

    Rounds come in pairs, every other pair the other way round, so that what drifts falls on both sides alike.
    """
    paths = [f"/v1/sessions?{urlencode(asked)}" for asked in FILTERS.values()] + [TRANSCRIPT_PATH]
    texts = payloads(500)
    loop = asyncio.get_running_loop()
    alone, beside, reads = [], [], 0
    async with Client(primary) as client:
        sessions = await create_sessions(client, plan.writers)

        async def append() -> float:
            return len(await append_for(client, sessions, texts, plan.seconds)) / plan.seconds

        async def append_beside_reads() -> float:
            nonlocal reads
            reading = [
                loop.run_in_executor(readers, ask_for, standby, paths, plan.seconds)
                for _ in range(plan.connections)
            ]
            rate = await append()
            reads += sum(map(len, await asyncio.gather(*reading)))
            return rate

        await append_for(client, sessions, texts, WARM_SECONDS)
        for number in range(plan.rounds):
            progress("appends without and with reads", 0.8 + 0.2 * number / plan.rounds)
            if number % 2:
                beside.append(await append_beside_reads())
                alone.append(await append())
            else:
                alone.append(await append())
                beside.append(await append_beside_reads())
    losses = [1 - with_reads / without for with_reads, without in zip(beside, alone, strict=True)]
    return {
        "writers": plan.writers,
        "connections": plan.connections,
        "rounds": plan.rounds,
        "reads_per_second": round(reads / plan.rounds / plan.seconds),
        "appends_per_second_alone": round(statistics.median(alone)),
        "appends_per_second_alone_all": [round(rate) for rate in alone],
        "appends_per_second_beside": round(statistics.median(beside)),
        "appends_per_second_beside_all": [round(rate) for rate in beside],
        "loss_share": round(statistics.median(losses), 3),
        "loss_share_interval_95": [round(loss, 3) for loss in median_interval(losses)],
        "loss_share_all": [round(loss, 3) for loss in losses],
    }
