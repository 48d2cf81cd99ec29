"""Who leads by an operator's will: switch-over, draining, status, readers and nodes beyond the Raft members."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from agent_core.client import Client
from ops.cli.main import main
from ops.cluster_files import CONFIGURATION_FILE, ClusterPlan, lay_out
from ops.failover_demo import run_failover_demo
from ops.local_cluster import LocalCluster, LocalClusterError
from ops.operating import Operator
from tests.e2e.cluster_under_load import assert_everywhere, load
from tests.plans import small_plan

DEADLINE_SECONDS = 30
GROUPS: dict[str, Any] = {"cluster": {"shard_group_count": 3}}


async def headwater(*arguments: str) -> Result:
    """Run a command in a thread of its own."""
    return await asyncio.to_thread(CliRunner().invoke, main, arguments)


async def switch_over(group: int, to: str, asked: str) -> dict[str, Any]:
    """Move a group; the answer."""
    done = await headwater("switchover", "--group", str(group), "--to", to, "--node", asked, "--json")
    assert done.exit_code == 0, done.stderr
    return dict(json.loads(done.stdout))


async def statuses(cluster: LocalCluster) -> dict[str, Any]:
    """What each node that is reached tells of itself, by node id."""
    addresses = ",".join(node.grpc_address for node in cluster.addresses)
    answers = json.loads((await headwater("status", "--nodes", addresses, "--json")).stdout)
    return {answer["node_id"]: answer for answer in answers.values() if answer is not None}


async def primaries(cluster: LocalCluster) -> list[str]:
    """Who leads each group, once every group is led by a node that serves it."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            leading = {
                group.get("group", 0): name
                for name, answer in (await statuses(cluster)).items()
                for group in answer["groups"]
                if group["role"] == "primary" and not answer.get("not_ready")
            }
            if len(leading) == GROUPS["cluster"]["shard_group_count"]:
                return [leading[group] for group in sorted(leading)]
            await asyncio.sleep(0.05)


async def test_groups_move_under_load_without_an_error_and_without_a_loss(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, small_plan(**GROUPS)) as cluster:
        before = await primaries(cluster)
        assert len(set(before)) > 1
        addresses = [node.grpc_address for node in cluster.addresses]
        async with Client(addresses, timeout_seconds=60) as client, load(client, writers=8) as running:
            await running.more()
            to = next(name for name in before if name != before[0])
            assert (await switch_over(0, to, addresses[0]))["moved"] is True
            await running.more()
            drained = await headwater("drain", to, "--node", addresses[1])
            assert (drained.exit_code, f"{to} leads nothing and is draining" in drained.stdout) == (0, True)
            await running.more()
            assert to not in await primaries(cluster)
            refused = await headwater("switchover", "--group", "0", "--to", to, "--node", addresses[2])
            assert (refused.exit_code, refused.stderr) == (1, f"headwater: {to} is draining; undrain it first\n")
            table = await headwater("status", "--nodes", ",".join(addresses))
            assert f"draining: {to}" in table.stdout
            assert (await headwater("undrain", to, "--node", addresses[2])).exit_code == 0
            await switch_over(2, to, addresses[0])
            await running.more()
        assert (await primaries(cluster))[2] == to
        await metrics_and_routes_agree(cluster, to)
        await assert_everywhere(cluster, running.written)


async def metrics_and_routes_agree(cluster: LocalCluster, primary: str) -> None:
    async with httpx.AsyncClient(base_url=f"http://{cluster.address(primary).http_address}") as http:
        told = (await http.get("/v1/cluster")).json()
        scraped = (await http.get("/metrics")).text
    election = told["elections"][2]
    assert (election["primary"], election["promised_to"]) == (primary, primary)
    assert election["promised_epoch"] == election["epoch"] > 1
    assert 0 < election["lease_remaining_seconds"] <= 0.6
    assert f'headwater_promised_epoch{{group="2"}} {election["epoch"]:.1f}' in scraped
    assert f"headwater_raft_leader {float(told['raft_leader'] == primary)}" in scraped
    assert 'headwater_elections_total{group="2",outcome="won"}' in scraped


