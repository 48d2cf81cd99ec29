"""From an append's acknowledgement to its being visible on a standby."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import grpc.aio

from agent_core.client import Client
from agent_core.rpc.read_pb2_grpc import ReadingStub
from agent_core.rpc.replication_pb2 import Position
from agent_core.rpc.session_pb2 import GetSessionRequest
from ops.benchmarks.figures import Figures, Goal, Progress, judged, over_runs, percentile, unheard
from ops.benchmarks.load import create_sessions, payloads
from ops.benchmarks.placement import let_lead
from ops.cluster_files import ClusterPlan
from ops.local_cluster import LocalCluster

if TYPE_CHECKING:  # The stub's name exists in the generated types only.
    from agent_core.rpc.read_pb2_grpc import ReadingAsyncStub

PRIMARY, STANDBY = "node-1", "node-2"
SESSIONS = 64
ENTRY_BYTES = 500
SAMPLE_EVERY = 10
WARM_SECONDS = 2.0
"""How long connections are opened and caches filled before latencies count."""
WAIT_MS = 5000

GOALS = (Goal("visible_p99_ms", at_most=10, aim=2),)


@dataclass(frozen=True, slots=True)
class LagPlan:
    """How lag is measured.

    Attributes:
        rate: Appends per second.
        seconds: The length of each run.
        runs: How often it is measured.
    """

    rate: int = 1000
    seconds: float = 10.0
    runs: int = 3


@dataclass(slots=True)
class Samples:
    """Seconds until an acknowledged position was visible, and those of the same call when nothing is waited for.

    Attributes:
        appends: Seconds until an append was acknowledged.
    """

    appends: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    calls: list[float] = field(default_factory=list)


async def measure_lag(directory: Path, plan: LagPlan, progress: Progress = unheard) -> Figures:
    """Milliseconds from an acknowledgement to a standby's answer that it has applied that position.

    The answer's own way over gRPC is part of the figure, and is reported beside it, as is the append before it.
    """
    runs = []
    async with (
        LocalCluster(directory, ClusterPlan(base_port=0)) as cluster,
        Client(cluster.address(PRIMARY).grpc_address) as client,
        grpc.aio.insecure_channel(cluster.address(STANDBY).grpc_address) as channel,
    ):
        await let_lead(cluster, PRIMARY)
        sampling = _Sampling(client, ReadingStub(channel), await create_sessions(client, SESSIONS))
        progress("warming up", 0.0)
        await sampling.run(plan.rate, WARM_SECONDS)
        for run in range(plan.runs):
            progress(f"run {run + 1}", run / plan.runs)
            await let_lead(cluster, PRIMARY)
            samples = await sampling.run(plan.rate, plan.seconds)
            runs.append(
                {
                    "samples": len(samples.waits),
                    "append_p50_ms": percentile(samples.appends, 0.5) * 1e3,
                    "append_p99_ms": percentile(samples.appends, 0.99) * 1e3,
                    "visible_p50_ms": percentile(samples.waits, 0.5) * 1e3,
                    "visible_p99_ms": percentile(samples.waits, 0.99) * 1e3,
                    "of_which_the_call_p50_ms": percentile(samples.calls, 0.5) * 1e3,
                    "of_which_the_call_p99_ms": percentile(samples.calls, 0.99) * 1e3,
                }
            )
    figures: Figures = {
        "appends_per_second": plan.rate,
        **over_runs(runs, dict.fromkeys(runs[0], 2) | {"samples": 0}),
    }
    return {**figures, "goals": judged(figures, GOALS)}


class _Sampling:
    """Appends at a steady rate, and asks a standby about each tenth one."""

    def __init__(self, client: Client, standby: ReadingAsyncStub, sessions: Sequence[str]) -> None:
        self._client = client
        self._standby = standby
        self._sessions = sessions
        self._texts = payloads(ENTRY_BYTES)

    async def run(self, rate: int, seconds: float) -> Samples:
        """Append for some seconds, whatever the answers take."""
        samples = Samples()
        started = time.perf_counter()
        async with asyncio.TaskGroup() as appending:
            for number in range(int(rate * seconds)):
                delay = started + number / rate - time.perf_counter()
                if delay > 0:
                    await asyncio.sleep(delay)
                appending.create_task(self._append(number, samples))
        return samples

    async def _append(self, number: int, samples: Samples) -> None:
        session = self._sessions[number % len(self._sessions)]
        submitted = time.perf_counter()
        appended = await self._client.append(session, "message", self._texts[number % len(self._texts)])
        samples.appends.append(time.perf_counter() - submitted)
        if number % SAMPLE_EVERY:
            return
        position = Position(epoch=appended.position.epoch, lsn=appended.position.lsn)
        started = time.perf_counter()
        await self._standby.GetSession(
            GetSessionRequest(session_id=session, min_position=position, wait_ms=WAIT_MS)
        )
        answered = time.perf_counter()
        samples.waits.append(answered - started)
        await self._standby.GetSession(GetSessionRequest(session_id=session, min_position=position))
        samples.calls.append(time.perf_counter() - answered)
