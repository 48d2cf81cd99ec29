"""The demonstration opens with the address of a dashboard, shows the cluster at work, and compares its nodes."""

from __future__ import annotations

import asyncio
import re
import socket
import sys
from pathlib import Path

import httpx
import pytest

from ops.cluster_files import ClusterPlan
from ops.local_cluster import LocalCluster
from tests.e2e.cluster_under_load import until
from tests.terminal import on_terminal, through_a_pipe

LAST_LINE = re.compile(r"demo: ([1-9]\d*) entries acknowledged, \1 on each standby, shards identical: yes")
LOAD = re.compile(
    r" ([1-9]\d*) appends/s   latency p50 (\d+\.\d) ms, p99 (\d+\.\d) ms   ([1-9]\d*) entries acknowledged"
)
PRIMARY = re.compile(r"node-\d +0 +primary +[1-9]\d* +\d+ +\d+\.\d MB +leading")
STANDBY = re.compile(r"(node-\d) +0 +standby +[1-9]\d* +\d+ +\d+ tx, \S+ (?:ms|s) +\d+\.\d MB +following")
ENDS_WITHIN_SECONDS = 120


async def test_the_demo_names_its_dashboard_and_every_nodes_endpoints_and_ends_with_the_comparison(
    tmp_path: Path,
) -> None:
    cluster = LocalCluster(tmp_path, ClusterPlan(base_port=0))
    async with (
        asyncio.timeout(ENDS_WITHIN_SECONDS),
        through_a_pipe("demo", "--seconds", "5", "--data", str(tmp_path)) as shown,
        httpx.AsyncClient() as http,
    ):
        await until(lambda: "\n" in shown.text)
        first = shown.text.splitlines()[0]
        assert first.startswith("dashboard: http://127.0.0.1:")
        address = first.removeprefix("dashboard: ")
        assert "Headwater" in (await http.get(address)).text
        assert await shown.end() == 0, shown.text
        lines = shown.text.splitlines()
        for node in cluster.addresses:
            http_address = f"http://{node.http_address}"
            row = [node.node_id, node.grpc_address, http_address, f"{http_address}/metrics"]
            assert row in [line.split() for line in lines]
        assert any(LOAD.search(line) for line in lines)
        assert LAST_LINE.fullmatch(lines[-1])
        with pytest.raises(httpx.ConnectError):
            await http.get(address)


async def test_a_port_that_is_taken_is_named_with_what_to_do(tmp_path: Path) -> None:
    (node, *_) = LocalCluster(tmp_path, ClusterPlan(base_port=0)).addresses
    host, _, port = node.http_address.partition(":")
    with socket.create_server((host, int(port))):
        done = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "ops.cli.main", "demo", "--seconds", "1", "--data", str(tmp_path)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        _, told = await asyncio.wait_for(done.communicate(), ENDS_WITHIN_SECONDS)
    assert done.returncode == 1
    assert re.match(rf"Error: node-1 cannot listen on {host}:{port}: .+\n  stop what uses them;", told.decode())


async def test_a_terminal_shows_load_lag_and_positions_until_ctrl_c_and_then_the_comparison(tmp_path: Path) -> None:
    LocalCluster(tmp_path, ClusterPlan(base_port=0))
    async with (
        asyncio.timeout(ENDS_WITHIN_SECONDS),
        on_terminal("demo", "--data", str(tmp_path), lines=40) as (shown, _),
    ):
        await until(lambda: LOAD.search(shown.text) is not None)
        await until(lambda: PRIMARY.search(shown.text) is not None)
        await until(lambda: len(set(STANDBY.findall(shown.text))) == 2)
        shown.interrupt()
        assert await shown.end() == 0, shown.text
        assert LAST_LINE.fullmatch(shown.text.splitlines()[-1])
