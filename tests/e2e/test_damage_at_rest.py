"""Bytes that go bad on the disk of a stopped standby are found, and repaired by a resync."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agent_core.client import Client
from agent_core.database.build import PAGE_SIZE
from agent_core.log.log import ReplicationLog
from agent_core.log.record import Record
from agent_core.log.segment import HEADER_BYTES
from agent_core.routing import ShardLayout
from ops.benchmarks.placement import let_lead
from ops.cli.main import main
from ops.cluster_files import node_directory
from ops.local_cluster import LocalCluster
from tests.e2e.cluster_under_load import Load, assert_everywhere, differing, load
from tests.steady import steady_plan

SHARDS = 2
STANDBY = "node-3"
LAYOUT = ShardLayout(SHARDS, 1)
RESYNCED = "resync ended"

Damage = Callable[[Path], None]
"""Spoils the data directory of a stopped node."""


def flip(path: Path, *offsets: int) -> None:
    """Flip a byte at each offset; negative ones count from the last byte that is not zero."""
    data = bytearray(path.read_bytes())
    written = len(data.rstrip(b"\0"))
    for offset in offsets:
        data[offset if offset >= 0 else written + offset] ^= 0x5A
    path.write_bytes(data)


def log_file(data: Path) -> Path:
    return min((data / "log" / "group-000").glob("*.log"))


def root_page(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
    return int(root)


def shard_file(data: Path) -> Path:
    """Shard 0, none of it left in a WAL: that would hide what is damaged beneath it, and heal it."""
    path = data / "shards" / LAYOUT.shard_file_name(0)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    return path


def spoil_log_amid(data: Path) -> None:
    path = log_file(data)
    written = len(path.read_bytes().rstrip(b"\0"))
    flip(path, written // 3, written // 2, written * 2 // 3)


def spoil_log_end(data: Path) -> None:
    flip(log_file(data), -20)


def spoil_log_header(data: Path) -> None:
    flip(log_file(data), HEADER_BYTES // 2)


def spoil_tree_page(data: Path) -> None:
    """A page amid a b-tree of the entries: nothing but a comparison or a query would meet it."""
    path = shard_file(data)
    start = (root_page(path, "entries") - 1) * PAGE_SIZE
    flip(path, start, start + 5)


def spoil_position_page(data: Path) -> None:
    """The page that tells the shard's own position."""
    path = shard_file(data)
    flip(path, (root_page(path, "replication") - 1) * PAGE_SIZE)


def spoil_header_page(data: Path) -> None:
    flip(shard_file(data), 3)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    plan = steady_plan(cluster={"shard_count": SHARDS, "shard_group_count": 1})
    async with LocalCluster(tmp_path, plan) as running:
        await let_lead(running, "node-1")
        yield running


async def headwater(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, main, arguments)


async def spoil(cluster: LocalCluster, running: Load, damage: Damage) -> None:
    """Damage the stopped standby, and start it again; the load goes on meanwhile."""
    await cluster.stop_node(STANDBY)
    await running.more(20)
    await asyncio.to_thread(damage, node_directory(cluster.directory, STANDBY) / "data")
    await cluster.start_node(STANDBY)
    await running.more(20)


def told(cluster: LocalCluster, words: str) -> int:
    """How often the standby said so in its log."""
    return cluster.log_paths[STANDBY].read_text().count(words)


def log_records(cluster: LocalCluster, node: str) -> list[Record]:
    """What the log of a stopped node holds."""
    directory = node_directory(cluster.directory, node) / "data" / "log" / "group-000"
    log = ReplicationLog.open(directory, cluster_id=cluster.configurations[node].cluster.id, group=0)
    try:
        assert log.damage is None
        return list(log.records(log.base.lsn))
    finally:
        log.close()


async def test_damage_is_found_and_repaired_while_writers_go_on(cluster: LocalCluster) -> None:
    nodes = ",".join(node.grpc_address for node in cluster.addresses)
    async with Client(cluster.address("node-1").grpc_address, timeout_seconds=60) as client:
        async with load(client, writers=4) as running:
            await running.more()
            # What a node itself finds when it starts or is welcomed, it repairs by itself.
            for damage, said in (
                (spoil_log_amid, "the log was damaged"),
                (spoil_log_header, "has a damaged header"),
                (spoil_header_page, "file is not a database"),
                (spoil_position_page, "a table's pages begin with"),
            ):
                resyncs = told(cluster, RESYNCED)
                await spoil(cluster, running, damage)
                assert told(cluster, said), damage.__name__
                assert told(cluster, RESYNCED) > resyncs, damage.__name__
            # The last records need no resync: they are fetched again.
            await spoil(cluster, running, spoil_log_end)
            assert told(cluster, "the log lost records that were durable")
        assert await differing(cluster) == []
        # A page that nobody reads is found by verify.
        await cluster.stop_node(STANDBY)
        await asyncio.to_thread(spoil_tree_page, node_directory(cluster.directory, STANDBY) / "data")
        await cluster.start_node(STANDBY)
        found = await headwater("verify", "--nodes", nodes)
        assert (found.exit_code, "shards identical: no" in found.stdout) == (1, True), found.output
        assert "shard 0: " in found.stdout
        repaired = await headwater("verify", "--nodes", nodes, "--repair")
        assert repaired.exit_code == 0, repaired.output
        assert f"resynced on {cluster.address(STANDBY).grpc_address}: shards 0" in repaired.stdout
        ordered = await headwater("resync", "--node", cluster.address(STANDBY).grpc_address, "--group", "0")
        assert ordered.exit_code == 0, ordered.output
        assert [line.split(";")[0] for line in ordered.stdout.splitlines()] == [
            f"shard {shard}: 0 pages differed" for shard in range(SHARDS + 1)
        ]
        refused = await headwater("resync", "--node", cluster.address("node-1").grpc_address, "--shard", "0")
        assert refused.exit_code == 1
        assert "a standby is resynced" in refused.stderr
    await assert_everywhere(cluster, running.written)
    await cluster.stop()
    primary, standby = log_records(cluster, "node-1"), log_records(cluster, STANDBY)
    assert standby == primary[-len(standby) :]
