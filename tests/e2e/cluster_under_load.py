"""What the end-to-end tests share: writers that note what was acknowledged, and the check of all three nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import grpc.aio

from agent_core.client import Client
from agent_core.rpc.read_pb2_grpc import ReadingStub
from agent_core.rpc.session_pb2 import GetTranscriptRequest
from ops.local_cluster import LocalCluster
from ops.node_status import status_of
from ops.verify import ShardComparison, compare_nodes

Written = dict[str, list[bytes]]
"""The payloads that were acknowledged, in order, by session."""

DEADLINE_SECONDS = 60


class Load:
    """Writers that append as fast as they are acknowledged."""

    def __init__(self, client: Client, written: Written) -> None:
        self.written = written
        self._client = client
        self._stop = asyncio.Event()

    @property
    def acknowledged(self) -> int:
        """Entries acknowledged so far."""
        return sum(map(len, self.written.values()))

    async def more(self, count: int = 200) -> None:
        """Wait until so many more entries were acknowledged."""
        before = self.acknowledged
        await until(lambda: self.acknowledged >= before + count)

    def stop(self) -> None:
        """Let each writer end with its present append."""
        self._stop.set()

    async def write(self, session_id: str) -> None:
        """Append to a session until told to stop."""
        acknowledged = self.written[session_id]
        await self._client.create_session(session_id=session_id)
        while not self._stop.is_set():
            payload = b'{"number":%d}' % len(acknowledged)
            appended = await self._client.append(session_id, "message", payload)
            acknowledged.append(payload)
            assert appended.seq == len(acknowledged)


@asynccontextmanager
async def load(client: Client, *, writers: int, named: str = "writer") -> AsyncIterator[Load]:
    """Writers at work within, whose sessions begin with a name; at the end each has its last acknowledgement."""
    running = Load(client, {f"{named}-{number}": [] for number in range(writers)})
    async with asyncio.TaskGroup() as tasks:
        for session_id in running.written:
            tasks.create_task(running.write(session_id))
        yield running
        running.stop()


@asynccontextmanager
async def channels_of(cluster: LocalCluster) -> AsyncIterator[dict[str, grpc.aio.Channel]]:
    """A channel to each node."""
    async with AsyncExitStack() as stack:
        yield {
            node.node_id: await stack.enter_async_context(grpc.aio.insecure_channel(node.grpc_address))
            for node in cluster.addresses
        }


async def roles(cluster: LocalCluster) -> dict[str, set[str]]:
    """What each node says that it is in its groups."""
    async with channels_of(cluster) as channels:
        return {
            node: {group.role for group in (await status_of(channel)).groups} for node, channel in channels.items()
        }


async def differing(cluster: LocalCluster) -> list[ShardComparison]:
    """The shards that are not identical on all nodes."""
    async with channels_of(cluster) as channels:
        return [each for each in await compare_nodes(channels) if each.problem is not None]


async def assert_everywhere(cluster: LocalCluster, expected: Mapping[str, list[bytes]]) -> None:
    """Every node has identical shards and every expected entry, once and in order."""
    problems = [f"shard {each.shard}: {each.problem}" for each in await differing(cluster)]
    assert not problems, problems
    async with channels_of(cluster) as channels:
        for channel in channels.values():
            for session_id, payloads in expected.items():
                assert await transcript(channel, session_id) == payloads


async def transcript(channel: grpc.aio.Channel, session_id: str) -> list[bytes]:
    """A session's payloads as one node tells them."""
    reading, payloads = ReadingStub(channel), list[bytes]()
    while True:
        request = GetTranscriptRequest(session_id=session_id, after_seq=len(payloads), limit=1000)
        page = await reading.GetTranscript(request)
        assert [entry.seq for entry in page.entries] == list(
            range(len(payloads) + 1, len(payloads) + len(page.entries) + 1)
        )
        payloads += [entry.payload_json for entry in page.entries]
        if not page.more:
            return payloads


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():
            await asyncio.sleep(0.01)
