"""Results of SQL over all shards that JSON cannot write as they are, or that outgrow what a worker may hold."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from agent_core.errors import QueryRefused
from agent_core.routing import ShardLayout
from replica.reading.sql.limits import SqlLimits
from replica.reading.sql.workers import DUCKDB_ENGINE, SqlWorkers
from tests.reading_shards import WrittenShards

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECONDS = 20


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Path]]:
    written = WrittenShards(tmp_path_factory.mktemp("node"), ShardLayout(shard_count=2))
    written.create_every_shard()
    written.create("a", created_at=86_400_000)
    written.append("a", "{}", "{}", at=86_400_000)
    yield [written.path(shard) for shard in range(3)]
    written.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def workers() -> AsyncIterator[SqlWorkers]:
    started = SqlWorkers(1, SqlLimits(memory_bytes=128 << 20), engine=DUCKDB_ENGINE)
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
    assert await rows(workers, paths, sql) == expected
    assert workers.killed == 0


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT " + "[" * 150 + "1" + "]" * 150, "more than 100 levels"),
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
