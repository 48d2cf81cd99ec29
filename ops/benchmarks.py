"""What `headwater bench` measures."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import grpc.aio

from agent_core.client import Client
from agent_core.rpc.read_pb2_grpc import ReadingStub
from agent_core.rpc.replication_pb2 import Position
from agent_core.rpc.session_pb2 import GetSessionRequest
from ops.cluster_files import ClusterPlan
from ops.local_cluster import LocalCluster

WORDS = 4000
SAMPLE_EVERY = 10
WARM_SECONDS = 2.0
"""How long connections are opened and caches filled before latencies count."""


@dataclass(frozen=True, slots=True)
class AppendPlan:
    """How appends are measured."""

    writers: int = 64
    seconds: float = 5.0
    runs: int = 3
    entry_bytes: int = 500


def payloads(entry_bytes: int, count: int = 256) -> list[bytes]:
    """JSON texts of about `entry_bytes` bytes that compress like prose, not like zeros; the same every time."""
    chance = random.Random(7)  # noqa: S311 - a benchmark repeats itself
    words = [f"{chance.getrandbits(chance.randrange(12, 40)):x}" for _ in range(WORDS)]
    texts = []
    for _ in range(count):
        text = " ".join(chance.choice(words) for _ in range(entry_bytes // 4))
        texts.append(b'{"role":"user","content":"' + text[: max(0, entry_bytes - 28)].encode() + b'"}')
    return texts


async def measure_appends(directory: Path, plan: AppendPlan) -> dict[str, object]:
    """Appends per second and their latency, each writer waiting for its own acknowledgement."""
    texts = payloads(plan.entry_bytes)
    rates, medians, tails = [], [], []
    async with (
        LocalCluster(directory, ClusterPlan(base_port=0)) as cluster,
        Client(cluster.address("node-1").grpc_address) as client,
    ):
        sessions = [(await client.create_session()).session_id for _ in range(plan.writers)]
        await _append_for(client, sessions, texts, 1.0)  # the first second warms connections and caches
        for _ in range(plan.runs):
            latencies = sorted(await _append_for(client, sessions, texts, plan.seconds))
            rates.append(len(latencies) / plan.seconds)
            medians.append(latencies[len(latencies) // 2] * 1e3)
            tails.append(latencies[int(len(latencies) * 0.99)] * 1e3)
    return {
        "writers": plan.writers,
        "entry_bytes": plan.entry_bytes,
        "runs": plan.runs,
        "appends_per_second": round(statistics.median(rates)),
        "appends_per_second_all": [round(rate) for rate in rates],
        "p50_ms": round(statistics.median(medians), 2),
        "p99_ms": round(statistics.median(tails), 2),
    }


async def _append_for(client: Client, sessions: list[str], texts: list[bytes], seconds: float) -> list[float]:
    latencies: list[float] = []
    ends_at = time.perf_counter() + seconds

    async def write(session: str, number: int) -> None:
        while (started := time.perf_counter()) < ends_at:
            number += 1
            await client.append(session, "message", texts[number % len(texts)])
            latencies.append(time.perf_counter() - started)

    await asyncio.gather(*(write(session, number * 37) for number, session in enumerate(sessions)))
    return latencies


async def measure_lag(directory: Path, *, rate: int, seconds: float) -> dict[str, object]:
    """Milliseconds from an acknowledgement to a standby's answer that it has applied that position.

    The answer's own way over gRPC is part of the figure, and is reported beside it.
    """
    texts, waits, calls = payloads(500), [], []
    async with (
        LocalCluster(directory, ClusterPlan(base_port=0)) as cluster,
        Client(cluster.address("node-1").grpc_address) as client,
        grpc.aio.insecure_channel(cluster.address("node-2").grpc_address) as channel,
    ):
        reading = ReadingStub(channel)
        sessions = [(await client.create_session()).session_id for _ in range(64)]

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
        await asyncio.gather(*tasks)
    waits.sort()
    calls.sort()
    return {
        "appends_per_second": rate,
        "samples": len(waits),
        "visible_p50_ms": round(waits[len(waits) // 2] * 1e3, 2),
        "visible_p99_ms": round(waits[int(len(waits) * 0.99)] * 1e3, 2),
        "of_which_the_call_p50_ms": round(calls[len(calls) // 2] * 1e3, 2),
        "of_which_the_call_p99_ms": round(calls[int(len(calls) * 0.99)] * 1e3, 2),
    }
