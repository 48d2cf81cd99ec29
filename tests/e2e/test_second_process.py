"""A second process under a node's name is kept out and told, and the cluster goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from agent_core.client import Client
from ops.benchmarks.placement import let_lead
from ops.cluster_files import CONFIGURATION_FILE, free_ports, node_directory
from ops.config import to_toml
from ops.local_cluster import NODE_COMMAND, LocalCluster, NodeProcess
from ops.node_log import NodeLog
from tests.e2e.cluster_under_load import assert_everywhere, until
from tests.plans import small_plan

pytestmark = pytest.mark.asyncio(loop_scope="module")

PRIMARY, STANDBY, READER = "node-1", "node-2", "node-4"
FIRST, SECOND = b'{"number":1}', b'{"number":2}'


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(module_path: Path) -> AsyncIterator[LocalCluster]:
    plan = small_plan(readers=1, cluster={"shard_count": 1, "shard_group_count": 1})
    async with LocalCluster(module_path, plan) as cluster:
        yield cluster


@pytest_asyncio.fixture(loop_scope="module")
async def client(cluster: LocalCluster) -> AsyncIterator[Client]:
    """Of all nodes, while `PRIMARY` leads."""
    await let_lead(cluster, PRIMARY)
    async with Client([node.grpc_address for node in cluster.addresses], timeout_seconds=60) as client:
        yield client


@pytest.mark.parametrize("name", [READER, STANDBY, PRIMARY])
async def test_a_second_process_under_a_nodes_name_is_kept_out_and_told(
    cluster: LocalCluster, client: Client, tmp_path: Path, name: str
) -> None:
    """Also a Raft member's, with whom the other members do not talk."""
    session_id = (await client.create_session()).session_id
    await client.append(session_id, "message", FIRST)
    folder, own = node_directory(tmp_path, name), cluster.configurations[name]
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
        await client.append(session_id, "message", SECOND)
    finally:
        await double.kill()
    await cluster.wait_ready()
    await assert_everywhere(cluster, {session_id: [FIRST, SECOND]})
