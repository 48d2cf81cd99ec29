"""Connections that carry nothing stay open, and what hangs in gRPC's end does not hang its owner."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from agent_core import transport
from agent_core.rpc.session_pb2 import SubscribeRequest
from agent_core.rpc.session_pb2_grpc import SessionsServicer, SessionsStub, add_SessionsServicer_to_server
from agent_core.transport import Options, client_options, close_channel, server_options, stop_server
from tests.mounted_hosts import with_hosts

KEEPALIVE_MS = 50
IDLE_SECONDS = 1.0
"""Twenty pings: gRPC's server closes the connection at the third that comes too early."""

MOVING_SERVER = Path(__file__).with_name("moving_server.py")
SOON_SECONDS = 15.0
"""Half of what gRPC takes without being told; a second on a machine that has nothing else to do."""


class Silent(SessionsServicer):
    """Takes a subscription and says nothing."""

    async def Subscribe(  # type: ignore[override]  # noqa: N802 - gRPC's name; the asynchronous form of it
        self, request: SubscribeRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        await asyncio.Event().wait()


@asynccontextmanager
async def idle_stream(options: Options) -> AsyncIterator[Any]:
    server = grpc.aio.server(options=options)
    silent = Silent()  # type: ignore[abstract] # nothing else of the service is called
    add_SessionsServicer_to_server(silent, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=client_options(keepalive_ms=KEEPALIVE_MS))
    try:
        yield SessionsStub(channel).Subscribe(SubscribeRequest(session_id="a"))
    finally:
        await close_channel(channel)
        await stop_server(server)


async def test_a_stream_that_carries_nothing_stays_open() -> None:
    async with idle_stream(server_options(keepalive_ms=KEEPALIVE_MS)) as call:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(IDLE_SECONDS):
                await call.read()


async def test_a_server_that_does_not_expect_the_pings_closes_such_a_stream() -> None:
    # Why `server_options` says anything about pings at all; should gRPC change its mind, this tells.
    async with idle_stream(()) as call:
        with pytest.raises(grpc.aio.AioRpcError, match=r"too_many_pings|Too many pings"):
            async with asyncio.timeout(30):
                await call.read()


async def test_an_end_that_hangs_in_grpc_does_not_hang_its_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging:
        """A server or channel whose end neither comes nor lets itself be cancelled at once."""

        def __init__(self) -> None:
            self.released = asyncio.Event()

        async def stop(self, grace: float | None) -> None:
            while not self.released.is_set():
                try:
                    await self.released.wait()
                except asyncio.CancelledError:
                    continue

        async def close(self) -> None:
            await self.stop(None)

    monkeypatch.setattr(transport, "END_SECONDS", 0.05)
    hanging: Any = Hanging()
    async with asyncio.timeout(5):
        await stop_server(hanging, 0.05)
        await close_channel(hanging)
    hanging.released.set()


async def test_what_fails_at_the_end_is_told() -> None:
    class Broken:
        async def close(self) -> None:
            raise RuntimeError("the channel is broken")

    broken: Any = Broken()
    with pytest.raises(RuntimeError, match="broken"):
        await close_channel(broken)


@pytest.mark.parametrize("kind", ["client", "node"])
def test_a_server_that_moved_to_another_address_of_its_name_is_found_again_soon(kind: str, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.touch()
    command = with_hosts(hosts, sys.executable, str(MOVING_SERVER), str(hosts), kind)
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr
    assert float(outcome.stdout) < SOON_SECONDS
