"""Stands before a real node's gRPC port: passes every call on, and does to some of them what a test tells it to."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import grpc
import grpc.aio

from agent_core.errors import HeadwaterError
from agent_core.rpc import replication_pb2 as pb
from agent_core.rpc_errors import abort
from agent_core.transport import NODE_CHANNEL_OPTIONS, close_channel, server_options, stop_server
from ops.cluster_files import CONFIGURATION_FILE, free_ports, node_directory
from ops.config import to_toml
from ops.local_cluster import LocalCluster

STREAM, RESYNC, SEAL, PREPARE = (
    f"/headwater.v1.Replication/{name}" for name in ("Stream", "Resync", "Seal", "Prepare")
)
GET_CLUSTER = "/headwater.v1.ClusterReading/GetCluster"

Context = grpc.aio.ServicerContext[bytes, bytes]


class Relay(grpc.GenericRpcHandler):
    """Passes calls on as the bytes that they are made of.

    Attributes:
        address: Where it listens.
        tamper: Changes each message of a primary to a standby.
        before: Awaited before a response is passed on, with its method and how many of its call went before it.
        refusals: By method, what a call of it ends with instead of being passed on.
        failures: The calls that did not end well: their methods, and what was said.
        passed_on: By method, how many responses were passed on.
    """

    def __init__(self, address: str, channel: grpc.aio.Channel) -> None:
        self.address = address
        self._channel = channel
        self.tamper: Callable[[pb.FromPrimary], None] = lambda _message: None
        self.before: Callable[[str, int], Awaitable[None]] = _at_once
        self.refusals: Mapping[str, HeadwaterError] = {}
        self.failures: list[tuple[str, str]] = []
        self.passed_on: Counter[str] = Counter()

    def service(self, details: Any) -> Any:
        """Any method is one with a stream in either direction: on the wire all look alike."""
        return grpc.stream_stream_rpc_method_handler(partial(self._relay, details.method))

    async def _relay(self, method: str, requests: AsyncIterator[bytes], context: Context) -> None:
        if method in self.refusals:
            self.failures.append((method, str(self.refusals[method])))
            await abort(context, self.refusals[method])
        call: grpc.aio.StreamStreamCall[bytes, bytes] = self._channel.stream_stream(method)(
            metadata=context.invocation_metadata()
        )

        async def upwards() -> None:
            with suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
                async for request in requests:
                    await call.write(request)
                await call.done_writing()

        task = asyncio.create_task(upwards())
        try:
            passed_on = 0
            async for response in call:
                await self.before(method, passed_on)
                passed_on += 1
                await context.write(self._tampered(response) if method == STREAM else response)
                self.passed_on[method] += 1
        except grpc.aio.AioRpcError as error:
            self.failures.append((method, error.details() or ""))
            await context.abort(error.code(), error.details() or "", tuple(error.trailing_metadata()))
        finally:
            call.cancel()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _tampered(self, response: bytes) -> bytes:
        message = pb.FromPrimary.FromString(response)
        self.tamper(message)
        return message.SerializeToString()


async def _at_once(_method: str, _passed_on: int) -> None:
    """Nothing waits."""


@asynccontextmanager
async def relay_between(cluster: LocalCluster, node: str, other: str) -> AsyncIterator[Relay]:
    """Have `node`, which does not run yet, reach `other` through a relay."""
    real = cluster.address(other).grpc_address
    text = to_toml(cluster.configurations[node])
    assert f'"{real}"' in text
    async with relay_before(real) as relay:
        file = node_directory(cluster.directory, node) / CONFIGURATION_FILE
        file.write_text(text.replace(f'"{real}"', f'"{relay.address}"'))
        yield relay


@asynccontextmanager
async def relay_before(real: str) -> AsyncIterator[Relay]:
    """Pass on to an address what comes to the relay's."""
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    channel = grpc.aio.insecure_channel(real, options=NODE_CHANNEL_OPTIONS)
    relay = Relay(address, channel)
    server = grpc.aio.server(options=server_options())
    server.add_generic_rpc_handlers((relay,))
    server.add_insecure_port(address)
    await server.start()
    try:
        yield relay
    finally:
        await stop_server(server)
        await close_channel(channel)
