"""What was acknowledged by the primary's log alone, and died with the primary, is told as lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx

from agent_core.client import Client
from ops.benchmarks.placement import let_lead
from ops.local_cluster import LocalCluster
from tests.steady import steady_plan

SESSION = "session"
STANDBYS = ("node-2", "node-3")


async def test_a_position_that_died_with_its_primary_is_a_conflict_to_read_and_to_go_on_from(
    tmp_path: Path,
) -> None:
    plan = steady_plan(cluster={"acknowledgement": "local"})
    async with LocalCluster(tmp_path, plan) as cluster:
        await let_lead(cluster, "node-1")
        first = cluster.address("node-1").grpc_address
        async with Client(first, timeout_seconds=20) as client:
            await client.create_session(session_id=SESSION)
            kept = await client.append(SESSION, "message", {"number": 1})
            async with httpx.AsyncClient(base_url=f"http://{cluster.address('node-2').http_address}") as http:
                params = {"min_position": str(kept.position), "wait_ms": "20000"}
                arrived = await http.get(f"/v1/sessions/{SESSION}", params=params)
                assert arrived.status_code == 200, arrived.text
            await asyncio.gather(*map(cluster.kill, STANDBYS))
            lost = await client.append(SESSION, "message", {"number": 2})
            await cluster.kill("node-1")
        await asyncio.gather(*map(cluster.start_node, STANDBYS))
        others = [cluster.address(node_id) for node_id in STANDBYS]
        async with Client([node.grpc_address for node in others], timeout_seconds=60) as client:
            assert (await client.append(SESSION, "message", {"number": 3})).seq == lost.seq
        for node in others:
            async with httpx.AsyncClient(base_url=f"http://{node.http_address}") as http, asyncio.timeout(30):
                path, params = f"/v1/sessions/{SESSION}", {"min_position": str(lost.position), "wait_ms": "0"}
                while (answer := await http.get(path, params=params)).status_code == 503:
                    await asyncio.sleep(0.05)
                # Its seq names another entry by now.
                cursor = {"after_seq": str(lost.seq), "after_position": str(lost.position)}
                resumed = await http.get(f"{path}/events", params=cursor)
            assert (resumed.status_code, resumed.json()["error"]["code"]) == (409, "position_lost"), resumed.text
            assert (answer.status_code, answer.json()["error"]["code"]) == (409, "position_lost"), answer.text
