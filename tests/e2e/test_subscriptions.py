"""A subscriber loses and repeats nothing when its primary hangs, dies, or hands over.

One whose primary is cut off from the others, and many at once, are played by `tests.chaos`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent_core.client import Client
from ops.benchmarks.placement import let_lead
from ops.local_cluster import LocalCluster
from tests.plans import small_plan
from tests.waiting import until

SESSION = "followed"
PRIMARY, SUCCESSOR = "node-1", "node-2"
HEARS_WITHIN_SECONDS = 15.0
"""Election, keepalive of the connection to the node that hangs, and one more try at it, on a busy machine."""


@asynccontextmanager
async def followed(directory: Path) -> AsyncIterator[tuple[LocalCluster, Client, list[int]]]:
    """A cluster that `PRIMARY` leads, a client that writes, and the seqs that another one's subscription brings."""
    async with LocalCluster(directory, small_plan()) as cluster:
        await let_lead(cluster, PRIMARY)
        addresses = [node.grpc_address for node in cluster.addresses]
        async with Client(addresses, timeout_seconds=60) as writer, Client(addresses, timeout_seconds=60) as reader:
            await writer.create_session(session_id=SESSION)
            seqs: list[int] = []

            async def follow() -> None:
                async for entry in reader.subscribe(SESSION):
                    seqs.append(entry.seq)  # noqa: PERF401 - each as it comes

            following = asyncio.create_task(follow())
            try:
                await written(writer, 20)
                await until(lambda: len(seqs) == 20)
                yield cluster, writer, seqs
            finally:
                following.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await following


async def written(client: Client, count: int) -> None:
    for number in range(count):
        await client.append(SESSION, "message", {"number": number})


@pytest.mark.parametrize("again", [False, True])
async def test_a_subscriber_of_a_primary_that_hangs_hears_the_next_one(tmp_path: Path, *, again: bool) -> None:
    async with followed(tmp_path) as (cluster, writer, seqs):
        pid = cluster.pid(PRIMARY)
        assert pid is not None
        os.killpg(pid, signal.SIGSTOP)
        try:
            await written(writer, 20)
            await until(lambda: len(seqs) == 40, seconds=HEARS_WITHIN_SECONDS)
        finally:
            os.killpg(pid, signal.SIGCONT)
        if again:
            await let_lead(cluster, PRIMARY)
            await written(writer, 20)
            await until(lambda: len(seqs) == 60, seconds=HEARS_WITHIN_SECONDS)
        assert seqs == list(range(1, len(seqs) + 1))


async def test_a_subscriber_of_a_primary_that_is_killed_hears_the_next_one(tmp_path: Path) -> None:
    async with followed(tmp_path) as (cluster, writer, seqs):
        writing = asyncio.create_task(written(writer, 300))
        await until(lambda: len(seqs) > 40)
        await cluster.kill(PRIMARY)
        await writing
        await until(lambda: len(seqs) == 320, seconds=HEARS_WITHIN_SECONDS)
        await cluster.start_node(PRIMARY)
        await let_lead(cluster, PRIMARY)
        await written(writer, 20)
        await until(lambda: len(seqs) == 340, seconds=HEARS_WITHIN_SECONDS)
        assert seqs == list(range(1, 341))


async def test_a_subscriber_goes_along_with_a_switch_over(tmp_path: Path) -> None:
    async with followed(tmp_path) as (cluster, writer, seqs):
        writing = asyncio.create_task(written(writer, 300))
        await let_lead(cluster, SUCCESSOR)
        await writing
        await until(lambda: len(seqs) == 320, seconds=HEARS_WITHIN_SECONDS)
        assert seqs == list(range(1, 321))
