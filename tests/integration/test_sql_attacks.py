"""Attacks by SQL against real worker processes of both engines: refused or stopped, with nothing changed."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from agent_core.errors import QueryLimit, QueryRefused
from agent_core.routing import ShardLayout
from replica.reading.sql import workers as workers_module
from replica.reading.sql.limits import SqlLimits
from replica.reading.sql.workers import DUCKDB_ENGINE, SqlWorkers
from tests import duckdb_attacks, sqlite_attacks
from tests.reading_shards import WrittenShards

pytestmark = pytest.mark.asyncio(loop_scope="module")

SHORT = 0.5
WRITTEN_TO = ("stolen", "stolen.csv", "stolen.parquet", "other.db", "x", "x.db")


@pytest.fixture(scope="module")
def shards(module_path: Path) -> Iterator[WrittenShards]:
    written = WrittenShards(module_path, ShardLayout(shard_count=2))
    written.create_every_shard()
    written.create("a", title="A title")
    written.append("a", *(json.dumps({"text": "x" * 1000, "number": number}) for number in range(2000)))
    yield written
    written.close()


@pytest.fixture(scope="module")
def paths(shards: WrittenShards) -> list[Path]:
    return [shards.path(shard) for shard in range(3)]


@pytest.fixture(scope="module")
def path(shards: WrittenShards) -> list[Path]:
    return [shards.path(shards.layout.shard_of("a"))]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sqlite() -> AsyncIterator[SqlWorkers]:
    started = SqlWorkers()
    yield started
    await started.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def duckdb() -> AsyncIterator[SqlWorkers]:
    started = SqlWorkers(1, SqlLimits(memory_bytes=64 << 20), engine=DUCKDB_ENGINE)
    yield started
    await started.close()


def content_of(paths: Sequence[Path]) -> dict[str, str]:
    """Of the whole folder of the shards; and whether an attack wrote where it wanted to."""
    content = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths[0].parent.iterdir()
        if not path.name.endswith("-shm")  # readers mark their places in it
    }
    return content | {name: str(Path("/tmp", name).exists()) for name in WRITTEN_TO}


async def refused(workers: SqlWorkers, paths: Sequence[Path], sql: str, reason: str | None = None) -> None:
    before = content_of(paths)
    with pytest.raises(QueryRefused, match=reason):
        await workers.query(paths, sql, seconds=10)
    assert content_of(paths) == before


async def stopped(workers: SqlWorkers, paths: Sequence[Path], sql: str) -> None:
    before = content_of(paths)
    assert (await workers.query(paths, "SELECT 1", seconds=20)).rows_json == b"[[1]]"
    started = time.monotonic()
    with pytest.raises((QueryLimit, QueryRefused)):
        await workers.query(paths, sql, seconds=SHORT)
    assert time.monotonic() - started < SHORT + workers_module.GRACE_SECONDS + 3
    assert content_of(paths) == before
    assert (await workers.query(paths, "SELECT 1", seconds=20)).rows_json == b"[[1]]"


@pytest.mark.parametrize("sql", sqlite_attacks.NOT_A_PLAIN_READ)
async def test_the_policy_refuses_over_one_shard_what_is_not_a_plain_read(
    sqlite: SqlWorkers, path: list[Path], sql: str
) -> None:
    await refused(sqlite, path, sql, "this is read-only SQL: refused")


@pytest.mark.parametrize(
    "sql",
    [*sqlite_attacks.OF_OTHER_BUILDS, *sqlite_attacks.MALFORMED],
    ids=lambda sql: sql[:60].replace("\0", "NUL"),
)
async def test_what_one_shard_cannot_do_is_refused_over_it(sqlite: SqlWorkers, path: list[Path], sql: str) -> None:
    await refused(sqlite, path, sql)


@pytest.mark.parametrize("attack", sqlite_attacks.TOO_MUCH)
async def test_what_needs_too_much_over_one_shard_is_stopped_in_time(
    sqlite: SqlWorkers, path: list[Path], attack: str
) -> None:
    await stopped(sqlite, path, sqlite_attacks.TOO_MUCH[attack])


@pytest.mark.parametrize("sql", duckdb_attacks.NOT_A_PLAIN_READ)
async def test_the_policy_refuses_over_all_shards_what_is_not_a_plain_read(
    duckdb: SqlWorkers, paths: list[Path], sql: str
) -> None:
    reason = "this is read-only SQL|Only SELECT statements|A CTE needs a SELECT|write one SELECT$|give it a name"
    await refused(duckdb, paths, sql, reason)


@pytest.mark.parametrize("sql", duckdb_attacks.MALFORMED, ids=lambda sql: sql[:60])
async def test_what_is_no_statement_is_refused_over_all_shards(
    duckdb: SqlWorkers, paths: list[Path], sql: str
) -> None:
    await refused(duckdb, paths, sql, "write one SELECT")


@pytest.mark.parametrize("attack", duckdb_attacks.TOO_MUCH)
async def test_what_needs_too_much_over_all_shards_is_stopped_in_time(
    duckdb: SqlWorkers, paths: list[Path], attack: str
) -> None:
    await stopped(duckdb, paths, duckdb_attacks.TOO_MUCH[attack])
