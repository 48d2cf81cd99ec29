"""A node that answers "unknown group" holds nobody up: the others elect and commit without it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc.aio

from agent_core.client import Client
from agent_core.errors import InvalidRequest
from agent_core.rpc.replication_pb2_grpc import add_ReplicationServicer_to_server
from agent_core.transport import server_options, stop_server
from ops.benchmarks.placement import let_lead, map_of
from ops.local_cluster import LocalCluster
from ops.replication_service import ReplicationService
from primary.heartbeats import Heartbeats
from tests.e2e.cluster_under_load import assert_everywhere
from tests.e2e.relay import PREPARE, SEAL, STREAM, relay_between
from tests.steady import steady_plan

SESSION = "session"
OTHERS = ("node-1", "node-2")
FORGETFUL = "node-3"
UNKNOWN = "group is 0; this node knows no group yet"


@asynccontextmanager
async def serving_no_group(address: str) -> AsyncIterator[None]:
    """A node's Replication service while it has no groups."""
    server = grpc.aio.server(options=server_options())
    add_ReplicationServicer_to_server(ReplicationService({}, Heartbeats("none")), server)
    server.add_insecure_port(address)
    await server.start()
    try:
        yield
    finally:
        await stop_server(server)


async def test_the_others_elect_and_commit_without_a_node_that_does_not_know_the_group(tmp_path: Path) -> None:
    plan = steady_plan(cluster={"shard_count": 1, "shard_group_count": 1})
    cluster = LocalCluster(tmp_path, plan)
    written: list[bytes] = []
    async with AsyncExitStack() as stack:
        relays = [await stack.enter_async_context(relay_between(cluster, node, FORGETFUL)) for node in OTHERS]
        await stack.enter_async_context(cluster)
        await let_lead(cluster, "node-1")
        addresses = [cluster.address(node).grpc_address for node in OTHERS]
        client = await stack.enter_async_context(Client(addresses, timeout_seconds=60))
        await client.create_session(session_id=SESSION)

        async def append(count: int) -> None:
            for _ in range(count):
                payload = b'{"number":%d}' % len(written)
                await client.append(SESSION, "message", payload)
                written.append(payload)

        def told() -> set[tuple[str, str]]:
            return {failure for relay in relays for failure in relay.failures}

        await append(5)
        # It does not prepare, and leads all the same.
        for relay in relays:
            relay.refusals = {PREPARE: InvalidRequest(UNKNOWN)}
        await let_lead(cluster, FORGETFUL)
        assert (PREPARE, UNKNOWN) in told()
        await append(5)
        # It comes back without the group that it led: nobody follows it, and nobody waits for its seal.
        await cluster.kill(FORGETFUL)
        async with serving_no_group(cluster.address(FORGETFUL).grpc_address):
            await append(5)
            assert {(STREAM, UNKNOWN), (SEAL, UNKNOWN)} <= told()
            cluster_map, _ = await map_of(addresses[0])
            assert cluster_map.placements[0].primary in OTHERS
        await cluster.start_node(FORGETFUL)
        await append(5)
        await assert_everywhere(cluster, {SESSION: written})
