"""Puts the primary where a benchmark wants it: elections put it anywhere."""

from __future__ import annotations

import asyncio
from functools import partial

import grpc.aio

from agent_core.control import cluster_map as maps
from agent_core.control.cluster_map import ClusterMap
from agent_core.rpc.control_pb2 import GetMapRequest, SwitchoverRequest
from agent_core.rpc.control_pb2_grpc import ControlStub
from ops.benchmarks.load import until
from ops.local_cluster import LocalCluster

WITHIN_SECONDS = 60.0
AGAIN_SECONDS = 0.1


async def let_lead(cluster: LocalCluster, node_id: str) -> None:
    """Let one node lead every group, and wait until every node says that it does.

    Raises:
        TimeoutError: It does not lead within a minute.
    """
    await until(partial(_leads, cluster, node_id), every_seconds=AGAIN_SECONDS, within_seconds=WITHIN_SECONDS)
    await cluster.wait_ready()


async def _leads(cluster: LocalCluster, node_id: str) -> bool:
    """Whether a node leads every group; asks for what is missing."""
    known = [await map_of(node.grpc_address) for node in cluster.addresses]
    missing = {
        group
        for cluster_map, _ in known
        for group, placement in enumerate(cluster_map.placements)
        if placement.primary != node_id
    }
    if not missing:
        return all(cluster_map.version for cluster_map, _ in known)
    leader = next((leader for _, leader in known if leader), "")
    if leader:
        async with grpc.aio.insecure_channel(cluster.address(leader).grpc_address) as channel:
            for group in missing:
                try:
                    await ControlStub(channel).Switchover(SwitchoverRequest(group=group, to=node_id))
                except grpc.aio.AioRpcError:
                    return False
    return False


async def primaries(cluster: LocalCluster) -> set[str | None]:
    """Who leads a group, as any of the nodes knows; None stands for nobody."""
    maps_known = [(await map_of(node.grpc_address))[0] for node in cluster.addresses]
    return {placement.primary for known in maps_known for placement in known.placements}


async def raft_leader(cluster: LocalCluster) -> str:
    """The Raft leader, once all nodes name the same.

    Raises:
        TimeoutError: They do not within a minute.
    """
    async with asyncio.timeout(WITHIN_SECONDS):
        while True:
            named = {(await map_of(node.grpc_address))[1] for node in cluster.addresses}
            if len(named) == 1 and (leader := named.pop()):
                return leader
            await asyncio.sleep(AGAIN_SECONDS)


async def map_of(address: str) -> tuple[ClusterMap, str]:
    """The map as a node knows it, and the Raft leader's name; empty while it knows of none."""
    async with grpc.aio.insecure_channel(address) as channel:
        answer = await ControlStub(channel).GetMap(GetMapRequest())
    return maps.from_json(answer.cluster_map.decode()), answer.raft_leader
