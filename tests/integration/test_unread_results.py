"""A client on real gRPC that sends appends and never reads a result is stopped, and costs the primary little."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from agent_core.rpc.session_pb2 import AppendBatch, AppendRequest
from agent_core.rpc.session_pb2_grpc import SessionsStub, add_SessionsServicer_to_server
from agent_core.transport import client_options, close_channel, server_options, stop_server
from primary.checks import WriteChecks
from primary.service import SessionsService
from tests.unit.primary_harness import Primary, primary

# Refused at once, with a long reason: nothing but their unread results can stop them.
REFUSED = [AppendRequest(request_id=number, session_id="a", kind="?" * 80) for number in range(500)]
MAX_SENT = 1_000
STALLED_SECONDS = 2.0


@asynccontextmanager
async def served(node: Primary) -> AsyncIterator[grpc.aio.Channel]:
    async def no_listing(_: Any) -> Any:
        raise NotImplementedError

    server = grpc.aio.server(options=server_options())
    service = SessionsService(node.registry, node.registry._layout, WriteChecks(), no_listing)
    add_SessionsServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=client_options())
    try:
        yield channel
    finally:
        await close_channel(channel)
        await stop_server(server)


async def test_a_client_that_never_reads_its_results_cannot_send_on(tmp_path: Path) -> None:
    async with primary(tmp_path) as node, served(node) as channel:
        call = SessionsStub(channel).AppendStream()
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < MAX_SENT:
                await asyncio.wait_for(call.write(AppendBatch(appends=REFUSED)), STALLED_SECONDS)
                sent += 1
        call.cancel()
