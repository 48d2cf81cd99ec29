"""A primary that no longer hears its voters, on real processes: what its callers see, and when."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import httpx
import pytest

from agent_core.client import Client
from agent_core.errors import NotPrimary, OutcomeUnknown, Unavailable
from agent_core.rpc.session_pb2 import AppendRequest, GetTranscriptRequest
from agent_core.rpc.session_pb2_grpc import SessionsStub
from agent_core.rpc_errors import from_rpc_error
from ops.benchmarks.placement import let_lead
from ops.local_cluster import LocalCluster
from tests.e2e.cluster_under_load import assert_everywhere, until
from tests.plans import small_plan

SESSION = "session"
PRIMARY, STANDBYS = "node-1", ("node-2", "node-3")
LEASE_SECONDS = 1.5
FAILURE_TIMEOUT_SECONDS = 2.5
ACKNOWLEDGEMENT_TIMEOUT_SECONDS = 4.0
SLACK_SECONDS = 1.0
"""For a machine that does other things too."""
PLAN = small_plan(
    cluster={"shard_count": 1, "shard_group_count": 1},
    election={"lease_seconds": LEASE_SECONDS, "failure_timeout_seconds": FAILURE_TIMEOUT_SECONDS},
    replication={"acknowledgement_timeout_seconds": ACKNOWLEDGEMENT_TIMEOUT_SECONDS},
)
FIRST, SECOND = b'{"number":1}', b'{"number":2}'


@asynccontextmanager
async def frozen(cluster: LocalCluster, *nodes: str) -> AsyncIterator[float]:
    """These nodes stand still within; since when, on the loop's clock."""

    def send(which: signal.Signals) -> None:
        for node in nodes:
            pid = cluster.pid(node)
            assert pid is not None
            os.killpg(pid, which)

    send(signal.SIGSTOP)
    try:
        yield asyncio.get_running_loop().time()
    finally:
        send(signal.SIGCONT)


async def test_a_primary_that_loses_its_quorum_answers_unknown_reads_within_its_lease_and_steps_down(
    tmp_path: Path,
) -> None:
    said: list[str] = []
    loop = asyncio.get_running_loop()
    async with LocalCluster(
        tmp_path, PLAN, on_log_line=lambda node, line: said.append(line) if node == PRIMARY else None
    ) as cluster:
        await let_lead(cluster, PRIMARY)
        primary = cluster.address(PRIMARY)
        async with (
            Client([node.grpc_address for node in cluster.addresses], timeout_seconds=30) as client,
            grpc.aio.insecure_channel(primary.grpc_address) as channel,
            httpx.AsyncClient(base_url=f"http://{primary.http_address}") as http,
        ):
            await client.create_session(session_id=SESSION)
            await client.append(SESSION, "message", FIRST)
            sessions = SessionsStub(channel)
            said.clear()

            async with frozen(cluster, *STANDBYS) as since:
                request = AppendRequest(
                    session_id=SESSION, kind="message", payload_json=SECOND, idempotency_key="two"
                )
                appending = asyncio.ensure_future(sessions.Append(request, timeout=30))
                read_last_at = 0.0
                while not appending.done():
                    asked_at = loop.time()
                    try:
                        page = await sessions.GetTranscript(GetTranscriptRequest(session_id=SESSION), timeout=10)
                    except grpc.aio.AioRpcError as error:
                        assert isinstance(from_rpc_error(error), Unavailable | NotPrimary)
                    else:
                        read_last_at = asked_at
                        assert [entry.payload_json for entry in page.entries] == [FIRST]
                    await asyncio.sleep(0.02)

                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await appending
                assert isinstance(from_rpc_error(refused.value), OutcomeUnknown)
                unknown_after = loop.time() - since
                assert unknown_after <= FAILURE_TIMEOUT_SECONDS + SLACK_SECONDS < ACKNOWLEDGEMENT_TIMEOUT_SECONDS
                assert 0.0 <= read_last_at - since <= LEASE_SECONDS

                await until(lambda: any("steps down" in line and "no majority" in line for line in said))
                readiness = await http.get("/readyz")
                assert readiness.status_code == 503
                assert readiness.json()["reasons"]
                assert 'headwater_step_downs_total{group="0"} 1.0' in (await http.get("/metrics")).text

            appended = await client.append(SESSION, "message", SECOND, idempotency_key="two")
            assert appended.seq == 2
            await cluster.wait_ready()
            await assert_everywhere(cluster, {SESSION: [FIRST, SECOND]})