async def test_a_reader_never_leads_and_a_voter_beyond_the_raft_members_does(tmp_path: Path) -> None:
    plan = small_plan(voters=4, readers=1, **GROUPS)
    with_three_raft_members(tmp_path, plan)
    async with LocalCluster(tmp_path, plan) as cluster:
        beyond, reader = cluster.address("node-4"), cluster.address("node-5")
        spread = set(await primaries(cluster))
        assert len(spread) > 1
        assert "node-5" not in spread
        await switch_over(1, "node-4", reader.grpc_address)
        refused = await headwater("switchover", "--group", "1", "--to", "node-5", "--node", beyond.grpc_address)
        assert refused.stderr == (
            "headwater: node is 'node-5'; allowed are the voters node-1, node-2, node-3, node-4\n"
        )
        async with Client(reader.grpc_address, timeout_seconds=60) as client, load(client, writers=4) as running:
            await running.more(50)
            await cluster.kill("node-4")
            await running.more(50)
        assert "node-4" not in await primaries(cluster)
        told = (await statuses(cluster))["node-5"]
        assert {group["role"] for group in told["groups"]} == {"reader"}
        stood = [election.keys() & {"elections_won", "elections_lost"} for election in told["elections"]]
        assert stood == [set()] * 3
        await cluster.start_node("node-4")
        await assert_everywhere(cluster, running.written)


def with_three_raft_members(directory: Path, plan: ClusterPlan) -> None:
    """Lay out a cluster whose last two nodes are no Raft members."""
    lay_out(directory, plan)
    for file in directory.glob(f"*/{CONFIGURATION_FILE}"):
        nodes = file.read_text().split("[[nodes]]")
        kept = [
            "\n".join(line for line in node.splitlines() if not line.startswith("raft = ")) + "\n"
            for node in nodes[4:]
        ]
        file.write_text("[[nodes]]".join([*nodes[:4], *kept]))


async def test_a_node_whose_configuration_names_other_voters_does_not_start(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, small_plan()) as cluster:
        await cluster.stop_node("node-2")
        file = tmp_path / "node-2" / CONFIGURATION_FILE
        *others, last = file.read_text().split("[[nodes]]")
        file.write_text("[[nodes]]".join([*others, last.replace("voter = true", "voter = false")]))
        with pytest.raises(
            LocalClusterError, match=r"voters is \(node-1, node-2, node-3\) there and \(node-1, node-2\)"
        ):
            await cluster.start_node("node-2")


async def test_a_primary_that_hangs_while_it_leads_the_raft_members_is_replaced(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, small_plan()) as cluster:
        leader = next(iter((await statuses(cluster)).values()))["raft_leader"]
        other = next(node for node in cluster.configurations if node != leader)
        await switch_over(0, leader, cluster.address(other).grpc_address)
        pid = cluster.pid(leader)
        assert pid is not None
        os.killpg(pid, signal.SIGSTOP)
        try:
            async with (
                asyncio.timeout(DEADLINE_SECONDS),
                Operator(cluster.address(other).grpc_address) as operator,
            ):
                while (await operator.ask()).map.placements[0].primary == leader:
                    await asyncio.sleep(0.05)
        finally:
            os.killpg(pid, signal.SIGCONT)
        await cluster.wait_ready()


async def test_the_failover_demonstration_holds(tmp_path: Path) -> None:
    said: list[str] = []
    outcome = await run_failover_demo(tmp_path, plan=small_plan(), seconds=1.0, say=said.append)
    assert outcome.held, str(outcome)
    assert str(outcome).endswith("shards identical: yes")
    assert [outcome.killed in line for line in said] == [True, False, True, False]
