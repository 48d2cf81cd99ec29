"""Failures that lost or doubled writes in other systems, or kept them from coming back."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import pytest

from agent_core.client import Client
from agent_core.errors import OutcomeUnknown, Unavailable, WriteFailed
from agent_core.quorum import Acknowledgement
from agent_core.rpc.administration_pb2 import GroupStatus, StatusRequest
from agent_core.rpc.administration_pb2_grpc import AdministrationStub
from ops.benchmarks.placement import let_lead, map_of
from ops.cluster_files import CONFIGURATION_FILE, free_ports, node_directory
from ops.config import to_toml
from ops.local_cluster import NODE_COMMAND, LocalCluster, NodeProcess
from ops.node_log import NodeLog
from tests.e2e.cluster_under_load import assert_everywhere, until
from tests.plans import small_plan

SESSION = "session"
PRIMARY, STANDBY, THIRD = "node-1", "node-2", "node-3"
SETTINGS: dict[str, Any] = {
    "cluster": {"shard_count": 1, "shard_group_count": 1},
    "storage": {"segment_mib": 1, "log_retention_mib": 2, "log_tail_mib": 1, "checkpoint_mib": 1},
}
BLOCK = 200_000


@asynccontextmanager
async def running(
    directory: Path, on_log_line: Callable[[str, str], None] | None = None, *, readers: int = 0
) -> AsyncIterator[tuple[LocalCluster, Client]]:
    """A cluster that `PRIMARY` leads, and a client of all its nodes that has made `SESSION`."""
    plan = small_plan(readers=readers, **SETTINGS)
    async with LocalCluster(directory, plan, on_log_line=on_log_line) as cluster:
        await let_lead(cluster, PRIMARY)
        async with Client([node.grpc_address for node in cluster.addresses], timeout_seconds=60) as client:
            await client.create_session(session_id=SESSION)
            yield cluster, client


async def append(client: Client, number: int, acknowledgement: Acknowledgement | None = None) -> bytes:
    payload = b'{"number":%d}' % number
    await client.append(SESSION, "message", payload, acknowledgement=acknowledgement)
    return payload


async def log_of(cluster: LocalCluster) -> GroupStatus:
    """The primary's log, as it tells of it."""
    async with grpc.aio.insecure_channel(cluster.address(PRIMARY).grpc_address) as channel:
        return (await AdministrationStub(channel).Status(StatusRequest())).groups[0]


