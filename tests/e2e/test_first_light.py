"""Three real processes carry real transcripts while each of them is killed in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import grpc.aio

from agent_core.client import Client
from agent_core.rpc.read_pb2_grpc import ReadingStub
from agent_core.rpc.session_pb2 import GetTranscriptRequest
from agent_core.transcripts import ImportedEntry, read_transcript
from ops.cluster_files import ClusterPlan
from ops.importing import import_files, transcript_files
from ops.local_cluster import LocalCluster
from ops.sample_transcripts import sample_paths
from ops.verify import compare_nodes

REAL = Path(__file__).parents[3] / "shared" / "data" / "transcripts"
WRITERS = 8


def real_files() -> list[Path]:
    """The real transcripts where they lie beside the project; else the product's own sample."""
    return transcript_files([REAL]) if REAL.is_dir() else sample_paths()


async def test_every_acknowledged_entry_survives_the_kill_of_each_node_in_turn(tmp_path: Path) -> None:
    expected: dict[str, list[bytes]] = {}
    for path in real_files():
        for found in read_transcript(path):
            if isinstance(found, ImportedEntry):
                expected.setdefault(found.session_id, []).append(found.payload)

    async with LocalCluster(tmp_path, ClusterPlan(base_port=0)) as cluster:
        primary = cluster.address("node-1").grpc_address
        async with Client(primary, timeout_seconds=60) as client:
            summary = await import_files(client, real_files())
            assert summary.entries_added == sum(len(payloads) for payloads in expected.values())
            again = await import_files(client, real_files())
            assert (again.entries_added, again.entries_already_there) == (0, summary.entries_added)

            stop = asyncio.Event()
            written: dict[str, list[bytes]] = {f"writer-{number}": [] for number in range(WRITERS)}

            async def write(session_id: str, acknowledged: list[bytes]) -> None:
                await client.create_session(session_id=session_id)
                while not stop.is_set():
                    payload = b'{"number":%d}' % len(acknowledged)
                    appended = await client.append(session_id, "message", payload)
                    acknowledged.append(payload)
                    assert appended.seq == len(acknowledged)

            writers = [asyncio.create_task(write(*item)) for item in written.items()]
            for node in ("node-2", "node-3", "node-1"):
                before = _count(written.values())
                await _until(lambda count=before: _count(written.values()) >= count + 200)
                await cluster.kill(node)
                if node != "node-1":
                    before = _count(written.values())
                    await _until(lambda count=before: _count(written.values()) >= count + 200)
                await cluster.restart(node)
            before = _count(written.values())
            await _until(lambda count=before: _count(written.values()) >= count + 200)
            stop.set()
            await asyncio.gather(*writers)

        channels = {node.node_id: grpc.aio.insecure_channel(node.grpc_address) for node in cluster.addresses}
        comparisons = await compare_nodes(channels)
        assert [comparison.problem for comparison in comparisons] == [None] * len(comparisons)
        for channel in channels.values():
            for session_id, payloads in {**expected, **written}.items():
                assert await _transcript(channel, session_id) == payloads
            await channel.close()


def _count(written: Iterable[list[bytes]]) -> int:
    return sum(len(payloads) for payloads in written)


async def _transcript(channel: grpc.aio.Channel, session_id: str) -> list[bytes]:
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


async def _until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)
