"""A transaction of 200 MB, from a primary's SQLite to a standby's, each in a process of its own."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from agent_core.database.pages import PageSnapshot
from agent_core.database.schema import shard_path
from tests.integration.large_transaction import DEADLINE_SECONDS, LAYOUT, SHARD

MEGABYTES = 200
OTHER_BYTES = 64 << 20
"""What a side may take beside copies of the transaction: the log's tail, SQLite's caches, gRPC's buffers."""


class Side:
    """One process of `large_transaction`."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, *arguments: object) -> Side:
        command = (sys.executable, "-m", "tests.integration.large_transaction", *map(str, arguments))
        return cls(await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE))

    async def hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        async with asyncio.timeout(DEADLINE_SECONDS):
            line = await self._process.stdout.readline()
        return dict(json.loads(line))

    async def end(self) -> None:
        await asyncio.wait_for(self._process.communicate(b"\n"), DEADLINE_SECONDS)
        assert self._process.returncode == 0

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def test_it_arrives_page_by_page_and_takes_bounded_memory(stack: AsyncExitStack, tmp_path: Path) -> None:
    primary = await Side.start("primary", tmp_path / "primary", MEGABYTES)
    stack.push_async_callback(primary.kill)
    standby = await Side.start("standby", tmp_path / "standby", (await primary.hear())["port"])
    stack.push_async_callback(standby.kill)
    assert await primary.hear() == {"ready": True}
    sent, applied = await asyncio.gather(primary.hear(), standby.hear())
    transaction = sent["transaction_bytes"]
    assert transaction > MEGABYTES << 20
    assert sent["streams"] == 1, "it came at the first try"
    # The frames as they came from the WAL, compressed, and as a record; nothing of it stays.
    assert sent["peak_bytes"] < 3 * transaction + OTHER_BYTES
    assert sent["held_bytes"] < OTHER_BYTES
    # Received: the parts, and the record they make. Applied: that record, as the log holds it, and its frames; the
    # receiving end may not have let go of the record yet.
    assert applied["peak_bytes"] < 3 * transaction + OTHER_BYTES
    await asyncio.gather(primary.end(), standby.end())
    assert digest(tmp_path / "primary") == digest(tmp_path / "standby")


def digest(directory: Path) -> tuple[int, bytes]:
    """How many pages a side's shard has, and what they hash to."""
    snapshot = PageSnapshot.open(shard_path(directory, LAYOUT.shard_file_name(SHARD)))
    try:
        return snapshot.page_count, snapshot.hashes(1, snapshot.page_count)
    finally:
        snapshot.close()
