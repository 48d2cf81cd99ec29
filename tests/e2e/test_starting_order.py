"""Nodes of one configuration start in any order, each long after the one before, and agree on who leads what."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import grpc.aio
import pytest

from agent_core.client import Client
from ops.benchmarks.placement import map_of
from ops.local_cluster import LocalCluster, LocalClusterError
from tests.e2e.cluster_under_load import DEADLINE_SECONDS, assert_everywhere, roles
from tests.plans import small_plan

GROUPS = 3
ALONE_SECONDS = 3.0
"""Longer than an election takes, and than a failure is waited for."""

READER_FIRST = ("node-4", "node-2", "node-1", "node-3")


async def served(address: str) -> None:
    """Wait until a node answers."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await map_of(address)
                return
            await asyncio.sleep(0.05)


async def written(client: Client, session_id: str, count: int) -> list[bytes]:
    """Append so many entries to a session, a new one, and return them."""
    await client.create_session(session_id=session_id)
    payloads = [b'{"number":%d}' % number for number in range(count)]
    for payload in payloads:
        await client.append(session_id, "message", payload)
    return payloads


@pytest.mark.parametrize(
    "order",
    [("node-1", "node-2", "node-3"), ("node-3", "node-1", "node-2"), ("node-2", "node-3", "node-1"), READER_FIRST],
    ids="-".join,
)
async def test_a_minority_waits_a_majority_serves_and_the_last_one_joins(
    tmp_path: Path, order: tuple[str, ...]
) -> None:
    *minority, second, last = order
    plan = small_plan(readers=len(order) - 3, cluster={"shard_group_count": GROUPS})
    cluster = LocalCluster(tmp_path, plan)
    addresses = [node.grpc_address for node in cluster.addresses]
    try:
        for node in minority:
            with pytest.raises(LocalClusterError, match="is not ready"):
                await cluster.start_node(node, ready_seconds=0)
            await served(cluster.address(node).grpc_address)
        for node in minority:
            with pytest.raises(LocalClusterError, match=f"{node} is not ready.* has no primary yet"):
                await cluster.wait_ready(node, ready_seconds=ALONE_SECONDS)
            known, _ = await map_of(cluster.address(node).grpc_address)
            assert known.version == 0, "nobody may lead before a majority of the Raft members has met"
        await cluster.start_node(second)
        async with Client(addresses, timeout_seconds=60) as client:
            await cluster.wait_ready(*minority, second)
            expected = {f"of-two-{number}": await written(client, f"of-two-{number}", 20) for number in range(6)}
            await cluster.start_node(last)
            expected |= {f"of-all-{number}": await written(client, f"of-all-{number}", 20) for number in range(6)}
        await cluster.wait_ready()
        maps = [(await map_of(address))[0] for address in addresses]
        assert len({one.placements for one in maps}) == 1
        leaders = {placement.primary for placement in maps[0].placements}
        assert None not in leaders
        said = {node for node, its in (await roles(cluster)).items() if "primary" in its}
        assert said == leaders
        assert "node-4" not in leaders
        await assert_everywhere(cluster, expected)
    finally:
        await cluster.stop()
