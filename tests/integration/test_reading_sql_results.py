"""Results of SQL over all shards that JSON cannot write as they are, or that outgrow what a worker may hold."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from agent_core.errors import QueryLimit, QueryRefused
from agent_core.routing import ShardLayout
from replica.reading.sql.duckdb_engine import HEAP_BYTES
from replica.reading.sql.limits import SqlLimits
from replica.reading.sql.workers import DUCKDB_ENGINE, SqlWorkers
from tests.reading_shards import WrittenShards

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECONDS = 30
MEMORY_BYTES = 128 << 20
LIBRARIES_BYTES = 128 << 20
"""Of a worker's resident memory: what is mapped from files."""


@pytest.fixture(scope="module")
def paths(module_path: Path) -> Iterator[list[Path]]:
    written = WrittenShards(module_path, ShardLayout(shard_count=2))
    written.create_every_shard()
    written.create("a", created_at=86_400_000)
    written.append("a", "{}", "{}", at=86_400_000)
    yield [written.path(shard) for shard in range(3)]
    written.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def workers() -> AsyncIterator[SqlWorkers]:
    started = SqlWorkers(1, SqlLimits(memory_bytes=MEMORY_BYTES), engine=DUCKDB_ENGINE)
    yield started
    await started.close()


async def rows(workers: SqlWorkers, paths: list[Path], sql: str) -> list[Any]:
    return list(json.loads((await workers.query(paths, sql, seconds=SECONDS)).rows_json))


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT histogram(day) FROM active_time", [[{"1970-01-02": 1}]]),
        ("SELECT histogram(x) FROM (VALUES (1.5), (2.0)) AS v(x)", [[{"1.5": 1, "2.0": 1}]]),
        ("SELECT histogram(x) FROM (VALUES ('nan'::DOUBLE)) AS v(x)", [[{"nan": 1}]]),
        ("SELECT histogram(x) FROM (VALUES ('a'::BLOB)) AS v(x)", [[{"YQ==": 1}]]),
        ("SELECT histogram(x) FROM (VALUES (true), (false)) AS v(x)", [[{"false": 1, "true": 1}]]),
        (
            "SELECT to_timestamp(0) = TIMESTAMPTZ '1970-01-01 00:00:00+00', to_timestamp(0)",
            [[True, "1970-01-01 00:00:00+00:00"]],
        ),
        ("SELECT histogram([x]) FROM (VALUES (1)) AS v(x)", [[{"key": [[1]], "value": [1]}]]),
        ("SELECT [{'a': 'nan'::DOUBLE}, {'a': 1.5}]", [[[{"a": None}, {"a": 1.5}]]]),
        (
            "SELECT [DATE '2024-01-02'], {'t': 1.5::DECIMAL(4, 2), 'b': 'a'::BLOB}",
            [[["2024-01-02"], {"t": 1.5, "b": {"base64": "YQ=="}}]],
        ),
    ],
)
async def test_what_json_has_no_word_for_is_written_as_text(
    workers: SqlWorkers, paths: list[Path], sql: str, expected: list[Any]
) -> None:
    killed = workers.killed
    assert await rows(workers, paths, sql) == expected
    assert workers.killed == killed


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT " + "[" * 60 + "1" + "]" * 60, "more than 50 levels"),
        ("SELECT to_years(100000000)", "OverflowError"),
    ],
    ids=["deep lists", "interval of a hundred million years"],
)
async def test_what_cannot_be_written_is_refused_with_the_reason(
    workers: SqlWorkers, paths: list[Path], sql: str, message: str
) -> None:
    with pytest.raises(QueryRefused, match=message):
        await rows(workers, paths, sql)
    assert await rows(workers, paths, "SELECT 1") == [[1]]


SWELLING = {
    "a list of numbers": "SELECT list(range) FROM range(6000000)",
    "a list of structs": "SELECT list({'a': 1::UTINYINT}) FROM range(4000000)",
    "a list of lists": "SELECT list([1::UTINYINT]) FROM range(4000000)",
    "a long text": "SELECT repeat('x', 100000000)",
    "a map": "SELECT histogram(range) FROM range(1000000)",
}


@pytest.mark.parametrize("attack", SWELLING)
async def test_what_swells_when_it_leaves_the_engine_stays_within_the_memory_of_its_worker(
    paths: list[Path], attack: str
) -> None:
    workers = SqlWorkers(1, SqlLimits(memory_bytes=MEMORY_BYTES), engine=DUCKDB_ENGINE)
    held = 0
    try:
        query = asyncio.create_task(rows(workers, paths, SWELLING[attack]))
        while not query.done():
            held = max([held, *(resident_bytes(worker._process.pid) for worker in workers._all)])
            await asyncio.sleep(0.01)
        with pytest.raises(QueryLimit):
            await query
        assert 0 < held < MEMORY_BYTES + HEAP_BYTES + LIBRARIES_BYTES
        assert await rows(workers, paths, "SELECT 1") == [[1]]
    finally:
        await workers.close()


@pytest.mark.parametrize(
    "sql", ["SELECT repeat('x', 100000) FROM range(1000)", "SELECT range(20000) FROM range(500)"]
)
async def test_large_rows_are_cut_at_the_bytes_before_many_of_them_are_held(
    workers: SqlWorkers, paths: list[Path], sql: str
) -> None:
    killed = workers.killed
    result = await workers.query(paths, sql, seconds=SECONDS)
    assert result.truncated
    assert 8_000_000 < len(result.rows_json) <= 8 << 20
    assert workers.killed == killed


def resident_bytes(pid: int) -> int:
    """The most memory that a process ever held; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return int(status.partition("VmHWM:")[2].split()[0]) << 10 if "VmHWM:" in status else 0
