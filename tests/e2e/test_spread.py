"""Primaries are spread evenly over the nodes at the start, and a drained node leads nothing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ops.benchmarks.placement import map_of
from ops.local_cluster import LocalCluster
from ops.operating import Operator
from tests.plans import small_plan

GROUPS = 6


async def led(cluster: LocalCluster) -> Counter[str]:
    """How many groups each node leads by the map; empty while some group has no primary."""
    placements = (await map_of(cluster.addresses[0].grpc_address))[0].placements
    primaries = [placement.primary for placement in placements if placement.primary is not None]
    return Counter(primaries) if len(primaries) == GROUPS else Counter()


async def drain(cluster: LocalCluster, node_id: str) -> None:
    """Drain a node and wait until it leads nothing."""
    async with Operator(cluster.addresses[0].grpc_address) as operator:
        version = (await operator.set_draining(node_id, draining=True)).version
        async for _ in operator.drained(node_id, version):
            pass


async def undrain(cluster: LocalCluster, node_id: str) -> None:
    async with Operator(cluster.addresses[0].grpc_address) as operator:
        await operator.set_draining(node_id, draining=False)


async def test_each_of_three_nodes_leads_two_of_six_groups_and_a_drained_one_none(tmp_path: Path) -> None:
    plan = small_plan(cluster={"shard_group_count": GROUPS})
    async with LocalCluster(tmp_path, plan) as cluster:
        assert await led(cluster) == {"node-1": 2, "node-2": 2, "node-3": 2}
        await drain(cluster, "node-3")
        await cluster.wait_ready()
        taken = await led(cluster)
        assert taken == {"node-1": 3, "node-2": 3}
        await undrain(cluster, "node-3")
        await drain(cluster, "node-2")
        after = await led(cluster)
        assert (after["node-2"], after.total()) == (0, GROUPS)
