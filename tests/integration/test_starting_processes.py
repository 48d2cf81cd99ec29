"""What is set before gRPC is imported: a process that speaks gRPC starts others, and waits in few threads."""

from __future__ import annotations

import subprocess
import sys

STARTS_PROCESSES = """
import ops
import asyncio
import grpc.aio
import uvloop

async def main():
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await channel.channel_ready()
        for _ in range(20):
            process = await asyncio.create_subprocess_exec("/bin/true", start_new_session=True)
            print(await process.wait())
    await server.stop(0)

uvloop.run(main())
"""


def test_grpc_does_not_take_part_in_starting_a_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STARTS_PROCESSES], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["0"] * 20
    assert "fork" not in done.stderr


def test_grpc_knows_the_experiments_that_are_switched_off() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STARTS_PROCESSES], capture_output=True, text=True, check=True, timeout=60
    )
    assert "experiment" not in done.stderr
