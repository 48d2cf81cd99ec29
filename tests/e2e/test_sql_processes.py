"""DuckDB brings a SQLite of its own, whose locks and those of the daemon's would undo each other in one process."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from agent_core.client import Client, Reader
from ops.local_cluster import LocalCluster
from tests.plans import small_plan

LIBRARIES = ("_duckdb", "sqlite_scanner", "_sqlite3")
PATIENCE_SECONDS = 180
"""Workers start with the lowest priority: on a machine that is busy with other tests that takes long."""
DUCKDB = {"_duckdb", "sqlite_scanner"}
SQLITE = {"_sqlite3"}


def loaded(pid: int) -> frozenset[str]:
    """Which of the libraries lie in a process's memory."""
    files = {Path(line.split()[-1]).name for line in Path(f"/proc/{pid}/maps").read_text().splitlines()}
    return frozenset(library for library in LIBRARIES if any(name.startswith(library) for name in files))


def children(pid: int) -> list[int]:
    """The processes that a process started."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


async def test_duckdb_is_in_a_worker_of_each_node_and_never_in_its_daemon(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, small_plan()) as cluster:
        async with Client([node.grpc_address for node in cluster.addresses]) as client:
            session = (await client.create_session()).session_id
            appended = await client.append(session, "message", b'{"role": "user"}')
        for node in cluster.addresses:
            async with Reader(node.grpc_address, timeout_seconds=PATIENCE_SECONDS) as reader:
                count = partial(reader.query, "SELECT count(*) FROM entries", timeout_ms=30_000)
                in_one = await count(session_id=session, min_position=appended.position)
                assert (in_one.rows, (await count()).rows) == (((1,),), ((1,),))
            daemon = cluster.pid(node.node_id)
            assert daemon is not None
            assert loaded(daemon) == SQLITE
            assert {loaded(child) for child in children(daemon)} == {frozenset(SQLITE), frozenset(DUCKDB)}
