"""`headwater top` over three real nodes under load, of which one is killed."""

from __future__ import annotations

import asyncio
import os
import sys
from functools import partial
from pathlib import Path

import grpc.aio
from textual.widgets import DataTable

from agent_core.client import Client
from ops.local_cluster import LocalCluster
from ops.top.app import TopApp
from ops.top.history import ClusterHistory
from ops.top.polling import poll
from ops.top.rows import GroupRow, group_rows, session_rows, summary
from tests.e2e.cluster_under_load import load, until
from tests.plans import small_plan
from tests.terminal import on_terminal

WRITERS = 4


async def test_a_cluster_under_load_is_shown_and_a_killed_node_keeps_its_rows(tmp_path: Path) -> None:
    plan = small_plan(cluster={"shard_group_count": 3})
    async with LocalCluster(tmp_path, plan) as cluster:
        addresses = [node.grpc_address for node in cluster.addresses]
        channels = {address: grpc.aio.insecure_channel(address) for address in addresses}
        history = ClusterHistory(addresses)
        app = TopApp(history, partial(poll, channels, history, interval=0.2))

        def rows() -> list[GroupRow]:
            return group_rows(history, asyncio.get_running_loop().time())

        async with Client(addresses, timeout_seconds=60) as client, app.run_test(size=(140, 40)) as pilot:
            async with load(client, writers=WRITERS) as running:
                await running.more()
                await until(lambda: any(row.appends_per_second for row in rows()))
                await until(lambda: sum(bool(row.entries_per_second) for row in session_rows(history)) == WRITERS)
                assert len(rows()) == 9
                assert sum(row.role == "primary" for row in rows()) == 3
                await cluster.kill("node-2")
                await until(lambda: {row.state for row in rows() if row.node_id == "node-2"} == {"not reached"})
                await until(lambda: sum(row.role == "primary" and not row.stale for row in rows()) == 3)
                await running.more()
                # Who leads tells how far the dead node falls behind.
                await until(lambda: any((row.lag_seconds or 0) > 1 for row in rows() if row.node_id == "node-2"))
                assert summary(history, asyncio.get_running_loop().time()).silent == ["node-2"]
                await cluster.restart("node-2")
                await until(lambda: not any(row.stale or row.troubled for row in rows()))
            await pilot.pause(1)
            assert app.query_one("#groups", DataTable).row_count == 9
            assert app.query_one("#sessions", DataTable).row_count == WRITERS
        for channel in channels.values():
            await channel.close()


async def test_the_command_draws_on_a_terminal_and_q_ends_it() -> None:
    async with on_terminal("top", "--nodes", "127.0.0.1:1") as (shown, keyboard):
        await until(lambda: "0 of 1 nodes answer" in shown.text and "not reached" in shown.text)
        os.write(keyboard, b"q")
        assert await asyncio.wait_for(shown.end(), 20) == 0


async def test_without_a_terminal_the_command_names_what_to_use() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ops.cli.main", "top"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode == 2
    assert b"`headwater status`" in said
