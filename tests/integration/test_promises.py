"""A voter's process is killed right after its answer: the promise outlives it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc.aio

from agent_core.position import Position
from agent_core.rpc import replication_pb2 as pb
from agent_core.rpc.replication_pb2_grpc import ReplicationStub
from agent_core.stream import to_message
from ops.local_cluster import LocalCluster
from tests.plans import small_plan

VOTER = "node-1"
PLAN = small_plan(cluster={"shard_count": 1, "shard_group_count": 1})
FAR = Position(1000, 1000)
"""Further than any log here: no voter refuses for want of records."""


async def seal(cluster: LocalCluster, epoch: int, candidate: str) -> pb.SealResponse:
    """Ask the voter, once it listens, for its seal."""
    request = pb.SealRequest(
        cluster_id=cluster.configurations[VOTER].cluster.id,
        group=0,
        epoch=epoch,
        candidate=candidate,
        last=to_message(FAR),
    )
    async with grpc.aio.insecure_channel(cluster.address(VOTER).grpc_address) as channel, asyncio.timeout(30):
        while True:
            answer = await ReplicationStub(channel).Seal(request, wait_for_ready=True)
            if not answer.lease_seconds:
                return answer
            # A voter that just started may have heard a primary a moment before it stopped.
            await asyncio.sleep(answer.lease_seconds)


async def test_a_promise_outlives_a_voter_that_is_killed_right_after_its_answer(tmp_path: Path) -> None:
    """Alone it elects nobody, so that all its promises are those that this test asks for."""
    cluster = LocalCluster(tmp_path, PLAN)
    voter = cluster._processes[VOTER]
    try:
        for epoch in range(1, 4):
            await voter.start()
            answer = await seal(cluster, epoch, "node-2")
            await voter.kill()
            assert answer.sealed
            await voter.start()
            again = await seal(cluster, epoch, "node-3")
            assert (again.sealed, again.promised_epoch) == (False, epoch)
            await voter.kill()
    finally:
        await cluster.stop()
