"""A gRPC server whose name gets another address, and a channel to the name: `moving_server.py HOSTS KIND`.

HOSTS is a hosts file that is mounted over the system's in a namespace of this process. Prints after how many
seconds the channel had found the server again.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import grpc
import grpc.aio

from agent_core.transport import NODE_CHANNEL_OPTIONS, client_options, server_options
from ops.cluster_files import free_ports

OPTIONS = {"client": client_options(), "node": NODE_CHANNEL_OPTIONS}
HOST = "moves.example.internal"
SECONDS = 60


async def serve(hosts: Path, address: str, port: int) -> grpc.aio.Server:
    await asyncio.to_thread(hosts.write_text, f"127.0.0.1 localhost\n{address} {HOST}\n")
    server = grpc.aio.server(options=server_options())
    server.add_insecure_port(f"{address}:{port}")
    await server.start()
    return server


async def main() -> None:
    hosts, kind = Path(sys.argv[1]), sys.argv[2]
    (port,) = free_ports(1)
    server = await serve(hosts, "127.0.0.2", port)
    async with asyncio.timeout(SECONDS), grpc.aio.insecure_channel(f"{HOST}:{port}", OPTIONS[kind]) as channel:
        await channel.channel_ready()
        await server.stop(0)
        server = await serve(hosts, "127.0.0.3", port)
        moved_at = time.monotonic()
        call = channel.unary_unary("/nothing/Here", request_serializer=bytes, response_deserializer=bytes)
        answer: grpc.StatusCode | None = None
        while answer is not grpc.StatusCode.UNIMPLEMENTED:
            try:
                await call(b"", timeout=1)
            except grpc.aio.AioRpcError as error:
                answer = error.code()
            await asyncio.sleep(0.02)
        sys.stdout.write(f"{time.monotonic() - moved_at:.2f}\n")
    await server.stop(0)


if __name__ == "__main__":
    asyncio.run(main())
