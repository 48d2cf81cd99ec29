"""From an append's acknowledgement to its being visible on a standby."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import grpc.aio

from agent_core.client import Client
from agent_core.rpc.read_pb2_grpc import ReadingStub
from agent_core.rpc.replication_pb2 import Position
from agent_core.rpc.session_pb2 import GetSessionRequest
from ops.benchmarks.figures import Figures, Progress, percentile, unheard
from ops.benchmarks.load import create_sessions, payloads
from ops.benchmarks.placement import let_lead
from ops.cluster_files import ClusterPlan
from ops.local_cluster import LocalCluster

SAMPLE_EVERY = 10
WARM_SECONDS = 2.0
"""How long connections are opened and caches filled before latencies count."""


async def measure_lag(directory: Path, *, rate: int, seconds: float, progress: Progress = unheard) -> Figures:
    """Milliseconds from an acknowledgement to a standby's answer that it has applied that position.

    The answer's own way over gRPC is part of the figure, and is reported beside it.
    """
    texts, waits, calls = payloads(500), [], []
    async with (
        LocalCluster(directory, ClusterPlan(base_port=0)) as cluster,
        Client(cluster.address("node-1").grpc_address) as client,
        grpc.aio.insecure_channel(cluster.address("node-2").grpc_address) as channel,
    ):
        await let_lead(cluster, "node-1")
        reading = ReadingStub(channel)
        sessions = await create_sessions(client, 64)

        async def one(number: int) -> None:
            session = sessions[number % len(sessions)]
            appended = await client.append(session, "message", texts[number % len(texts)])
            if number % SAMPLE_EVERY == 0 and number >= rate * WARM_SECONDS:
                position = Position(epoch=appended.position.epoch, lsn=appended.position.lsn)
                started = time.perf_counter()
                await reading.GetSession(GetSessionRequest(session_id=session, min_position=position, wait_ms=5000))
                answered = time.perf_counter()
                waits.append(answered - started)
                await reading.GetSession(GetSessionRequest(session_id=session, min_position=position))
                calls.append(time.perf_counter() - answered)

        tasks: set[asyncio.Task[None]] = set()
        started = time.perf_counter()
        for number in range(int(rate * (WARM_SECONDS + seconds))):
            delay = started + number / rate - time.perf_counter()
            if delay > 0:
                await asyncio.sleep(delay)
            task = asyncio.create_task(one(number))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            if number % rate == 0:
                progress("appending", number / rate / (WARM_SECONDS + seconds))
        await asyncio.gather(*tasks)
    return {
        "appends_per_second": rate,
        "samples": len(waits),
        "visible_p50_ms": round(percentile(waits, 0.5) * 1e3, 2),
        "visible_p99_ms": round(percentile(waits, 0.99) * 1e3, 2),
        "of_which_the_call_p50_ms": round(percentile(calls, 0.5) * 1e3, 2),
        "of_which_the_call_p99_ms": round(percentile(calls, 0.99) * 1e3, 2),
    }
