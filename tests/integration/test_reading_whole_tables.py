"""SQL over all shards against real worker processes: whole tables, ready views, and what it may not do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from agent_core.errors import QueryLimit, QueryRefused, ShardDamaged, Unavailable
from agent_core.routing import ShardLayout
from replica.reading.sql.limits import SqlLimits
from replica.reading.sql.workers import DUCKDB_ENGINE, SqlWorkers
from tests.duckdb_attacks import ENDLESS
from tests.reading_shards import WrittenShards

pytestmark = pytest.mark.asyncio(loop_scope="module")

LAYOUT = ShardLayout(shard_count=3)
DAY_MS = 86_400_000
START_MS = 20_000 * DAY_MS

ANSWER = {
    "role": "assistant",
    "model": "m1",
    "content": [
        {"type": "text", "text": "I look"},
        {"type": "tool_call", "id": "c1", "name": "Read", "arguments": {"path": "a"}},
        {"type": "tool_call", "id": "c2", "name": "Bash", "arguments": {}},
        {"type": "tool_call", "id": "c3", "name": "Bash", "arguments": {}},
    ],
    "usage": {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 3, "cost": 0.5},
    "record": {"message": {"id": "msg_1"}},
}
SAME_ANSWER_AGAIN = {**ANSWER, "content": [], "usage": {"input_tokens": 10, "output_tokens": 7}}
OTHER_ANSWER = {"role": "assistant", "model": "m2", "usage": {"prompt_tokens": 100, "completion_tokens": 50}}


@pytest.fixture(scope="module")
def shards(module_path: Path) -> Iterator[WrittenShards]:
    written = WrittenShards(module_path, LAYOUT)
    written.create_every_shard()
    for number in range(12):
        session = f"session-{number}"
        written.create(session, created_at=START_MS, workspace=f"w{number % 2}", title="It's a title")
        written.append(session, '{"role": "user", "content": "Hello"}', at=START_MS)
        written.append(session, json.dumps(ANSWER), json.dumps(SAME_ANSWER_AGAIN), at=START_MS + 1000)
        written.append(session, json.dumps({"role": "tool_result", "toolCallId": "c1"}), at=START_MS + 3000)
        if number < 4:
            written.fold(LAYOUT.shard_of(session))
        late = json.dumps({"role": "tool_result", "toolCallId": "c2", "isError": True})
        written.append(session, late, json.dumps(OTHER_ANSWER), at=START_MS + DAY_MS)
    yield written
    written.close()


@pytest.fixture(scope="module")
def paths(shards: WrittenShards) -> list[Path]:
    return [shards.path(shard) for shard in range(LAYOUT.shard_count + 1)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def workers() -> AsyncIterator[SqlWorkers]:
    started = SqlWorkers(engine=DUCKDB_ENGINE)
    yield started
    await started.close()
    assert started.running == 0


async def rows(
    workers: SqlWorkers, paths: list[Path], sql: str, parameters: Any = None, **limits: Any
) -> list[Any]:
    parameters_json = b"" if parameters is None else json.dumps(parameters).encode()
    result = await workers.query(paths, sql, parameters_json, **{"seconds": 20, **limits})
    found = json.loads(result.rows_json)
    assert len(found) == result.row_count
    return list(found)


async def test_the_shards_are_one_database(workers: SqlWorkers, paths: list[Path]) -> None:
    assert await rows(workers, paths, "SELECT count(*), count(DISTINCT shard) FROM sessions") == [[12, 3]]
    assert await rows(workers, paths, "SELECT kind, count(*) FROM entries GROUP BY kind") == [["message", 72]]
    assert await rows(
        workers,
        paths,
        "SELECT title, entry_count, updated_at FROM sessions WHERE session_id = $id",
        {"id": "session-7"},
    ) == [["It's a title", 6, START_MS + DAY_MS]]
    assert await rows(
        workers, paths, "SELECT seq FROM entries WHERE session_id = ? ORDER BY seq", ["session-1"]
    ) == [[seq] for seq in range(1, 7)]


async def test_tokens_are_counted_once_an_answer(workers: SqlWorkers, paths: list[Path]) -> None:
    assert await rows(workers, paths, "FROM tokens_by_model_and_day ORDER BY model") == [
        ["2024-10-04", "m1", 12, 120, 84, 36, 0, 6.0],
        ["2024-10-05", "m2", 12, 1200, 600, 0, 0, None],
    ]


async def test_tool_calls_have_their_outcomes(workers: SqlWorkers, paths: list[Path]) -> None:
    sql = (
        "SELECT name, status, duration_seconds FROM tool_calls WHERE session_id = 'session-0' ORDER BY tool_call_id"
    )
    assert await rows(workers, paths, sql) == [
        ["Read", "completed", 2.0],
        ["Bash", "errored", 86399.0],
        ["Bash", "pending", None],
    ]
    assert await rows(
        workers,
        paths,
        "SELECT name, calls, errors, pending, error_rate, mean_seconds FROM tool_calls_by_name ORDER BY 1",
    ) == [["Bash", 24, 12, 12, 1.0, 86399.0], ["Read", 12, 0, 0, 0.0, 2.0]]


async def test_sessions_and_active_time_are_summed(workers: SqlWorkers, paths: list[Path]) -> None:
    assert await rows(workers, paths, "FROM sessions_by_workspace ORDER BY 1") == [
        ["w0", 6, 36, 0, START_MS + DAY_MS],
        ["w1", 6, 36, 0, START_MS + DAY_MS],
    ]
    # A night between two entries is no work.
    assert await rows(workers, paths, "SELECT day, sum(active_seconds) FROM active_time GROUP BY 1 ORDER BY 1") == [
        ["2024-10-04", 36.0],
        ["2024-10-05", 0.0],
    ]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT 1.5::DECIMAL(4, 2), DATE '2024-01-02', 'a'::BLOB, [1, 2], {'a': 1}", None),
        ("SELECT 'nan'::DOUBLE, 'inf'::DOUBLE, NULL", [[None, None, None]]),
        ("WITH x AS (SELECT 1 AS n) SELECT n FROM x", [[1]]),
        ("WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 3) SELECT sum(n) FROM c", [[6]]),
        ("SELECT list_sum(list_transform([1, 2], lambda x: x * 2))", [[6]]),
        ("FROM range(2)", [[0], [1]]),
        ("SELECT count(*) FROM entries WHERE payload->>'$.role' = 'user'", [[12]]),
        ("SELECT 'ATTACH' || ' ''x''; -- COPY'", [["ATTACH 'x'; -- COPY"]]),
        (
            "SELECT EXTRACT(year FROM make_timestamp(0)), 3 IN (1, 3), CASE WHEN true THEN 'é' END",
            [[1970, True, "é"]],
        ),
        ("SELECT 1; ", [[1]]),
    ],
)
async def test_plain_reads_are_answered(
    workers: SqlWorkers, paths: list[Path], sql: str, expected: list[Any] | None
) -> None:
    found = await rows(workers, paths, sql)
    if expected is None:
        assert found == [[1.5, "2024-01-02", {"base64": "YQ=="}, [1, 2], {"a": 1}]]
    else:
        assert found == expected


async def test_a_query_out_of_time_ends_and_frees_its_worker(workers: SqlWorkers, paths: list[Path]) -> None:
    with pytest.raises(QueryLimit, match=r"longer than its limit of 0.5 s"):
        await rows(workers, paths, ENDLESS, seconds=0.5)
    assert await rows(workers, paths, "SELECT 1") == [[1]]


async def test_a_cancelled_query_frees_its_worker(paths: list[Path]) -> None:
    workers = SqlWorkers(1, engine=DUCKDB_ENGINE)
    try:
        assert await rows(workers, paths, "SELECT 1") == [[1]]
        query = asyncio.create_task(rows(workers, paths, ENDLESS))
        async with asyncio.timeout(10):
            while workers.queries < 2:
                await asyncio.sleep(0.01)
        query.cancel()
        await asyncio.gather(query, return_exceptions=True)
        assert await rows(workers, paths, "SELECT 1") == [[1]]
        assert workers.killed == 1
    finally:
        await workers.close()


async def test_a_result_is_cut_at_its_rows_and_bytes(paths: list[Path]) -> None:
    workers = SqlWorkers(1, SqlLimits(result_bytes=1000), engine=DUCKDB_ENGINE)
    try:
        by_rows = await workers.query(paths, "FROM range(10)", max_rows=2, seconds=20)
        assert by_rows[1:] == (b"[[0],[1]]", 2, True)
        by_bytes = await workers.query(paths, "SELECT repeat('x', 100) FROM range(100)", seconds=20)
        assert by_bytes.truncated
        assert len(by_bytes.rows_json) <= 1000
    finally:
        await workers.close()


async def test_a_file_that_is_no_shard_is_named(workers: SqlWorkers, paths: list[Path], tmp_path: Path) -> None:
    damaged = tmp_path / "shard-000.db"
    damaged.write_bytes(b"not a database" * 1000)
    with pytest.raises((Unavailable, ShardDamaged, QueryRefused)):
        await rows(workers, [damaged, *paths[1:]], "SELECT count(*) FROM entries")


OF_ONE_SESSION = {
    "SELECT seq, kind, shard FROM entries WHERE session_id = 'session-7' ORDER BY seq": None,
    "SELECT * FROM sessions WHERE session_id = ?": ["session-7"],
    "SELECT * FROM tool_calls WHERE session_id = $id ORDER BY tool_call_id": {"id": "session-7"},
    "SELECT * FROM model_calls WHERE model = 'm1' AND session_id = 'session-7'": None,
    "SELECT * FROM active_time WHERE session_id = 'session-7' ORDER BY day": None,
    "SELECT count(*) FROM entries WHERE session_id = 'nobody'": None,
}


@pytest.mark.parametrize("sql", OF_ONE_SESSION)
async def test_a_query_of_one_session_opens_its_shard_only_and_finds_the_same(
    workers: SqlWorkers, paths: list[Path], tmp_path: Path, sql: str
) -> None:
    session = "nobody" if "nobody" in sql else "session-7"
    needed = {LAYOUT.shard_of(session), LAYOUT.workspace_shard}
    absent = [path if shard in needed else tmp_path / path.name for shard, path in enumerate(paths)]
    found = await rows(workers, absent, sql, OF_ONE_SESSION[sql])
    assert found == await rows(workers, paths, f"FROM ({sql})", OF_ONE_SESSION[sql])
    assert found
    with pytest.raises(QueryRefused, match="unable to open database file"):
        await rows(workers, absent, "SELECT count(*) FROM entries")
