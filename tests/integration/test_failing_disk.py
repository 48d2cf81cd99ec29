"""What the disk of a primary may do to it, and what its callers, its health and its metrics show of that."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from agent_core.client import Client
from agent_core.database.build import PAGE_SIZE
from agent_core.database.schema import FOLD_AFTER, shard_path
from agent_core.errors import HeadwaterError, OutcomeUnknown, Unavailable, WriteFailed
from agent_core.routing import ShardLayout
from ops.cluster_files import ClusterPlan
from ops.local_cluster import LocalCluster
from tests.integration import breakable_node
from tests.integration.breakable_node import LOSE_SYNC, LOSE_THREAD, LOSE_WAL
from tests.plans import small_plan
from tests.unit.primary_harness import primary

MIB = 1 << 20
PLAN = small_plan(voters=1, storage={"segment_mib": 1}, cluster={"shard_group_count": 1})
PATIENT = small_plan(
    voters=1,
    cluster={"shard_group_count": 1},
    # The node still leads when its health is looked at.
    election={"failure_timeout_seconds": 8.0},
    replication={"acknowledgement_timeout_seconds": 8.0},
)
ALL = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.02)


async def test_a_full_disk_refuses_writes_shows_itself_and_heals(tmp_path: Path) -> None:
    """The kernel refuses the shard's WAL from 4 MiB on; the log's segments are smaller and go on."""
    async with LocalCluster(tmp_path, PLAN) as cluster, httpx.AsyncClient() as http:
        node = cluster.address("node-1")
        pid = cluster.pid("node-1")
        assert pid is not None

        async def ready() -> bool:
            return (await http.get(f"http://{node.http_address}/readyz")).status_code == 200

        async with Client(node.grpc_address, timeout_seconds=10) as client:
            await client.create_session(session_id="a")
            await until(ready)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (4 * MIB, resource.RLIM_INFINITY))
            acknowledged = 0
            with pytest.raises(WriteFailed, match="nothing was written"):
                while acknowledged < 100:
                    await client.append("a", "message", {"text": os.urandom(50_000).hex()})
                    acknowledged += 1
            reasons = (await http.get(f"http://{node.http_address}/readyz")).json()["reasons"]
            assert "refused a transaction" in reasons[0]
            assert (await http.get(f"http://{node.http_address}/healthz")).status_code == 200
            metrics = (await http.get(f"http://{node.http_address}/metrics")).text
            assert 'headwater_append_failures_total{group="0",reason="write_failed"} 1.0' in metrics
            resource.prlimit(pid, resource.RLIMIT_FSIZE, ALL)
            after = await client.append("a", "message", {"text": "there is room again"})
            assert after.seq == acknowledged + 1
            await until(ready)
            assert [entry.seq async for entry in client.transcript("a")] == list(range(1, after.seq + 1))


async def test_a_damaged_shard_of_a_running_node_shows_in_its_health_and_metrics(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, PLAN) as cluster, httpx.AsyncClient() as http:
        node = cluster.address("node-1")
        layout = cluster.configurations["node-1"].cluster_map.layout
        damaged, sound = "a", next(name for name in "bcdefgh" if layout.shard_of(name) != layout.shard_of("a"))
        async with Client(node.grpc_address, timeout_seconds=10) as client:
            for name in (damaged, sound):
                await client.create_session(session_id=name)
            await client.append(damaged, "message", {"text": "before"})
            # All in the shard file, and nothing of it in memory but what a start reads.
            await cluster.restart("node-1")
            await client.append(damaged, "message", {"text": "the session is live again"})
            shard = layout.shard_of(damaged)
            path = shard_path(cluster.configurations["node-1"].node.data_directory, layout.shard_file_name(shard))
            with path.open("r+b") as file:
                size = path.stat().st_size
                file.seek(PAGE_SIZE)
                file.write(os.urandom(size - PAGE_SIZE))
            with pytest.raises(WriteFailed, match=f"shard {shard} refused"):
                for number in range(2 * FOLD_AFTER):  # folding reads pages that an append does not
                    await client.append(damaged, "message", {"number": number})
            answer = await http.get(f"http://{node.http_address}/readyz")
            assert answer.status_code == 503
            assert f"group 0: shard {shard} refused a transaction" in answer.json()["reasons"][0]
            assert (await http.get(f"http://{node.http_address}/healthz")).status_code == 200
            metrics = (await http.get(f"http://{node.http_address}/metrics")).text
            assert re.search(r'headwater_append_failures_total{group="0",reason="write_failed"} [1-9]', metrics)
            assert (await client.append(sound, "message", {"text": "goes on"})).seq == 1


@dataclass
class Breakable:
    """A node that a signal breaks, and a client of it."""

    cluster: LocalCluster
    client: Client
    http: httpx.AsyncClient

    async def breaks(self, fault: signal.Signals) -> None:
        """Break it, and append until that shows."""
        pid = self.cluster.pid("node-1")
        assert pid is not None
        os.kill(pid, fault)
        with pytest.raises((OutcomeUnknown, Unavailable)):
            for number in range(100):  # some may come before the signal
                await self.client.append("a", "message", {"number": number})

    async def leads(self) -> bool:
        groups = (await self.http.get("/v1/cluster")).json()["groups"]
        return [group["role"] for group in groups] == ["primary"]


@asynccontextmanager
async def breakable(directory: Path, plan: ClusterPlan) -> AsyncIterator[Breakable]:
    """It has taken an append to session a."""
    cluster = LocalCluster(directory, plan, command=(sys.executable, "-P", breakable_node.__file__))
    address = cluster.address("node-1")
    async with (
        cluster,
        Client(address.grpc_address, timeout_seconds=2) as client,
        httpx.AsyncClient(base_url=f"http://{address.http_address}") as http,
    ):
        await client.create_session(session_id="a")
        assert (await client.append("a", "message", {"text": "before"})).seq == 1
        yield Breakable(cluster, client, http)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        pytest.param(LOSE_WAL, "its WAL does not hold the transaction", id="the WAL"),
        pytest.param(LOSE_THREAD, "the group writer failed", id="the writing thread"),
    ],
)
async def test_a_writer_that_has_stopped_for_good_shows_in_its_nodes_health_and_metrics(
    tmp_path: Path, fault: signal.Signals, says: str
) -> None:
    async with breakable(tmp_path, PATIENT) as node:
        await node.breaks(fault)
        for path in ("/healthz", "/readyz"):
            answer = await node.http.get(path)
            assert answer.status_code == 503
            assert says in answer.json()["reasons"][0]
        metrics = (await node.http.get("/metrics")).text
        assert 'headwater_writer_failed{group="0"} 1.0' in metrics
        assert re.search(r'headwater_append_failures_total{group="0",reason="outcome_unknown"} [1-9]', metrics)


async def test_a_node_whose_log_could_not_be_made_durable_is_not_alive_until_it_is_started_again(
    tmp_path: Path,
) -> None:
    async with breakable(tmp_path, PLAN) as node:

        async def has_stepped_down() -> bool:
            return not await node.leads()

        await node.breaks(LOSE_SYNC)
        await until(has_stepped_down)
        answer = await node.http.get("/healthz")
        assert answer.status_code == 503
        assert "could not be made durable" in answer.json()["reasons"][0]
        await node.cluster.restart("node-1")
        await until(node.leads)
        assert (await node.http.get("/healthz")).status_code == 200
        await node.client.append("a", "message", {"text": "after"})


async def test_a_damaged_shard_fails_its_own_writes_and_no_others(tmp_path: Path) -> None:
    layout = ShardLayout(shard_count=4)
    damaged, sound = "a", next(name for name in "bcdefgh" if layout.shard_of(name) != layout.shard_of("a"))
    async with primary(tmp_path, layout=layout) as node:
        for name in (damaged, sound):
            await node.create(name)
            await node.append(name, "one")
        state = node.database.shards[layout.shard_of(damaged)]
        assert node.database.checkpoint(state.shard)
        state.connection.execute("PRAGMA shrink_memory")
        # Another process: closing the file in this one would drop SQLite's locks.
        overwrite = "import os, sys; os.pwrite(os.open(sys.argv[1], os.O_WRONLY), os.urandom(40 * 4096), 4096)"
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", overwrite, str(state.path))
        assert await process.wait() == 0
        outcome = await node.append(damaged, "two")
        assert isinstance(outcome.error, WriteFailed)
        assert f"shard {state.shard} refused" in (node.writer.trouble or "")
        assert node.writer.counters.failed["write_failed"] == 1
        assert node.writer.failure is None
        assert await node.texts(damaged) == [b'{"text":"one"}']
        actor = await node.registry.actor(damaged)
        assert (actor.outstanding, actor.next_seq) == (0, 2)
        assert (await node.append(sound, "two")).seq == 2


async def test_a_wal_that_does_not_hold_what_was_committed_stops_the_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with primary(tmp_path) as node:
        await node.create("a")
        monkeypatch.setattr("primary.capture.WalCapture.capture", lambda _: None)
        outcome = await node.append("a", "one")
        assert isinstance(outcome.error, OutcomeUnknown)
        assert "its WAL does not hold the transaction" in (node.writer.failure or "")


async def test_a_writing_thread_that_is_gone_fails_every_waiter(tmp_path: Path) -> None:
    async with primary(tmp_path) as node:
        await node.create("a")
        await node.writer._thread.close()
        requests = [node.submit("a", str(number)) for number in range(3)]
        await node.answers.wait(3)
        errors: list[HeadwaterError | None] = [node.answers.outcomes[request].error for request in requests]
        assert all(isinstance(error, OutcomeUnknown | Unavailable) for error in errors)
        assert node.writer.failure is not None
        assert node.writer.queued == 0
        assert await node.texts("a") == []
        assert isinstance((await node.append("a", "later")).error, Unavailable)
