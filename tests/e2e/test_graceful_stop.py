"""SIGTERM to a primary with appends in flight: each is answered, the node ends well, nothing is lost or doubled."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc.aio

from agent_core.client import Client
from agent_core.errors import from_code
from agent_core.rpc.session_pb2 import AppendBatch, AppendRequest, AppendResult
from agent_core.rpc.session_pb2_grpc import SessionsStub
from agent_core.transport import client_options
from ops.benchmarks.placement import map_of
from ops.local_cluster import LocalCluster
from tests.e2e.cluster_under_load import assert_everywhere, load
from tests.plans import small_plan

SESSIONS = [f"in-flight-{number}" for number in range(8)]
APPENDS = [
    AppendRequest(
        request_id=number + 1,
        session_id=SESSIONS[number % len(SESSIONS)],
        kind="message",
        payload_json=b'{"number":%d,"text":"%s"}' % (number, b"x" * 500),
        idempotency_key=f"key-{number}",
    )
    for number in range(4000)
]
BATCH = 50
DEADLINE_SECONDS = 30


async def answers(address: str, some_answered: asyncio.Event) -> dict[int, AppendResult]:
    """Send everything at once on one stream to one node; its answer to each append, once all have come."""
    results: dict[int, AppendResult] = {}
    async with (
        asyncio.timeout(DEADLINE_SECONDS),
        grpc.aio.insecure_channel(address, options=client_options()) as one,
    ):
        call = SessionsStub(one).AppendStream()

        async def send() -> None:
            for first in range(0, len(APPENDS), BATCH):
                await call.write(AppendBatch(appends=APPENDS[first : first + BATCH]))
            await call.done_writing()

        sending = asyncio.create_task(send())
        async for message in call:
            for result in message.results:
                assert result.request_id not in results, "each append is answered once"
                results[result.request_id] = result
            some_answered.set()
        await sending
    return results


async def repeat(client: Client, session_id: str, refused: list[AppendRequest]) -> None:
    """Send again what was refused of a session, in order and with the same keys, as a client does."""
    for append in refused:
        if append.session_id == session_id:
            await client.append(
                session_id, append.kind, append.payload_json, idempotency_key=append.idempotency_key
            )


async def test_a_primary_that_is_told_to_stop_answers_every_append_in_flight(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, small_plan()) as cluster:
        addresses = [node.grpc_address for node in cluster.addresses]
        placement = (await map_of(addresses[0]))[0].placements[0]
        assert placement.primary is not None
        async with Client(addresses, timeout_seconds=60) as client, load(client, writers=4) as running:
            for session_id in SESSIONS:
                await client.create_session(session_id=session_id)
            await running.more()
            some_answered = asyncio.Event()
            answering = asyncio.create_task(answers(cluster.address(placement.primary).grpc_address, some_answered))
            await some_answered.wait()
            assert await cluster.stop_node(placement.primary) == 0
            answered = await answering
            assert sorted(answered) == [append.request_id for append in APPENDS]
            refused = [append for append in APPENDS if answered[append.request_id].error_code]
            assert 0 < len(refused) < len(APPENDS), "it stopped in between"
            for append in refused:
                result = answered[append.request_id]
                assert from_code(result.error_code, result.error_message).retry, result
            await running.more()
            await asyncio.gather(*(repeat(client, session_id, refused) for session_id in SESSIONS))
            await running.more()
        await cluster.start_node(placement.primary)
        expected = {
            session_id: [append.payload_json for append in APPENDS if append.session_id == session_id]
            for session_id in SESSIONS
        }
        await assert_everywhere(cluster, running.written | expected)