async def fill(client: Client, blocks: int) -> list[bytes]:
    """Append entries that do not compress."""
    payloads = [b'{"text":"' + os.urandom(BLOCK // 2).hex().encode() + b'"}' for _ in range(blocks)]
    for payload in payloads:
        await client.append(SESSION, "message", payload)
    return payloads


async def start_all(cluster: LocalCluster, *nodes: str) -> None:
    await asyncio.gather(*(cluster.start_node(node) for node in nodes))
    await cluster.wait_ready()


def send(cluster: LocalCluster, node: str, which: signal.Signals) -> None:
    pid = cluster.pid(node)
    assert pid is not None
    os.killpg(pid, which)


async def test_a_whole_cluster_that_is_killed_at_once_comes_back_with_everything(tmp_path: Path) -> None:
    async with running(tmp_path) as (cluster, client):
        written = [await append(client, number) for number in range(20)]
        await asyncio.gather(*(cluster.kill(node) for node in cluster.configurations))
        await start_all(cluster, *cluster.configurations)
        written += [await append(client, number) for number in range(20, 30)]
        await assert_everywhere(cluster, {SESSION: written})


async def test_a_majority_that_was_lost_comes_back_and_writes_go_on(tmp_path: Path) -> None:
    async with running(tmp_path) as (cluster, client):
        written = [await append(client, number) for number in range(5)]
        await asyncio.gather(cluster.kill(STANDBY), cluster.kill(THIRD))
        async with Client(cluster.address(PRIMARY).grpc_address, timeout_seconds=3) as hasty:
            with pytest.raises((OutcomeUnknown, Unavailable)):
                await hasty.append(SESSION, "message", b'{"number":5}', idempotency_key="five")
        await start_all(cluster, STANDBY, THIRD)
        appended = await client.append(SESSION, "message", b'{"number":5}', idempotency_key="five")
        assert appended.seq == 6
        written += [b'{"number":5}', await append(client, 6)]
        await assert_everywhere(cluster, {SESSION: written})


async def test_a_stale_primary_with_more_transactions_than_the_new_one_gives_them_up(tmp_path: Path) -> None:
    async with running(tmp_path) as (cluster, client):
        written = [await append(client, number) for number in range(5)]
        async with Client(cluster.address(PRIMARY).grpc_address) as alone:
            await asyncio.gather(cluster.kill(STANDBY), cluster.kill(THIRD))
            for number in range(100, 105):
                await append(alone, number, acknowledgement=Acknowledgement.LOCAL)
        await cluster.kill(PRIMARY)
        await asyncio.gather(cluster.start_node(STANDBY), cluster.start_node(THIRD))
        written += [await append(client, number) for number in range(5, 8)]
        await start_all(cluster, PRIMARY)
        written.append(await append(client, 8))
        await assert_everywhere(cluster, {SESSION: written})


async def test_a_primary_whose_disk_is_full_lets_another_lead(tmp_path: Path) -> None:
    async with running(tmp_path) as (cluster, client):
        written = [await append(client, number) for number in range(5)]
        pid = cluster.pid(PRIMARY)
        assert pid is not None
        # The kernel refuses whatever it would write past the first page of a file.
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        async with asyncio.timeout(30):
            while len(written) == 5:
                try:
                    written.append(await append(client, 5))
                except WriteFailed:
                    await asyncio.sleep(0.1)
                except OutcomeUnknown:
                    pytest.fail("a full disk is told, not waited for")
        cluster_map, _ = await map_of(cluster.address(STANDBY).grpc_address)
        assert cluster_map.placements[0].primary != PRIMARY
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        written.append(await append(client, 6))
        await assert_everywhere(cluster, {SESSION: written})


@pytest.mark.parametrize("dies", [STANDBY, PRIMARY])
async def test_a_resync_whose_end_dies_half_way_is_made_up_for(tmp_path: Path, dies: str) -> None:
    """The receiver, or the source: a node that is not resynced takes over from that one."""
    killed: list[str] = []

    def on_log_line(node: str, line: str) -> None:
        if node == STANDBY and "resync begins" in line and not killed:
            killed.append(dies)
            send(cluster, dies, signal.SIGKILL)

    async with running(tmp_path, on_log_line) as (cluster, client):
        await cluster.stop_node(STANDBY)
        missed_from = (await log_of(cluster)).durable.lsn + 1
        written = await fill(client, 40)
        async with asyncio.timeout(30):  # until the primary has dropped what the standby lacks
            while (await log_of(cluster)).log_first_lsn <= missed_from:
                await asyncio.sleep(0.05)
        starting = asyncio.gather(cluster.start_node(STANDBY), return_exceptions=True)
        await until(lambda: bool(killed))
        await starting
        await until(lambda: cluster.pid(dies) is None)
        await start_all(cluster, dies)
        written.append(await append(client, 1))
        await assert_everywhere(cluster, {SESSION: written})


@pytest.mark.parametrize("name", ["node-4", STANDBY, PRIMARY])
async def test_a_second_process_under_a_nodes_name_is_kept_out_and_told(tmp_path: Path, name: str) -> None:
    """Also a Raft member's, with whom the other members do not talk."""
    async with running(tmp_path / "cluster", readers=1) as (cluster, client):
        written = [await append(client, 1)]
        folder, own = node_directory(tmp_path / "copy", name), cluster.configurations[name]
        folder.mkdir(parents=True)
        text = to_toml(own).replace(str(own.node.data_directory), str(folder / "data"))
        node = own.own_address
        addresses = [node.grpc_address, node.http_address, *filter(None, [node.raft_address])]
        ports = free_ports(len(addresses))
        for address, port in zip(addresses, ports, strict=True):
            text = text.replace(f'"{address}"', f'"127.0.0.1:{port}"')
        (folder / CONFIGURATION_FILE).write_text(text)
        log = folder / "log.jsonl"
        command = (*NODE_COMMAND, "--config", str(folder / CONFIGURATION_FILE))
        double = NodeProcess(name, command, NodeLog(log, None), lambda _exit: None)
        await double.start()
        try:
            await until(lambda: f"two processes call themselves '{name}'" in log.read_text())
            async with httpx.AsyncClient() as http:
                assert (await http.get(f"http://127.0.0.1:{ports[1]}/readyz")).status_code == 503
            written.append(await append(client, 2))
        finally:
            await double.kill()
        await cluster.wait_ready()
        await assert_everywhere(cluster, {SESSION: written})
