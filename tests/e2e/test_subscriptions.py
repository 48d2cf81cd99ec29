"""A subscriber loses and repeats nothing when its primary hangs, dies, or hands over.

One whose primary is cut off from the others, and many at once, are played by `tests.chaos`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from agent_core.client import Client
from ops.benchmarks.placement import let_lead
from ops.local_cluster import LocalCluster
from tests.plans import small_plan
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

PRIMARY, SUCCESSOR = "node-1", "node-2"
HEARS_WITHIN_SECONDS = 15.0
"""Election, keepalive of the connection to the node that hangs, and one more try at it, on a busy machine."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(module_path: Path) -> AsyncIterator[LocalCluster]:
    async with LocalCluster(module_path, small_plan()) as cluster:
        yield cluster


@dataclass(frozen=True, slots=True)
class Followed:
    """A session that one client writes, and the seqs that the subscription of another brings."""

    session_id: str
    writer: Client
    seqs: list[int] = field(default_factory=list)

    async def written(self, count: int) -> None:
        for number in range(count):
            await self.writer.append(self.session_id, "message", {"number": number})

    async def follow(self, reader: Client) -> None:
        async for entry in reader.subscribe(self.session_id):
            self.seqs.append(entry.seq)


@pytest_asyncio.fixture(loop_scope="module")
async def followed(cluster: LocalCluster) -> AsyncIterator[Followed]:
    """Begun while `PRIMARY` leads."""
    await let_lead(cluster, PRIMARY)
    addresses = [node.grpc_address for node in cluster.addresses]
    async with Client(addresses, timeout_seconds=60) as writer, Client(addresses, timeout_seconds=60) as reader:
        followed = Followed((await writer.create_session()).session_id, writer)
        following = asyncio.create_task(followed.follow(reader))
        try:
            await followed.written(20)
            await until(lambda: len(followed.seqs) == 20)
            yield followed
        finally:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following


@pytest.mark.parametrize("again", [False, True])
async def test_a_subscriber_of_a_primary_that_hangs_hears_the_next_one(
    cluster: LocalCluster, followed: Followed, *, again: bool
) -> None:
    seqs = followed.seqs
    pid = cluster.pid(PRIMARY)
    assert pid is not None
    os.killpg(pid, signal.SIGSTOP)
    try:
        await followed.written(20)
        await until(lambda: len(seqs) == 40, seconds=HEARS_WITHIN_SECONDS)
    finally:
        os.killpg(pid, signal.SIGCONT)
    if again:
        await let_lead(cluster, PRIMARY)
        await followed.written(20)
        await until(lambda: len(seqs) == 60, seconds=HEARS_WITHIN_SECONDS)
    assert seqs == list(range(1, len(seqs) + 1))


async def test_a_subscriber_of_a_primary_that_is_killed_hears_the_next_one(
    cluster: LocalCluster, followed: Followed
) -> None:
    seqs = followed.seqs
    writing = asyncio.create_task(followed.written(300))
    await until(lambda: len(seqs) > 40)
    await cluster.kill(PRIMARY)
    await writing
    await until(lambda: len(seqs) == 320, seconds=HEARS_WITHIN_SECONDS)
    await cluster.start_node(PRIMARY)
    await let_lead(cluster, PRIMARY)
    await followed.written(20)
    await until(lambda: len(seqs) == 340, seconds=HEARS_WITHIN_SECONDS)
    assert seqs == list(range(1, 341))


async def test_a_subscriber_goes_along_with_a_switch_over(cluster: LocalCluster, followed: Followed) -> None:
    seqs = followed.seqs
    writing = asyncio.create_task(followed.written(300))
    await let_lead(cluster, SUCCESSOR)
    await writing
    await until(lambda: len(seqs) == 320, seconds=HEARS_WITHIN_SECONDS)
    assert seqs == list(range(1, 321))
