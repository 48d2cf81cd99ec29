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
BATCH = 50
UNANSWERED = 1000
DEADLINE_SECONDS = 30


def append_number(number: int) -> AppendRequest:
    return AppendRequest(
        request_id=number,
        session_id=SESSIONS[number % len(SESSIONS)],
        kind="message",
        payload_json=b'{"number":%d,"text":"%s"}' % (number, b"x" * 500),
        idempotency_key=f"key-{number}",
    )


class InFlight:
    """Appends on one stream, some `UNANSWERED` at each moment, until a node refuses the first.

    Attributes:
        sent: All of them, in order.
        answered: The answers, by request id.
        some_answered: Set with each message of answers.
    """

    def __init__(self) -> None:
        self.sent: list[AppendRequest] = []
        self.answered: dict[int, AppendResult] = {}
        self.some_answered = asyncio.Event()
        self._refused = False

    async def run(self, address: str) -> None:
        """Return once each append that was sent is answered."""
        async with (
            asyncio.timeout(DEADLINE_SECONDS),
            grpc.aio.insecure_channel(address, options=client_options()) as one,
        ):
            call = SessionsStub(one).AppendStream()

            async def send() -> None:
                while not self._refused:
                    if len(self.sent) - len(self.answered) >= UNANSWERED:
                        self.some_answered.clear()
                        await self.some_answered.wait()
                        continue
                    batch = [append_number(len(self.sent) + 1 + place) for place in range(BATCH)]
                    self.sent += batch
                    await call.write(AppendBatch(appends=batch))
                await call.done_writing()

            sending = asyncio.create_task(send())
            async for message in call:
                for result in message.results:
                    assert result.request_id not in self.answered, "each append is answered once"
                    self.answered[result.request_id] = result
                    self._refused |= bool(result.error_code)
                self.some_answered.set()
            await sending


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
            appends = InFlight()
            appending = asyncio.create_task(appends.run(cluster.address(placement.primary).grpc_address))
            await appends.some_answered.wait()
            assert await cluster.stop_node(placement.primary) == 0
            await appending
            assert sorted(appends.answered) == [append.request_id for append in appends.sent]
            refused = [append for append in appends.sent if appends.answered[append.request_id].error_code]
            assert 0 < len(refused) < len(appends.sent), "it stopped in between"
            for append in refused:
                result = appends.answered[append.request_id]
                assert from_code(result.error_code, result.error_message).retry, result
            await running.more()
            await asyncio.gather(*(repeat(client, session_id, refused) for session_id in SESSIONS))
            await running.more()
        await cluster.start_node(placement.primary)
        expected = {
            session_id: [append.payload_json for append in appends.sent if append.session_id == session_id]
            for session_id in SESSIONS
        }
        await assert_everywhere(cluster, running.written | expected)
