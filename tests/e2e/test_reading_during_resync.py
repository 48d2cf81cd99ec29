"""A standby that is being resynced goes on answering reads: with its old state, then with the new one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import grpc.aio
import httpx
import orjson

from agent_core.client import Client
from agent_core.rpc.administration_pb2 import StatusRequest
from agent_core.rpc.administration_pb2_grpc import AdministrationStub
from agent_core.rpc.read_pb2_grpc import ReadingStub
from agent_core.rpc.session_pb2 import GetTranscriptRequest
from agent_core.stream import to_message
from ops.benchmarks.placement import let_lead
from ops.local_cluster import LocalCluster
from tests.e2e.cluster_under_load import DEADLINE_SECONDS, assert_everywhere, transcript
from tests.e2e.relay import RESYNC, relay_between
from tests.steady import steady_plan

PRIMARY, STANDBY = "node-1", "node-3"
READ, FILLING = "read", "filling"
SETTINGS = {
    "cluster": {"shard_count": 1, "shard_group_count": 1},
    "storage": {"segment_mib": 1, "log_retention_mib": 2, "log_tail_mib": 1, "checkpoint_mib": 1},
}
HELD_AFTER = 3
"""Responses of a resync: its snapshot, and 1 MiB of pages in each of the others."""
READS = 50


async def outgrow_log(cluster: LocalCluster, client: Client) -> list[bytes]:
    """Append until the primary has dropped what the stopped standby lacks."""
    written: list[bytes] = []
    async with grpc.aio.insecure_channel(cluster.address(PRIMARY).grpc_address) as channel:
        status = AdministrationStub(channel).Status
        missed_from = (await status(StatusRequest())).groups[0].durable.lsn + 1
        async with asyncio.timeout(DEADLINE_SECONDS):
            while len(written) < 40 or (await status(StatusRequest())).groups[0].log_first_lsn <= missed_from:
                written.append(b'"%s"' % os.urandom(100_000).hex().encode())
                await client.append(FILLING, "message", written[-1])
    return written


async def read_until(new: list[bytes], read: Callable[[], Awaitable[list[bytes]]]) -> list[list[bytes]]:
    """Read again and again; what each read answered, up to the first that answered `new`."""
    answers: list[list[bytes]] = []
    async with asyncio.timeout(DEADLINE_SECONDS):
        while new not in answers:
            answers.append(await read())
    return answers


async def test_reads_go_on_during_a_resync_and_show_the_old_state_then_the_new(tmp_path: Path) -> None:
    cluster = LocalCluster(tmp_path, steady_plan(**SETTINGS))
    amid, go_on = asyncio.Event(), asyncio.Event()

    async def hold(method: str, passed_on: int) -> None:
        if method == RESYNC and passed_on == HELD_AFTER:
            amid.set()
            await go_on.wait()

    async with AsyncExitStack() as stack:
        relay = await stack.enter_async_context(relay_between(cluster, STANDBY, PRIMARY))
        await stack.enter_async_context(cluster)
        await let_lead(cluster, PRIMARY)
        client = await stack.enter_async_context(Client(cluster.address(PRIMARY).grpc_address, timeout_seconds=60))
        http = await stack.enter_async_context(
            httpx.AsyncClient(base_url=f"http://{cluster.address(STANDBY).http_address}")
        )
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(cluster.address(STANDBY).grpc_address))
        old = [b'{"number":%d}' % number for number in range(5)]
        new = [*old, b'{"number":5}']
        for session_id in (READ, FILLING):
            await client.create_session(session_id=session_id)
        for payload in old:
            appended = await client.append(READ, "message", payload)
        shown = GetTranscriptRequest(session_id=READ, min_position=to_message(appended.position))
        await ReadingStub(channel).GetTranscript(shown)  # another voter's acknowledgement may have been enough
        await cluster.stop_node(STANDBY)
        await client.append(READ, "message", new[-1])
        filled = await outgrow_log(cluster, client)

        async def over_http() -> list[bytes]:
            answer = await http.get(f"/v1/sessions/{READ}/transcript")
            assert answer.status_code == 200, answer.text
            return [orjson.dumps(entry["payload"]) for entry in answer.json()["entries"]]

        async def over_grpc() -> list[bytes]:
            return await transcript(channel, READ)

        relay.before = hold
        starting = asyncio.create_task(cluster.start_node(STANDBY))
        await asyncio.wait_for(amid.wait(), DEADLINE_SECONDS)
        for read in (over_http, over_grpc):
            for _ in range(READS):
                assert await read() == old
        not_ready = await http.get("/readyz")
        assert (not_ready.status_code, "resync" in not_ready.text) == (503, True), not_ready.text
        go_on.set()
        for answers in await asyncio.gather(read_until(new, over_http), read_until(new, over_grpc)):
            assert answers == [old] * (len(answers) - 1) + [new]
        await starting
        await assert_everywhere(cluster, {READ: new, FILLING: filled})
