"""SQL from outside against real worker processes: what it may do, and what it is stopped from doing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from agent_core.errors import (
    HeadwaterError,
    InvalidRequest,
    Overloaded,
    QueryLimit,
    QueryRefused,
    ShardDamaged,
    Unavailable,
)
from agent_core.routing import ShardLayout
from replica.reading.sql import workers as workers_module
from replica.reading.sql.limits import SqlLimits
from replica.reading.sql.priority import NICENESS
from replica.reading.sql.workers import SqlWorkers
from tests.reading_shards import WrittenShards
from tests.sqlite_attacks import DEAF, ENDLESS, TOO_MUCH
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

SHORT = 0.3


@pytest.fixture(scope="module")
def shards(module_path: Path) -> Iterator[WrittenShards]:
    written = WrittenShards(module_path, ShardLayout(shard_count=1))
    written.create("a", title="A title")
    written.append("a", *(json.dumps({"text": "x" * 1000, "number": number}) for number in range(2000)))
    written.fold(0)
    written.append("a", '{"text": "tail"}')
    yield written
    written.close()


@pytest.fixture(scope="module")
def shard(shards: WrittenShards) -> Path:
    return shards.path(0)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def workers() -> AsyncIterator[SqlWorkers]:
    started = SqlWorkers()
    yield started
    await started.close()
    assert started.running == 0


async def rows(workers: SqlWorkers, shard: Path, sql: str, parameters: Any = None, **limits: Any) -> list[Any]:
    parameters_json = b"" if parameters is None else json.dumps(parameters).encode()
    result = await workers.query([shard], sql, parameters_json, **limits)
    found = json.loads(result.rows_json)
    assert len(found) == result.row_count
    return list(found)


async def test_a_worker_loads_one_sqlite_library_only() -> None:
    others = "{'sqlean', 'grpc', 'aiosqlite'}"
    script = f"import sys, replica.reading.sql.sqlite_engine; sys.exit(bool({others} & set(sys.modules)))"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script)
    assert await process.wait() == 0


async def test_a_query_reads_the_views_of_a_shard(workers: SqlWorkers, shard: Path) -> None:
    result = await workers.query([shard], "SELECT session_id, title, entry_count FROM session_overview")
    assert result == (["session_id", "title", "entry_count"], b'[["a","A title",2001]]', 1, False)
    assert await rows(workers, shard, "SELECT count(*) FROM transcript WHERE session_id = 'a'") == [[2001]]


@pytest.mark.parametrize(
    ("sql", "parameters", "expected"),
    [
        ("SELECT ?, ?, ?", [1, "two", None], [[1, "two", None]]),
        ("SELECT :a, :b", {"a": 1.5, "b": True}, [[1.5, 1]]),
        ("SELECT hex(?)", [{"base64": "AP8="}], [["00FF"]]),
        ("SELECT x'00ff'", None, [[{"base64": "AP8="}]]),
        ("SELECT 9e999, -9e999, 9e999 - 9e999, 1.5", None, [[None, None, None, 1.5]]),
        ("SELECT 9223372036854775807, -9223372036854775808", None, [[2**63 - 1, -(2**63)]]),
        ("SELECT CAST(x'ff41' AS TEXT)", None, [["\N{REPLACEMENT CHARACTER}A"]]),
        ("SELECT char(1) || char(0) || 'é\N{CHEESE WEDGE}\"'", None, [['\x01\x00é\N{CHEESE WEDGE}"']]),
        ("VALUES (1), (2)", None, [[1], [2]]),
        ("SELECT value FROM json_each('[1, 2]')", None, [[1], [2]]),
        ("SELECT json_extract(payload, '$.text') FROM transcript WHERE seq = 2001", None, [["tail"]]),
        (
            "WITH RECURSIVE c(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM c LIMIT 3) SELECT n FROM c",
            None,
            [[1], [2], [3]],
        ),
        ("SELECT seq, row_number() OVER (ORDER BY seq DESC) FROM transcript WHERE seq < 3", None, [[2, 1], [1, 2]]),
        ("SELECT name FROM pragma_table_info('entry_tail')", None, [["id"], ["first_entry"]]),
        ("PRAGMA index_list(entry_index)", None, [[0, "sqlite_autoindex_entry_index_1", 1, "pk", 0]]),
        ("PRAGMA page_size", None, [[4096]]),
        ("SELECT 1 WHERE 0", None, []),
        ("SELECT 1;  -- a comment", None, [[1]]),
    ],
)
async def test_plain_reads_are_answered(
    workers: SqlWorkers, shard: Path, sql: str, parameters: Any, expected: list[Any]
) -> None:
    assert await rows(workers, shard, sql, parameters) == expected


async def test_a_result_is_cut_at_its_rows_and_says_so(workers: SqlWorkers, shard: Path) -> None:
    sql = "SELECT seq FROM transcript WHERE seq <= 3"
    assert (await workers.query([shard], sql, max_rows=2))[1:] == (b"[[1],[2]]", 2, True)
    assert (await workers.query([shard], sql, max_rows=3))[1:] == (b"[[1],[2],[3]]", 3, False)


async def test_a_result_is_cut_at_its_bytes_and_says_so(workers: SqlWorkers, shard: Path) -> None:
    result = await workers.query(
        [shard], "SELECT a.payload FROM entries a, entries b LIMIT 100000", max_rows=100_000
    )
    assert result.truncated
    assert 8_300_000 < len(result.rows_json) <= 8 << 20
    assert len(json.loads(result.rows_json)) == result.row_count


async def test_a_refusal_says_what_was_refused(workers: SqlWorkers, shard: Path) -> None:
    with pytest.raises(QueryRefused, match="not authorized; this is read-only SQL: refused DELETE entries"):
        await workers.query([shard], "DELETE FROM entries")
    with pytest.raises(QueryRefused, match='near "SELEC": syntax error'):
        await workers.query([shard], "SELEC 1")


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        ("endless recursion", r"longer than its limit of 0\.3 s"),
        ("deaf to the clock", r"longer than its limit of 0\.3 s, and its process was stopped"),
        ("zeroblob", "more than 16777216 bytes in one value"),
        ("one row past the bytes", "one row is larger than 8388608 bytes"),
        ("long text", "sql is 100012 bytes long; allowed are 100000"),
    ],
)
async def test_the_limit_that_was_passed_is_named(
    workers: SqlWorkers, shard: Path, attack: str, message: str
) -> None:
    with pytest.raises(QueryLimit, match=message):
        await workers.query([shard], TOO_MUCH[attack], seconds=SHORT)


async def test_memory_is_bounded_and_its_limit_named(workers: SqlWorkers, shard: Path) -> None:
    with pytest.raises(QueryLimit, match="more memory than its limit of 256 MiB"):
        await workers.query([shard], TOO_MUCH["sorting a product"], seconds=20)


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        (b"{", InvalidRequest),
        (b"1", InvalidRequest),
        (b'"text"', InvalidRequest),
        (b"[[1]]", InvalidRequest),
        (b'[{"a": 1}]', InvalidRequest),
        (b'[{"base64": "%"}]', InvalidRequest),
        (b'[{"base64": "AA==", "x": 1}]', InvalidRequest),
        (b"[NaN]", InvalidRequest),
        (b"[" * 100_000, InvalidRequest),
        (b'["\\ud800"]', InvalidRequest),
        (b"\xff", InvalidRequest),
        (b"[1, 2]", QueryRefused),
        (b"[]", QueryRefused),
        (b'{"other": 1}', QueryRefused),
        (b"[18446744073709551615]", QueryRefused),
        (json.dumps([1] * 1000).encode(), QueryLimit),
        (json.dumps(["x" * (1 << 20)]).encode(), QueryLimit),
    ],
)
async def test_hostile_parameters_are_refused(
    workers: SqlWorkers, shard: Path, parameters: bytes, error: type[HeadwaterError]
) -> None:
    with pytest.raises(error):
        await workers.query([shard], "SELECT ?", parameters)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_rows": 0}, "max_rows is 0; allowed are 1 to 100000"),
        ({"max_rows": 100_001}, "max_rows is 100001"),
        ({"seconds": 0}, "time limit is 0 s"),
        ({"seconds": 31}, "time limit is 31 s"),
    ],
)
async def test_limits_have_limits(workers: SqlWorkers, shard: Path, limits: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        await workers.query([shard], "SELECT 1", **limits)


COUNTING = "WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n)"


@pytest.mark.parametrize(
    ("sql", "asked", "message"),
    [
        ("SELECT 1", {"max_rows": 6}, r"max_rows is 6; allowed are 1 to 5"),
        ("SELECT 1", {"seconds": 3}, r"time limit is 3 s; allowed are more than 0 and at most 2 s"),
        (f"{COUNTING} SELECT count(*) FROM n", {}, r"longer than its limit of 2 s"),
        (f"{COUNTING} SELECT i FROM n ORDER BY randomblob(100000)", {}, r"more memory than its limit of 16 MiB"),
        ("SELECT hex(zeroblob(600))", {}, r"larger than 1024 bytes"),
    ],
)
async def test_a_node_may_set_other_limits(shard: Path, sql: str, asked: dict[str, Any], message: str) -> None:
    workers = SqlWorkers(1, SqlLimits(seconds=2, rows=5, result_bytes=1024, memory_bytes=16 << 20))
    with pytest.raises((InvalidRequest, QueryLimit), match=message):
        await workers.query([shard], sql, **({"max_rows": 5} | asked))
    await workers.close()


async def test_a_result_is_cut_at_the_limits_that_a_node_set(shard: Path) -> None:
    workers = SqlWorkers(1, SqlLimits(rows=5, result_bytes=1024))
    by_rows = await workers.query([shard], f"{COUNTING} SELECT i FROM n")
    assert by_rows[1:] == (b"[[1],[2],[3],[4],[5]]", 5, True)
    by_bytes = await workers.query([shard], f"{COUNTING} SELECT hex(zeroblob(200)) FROM n")
    assert (by_bytes.row_count, by_bytes.truncated) == (2, True)
    await workers.close()


async def test_a_query_does_not_keep_the_log_from_being_emptied(
    workers: SqlWorkers, shards: WrittenShards, shard: Path
) -> None:
    await rows(workers, shard, "SELECT * FROM sessions")
    with pytest.raises(QueryLimit):
        await workers.query([shard], ENDLESS, seconds=SHORT)
    with pytest.raises(QueryLimit):
        await workers.query([shard], DEAF, seconds=SHORT)
    blocked, *_ = shards.connections[0].execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert not blocked
    shards.append("a", "{}")


async def test_a_damaged_or_absent_shard_is_called_so(workers: SqlWorkers, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.db"
    await asyncio.to_thread(damaged.write_bytes, b"no database" * 1000)
    with pytest.raises(ShardDamaged):
        await workers.query([damaged], "SELECT * FROM sessions")
    with pytest.raises(Unavailable):
        await workers.query([tmp_path / "absent?.db"], "SELECT 1")
    assert not (tmp_path / "absent?.db").exists()


async def running(workers: SqlWorkers, count: int) -> None:
    async with asyncio.timeout(10):
        while workers.queries < count:
            await asyncio.sleep(0.005)


async def test_a_cancelled_query_frees_its_worker_at_once(shard: Path) -> None:
    workers = SqlWorkers(count=1)
    for number in range(1, 3):
        query = asyncio.create_task(workers.query([shard], DEAF, seconds=30))
        await running(workers, 2 * number - 1)
        query.cancel()
        with pytest.raises(asyncio.CancelledError):
            await query
        assert await rows(workers, shard, "SELECT 1") == [[1]]
    assert workers.killed == 2
    await workers.close()


async def test_a_worker_whose_query_was_given_up_while_it_started_serves_the_next(shard: Path) -> None:
    workers = SqlWorkers(count=1)
    query = asyncio.create_task(workers.query([shard], "SELECT 1"))
    async with asyncio.timeout(10):
        while not workers.running:
            await asyncio.sleep(0)
    (started,) = workers._all
    query.cancel()
    with pytest.raises(asyncio.CancelledError):
        await query
    assert await rows(workers, shard, "SELECT 1") == [[1]]
    assert workers._all == {started}
    assert workers.killed == 0
    await workers.close()


async def test_a_start_that_nobody_waits_for_ends_with_the_node(shard: Path) -> None:
    workers = SqlWorkers(count=1)
    query = asyncio.create_task(workers.query([shard], "SELECT 1"))
    async with asyncio.timeout(10):
        while not workers.running:
            await asyncio.sleep(0)
    query.cancel()
    await asyncio.gather(query, return_exceptions=True)
    await workers.close()
    assert workers.running == 0


def session_niceness(pid: int) -> int | None:
    """None: the kernel does not share out processors by session."""
    autogroup = Path(f"/proc/{pid}/autogroup")
    return int(autogroup.read_text().split()[-1]) if autogroup.exists() else None


async def test_a_worker_gives_way_in_its_session_and_among_sessions(workers: SqlWorkers, shard: Path) -> None:
    assert await rows(workers, shard, "SELECT 1") == [[1]]
    for worker in workers._all:
        assert os.getpriority(os.PRIO_PROCESS, worker._process.pid) == NICENESS
        assert os.sched_getscheduler(worker._process.pid) == os.SCHED_IDLE
        assert session_niceness(worker._process.pid) in {NICENESS, None}


async def test_a_worker_that_dies_is_replaced(shard: Path) -> None:
    workers = SqlWorkers(count=1)
    query = asyncio.create_task(workers.query([shard], DEAF, seconds=30))
    await running(workers, 1)
    (worker,) = workers._all
    os.kill(worker._process.pid, signal.SIGKILL)
    with pytest.raises(QueryLimit, match="used up"):
        await query
    assert await rows(workers, shard, "SELECT 1") == [[1]]
    await workers.close()


async def test_a_worker_that_died_while_idle_is_not_used(shard: Path) -> None:
    workers = SqlWorkers(count=1)
    assert await rows(workers, shard, "SELECT 1") == [[1]]
    (worker,) = workers._all
    os.kill(worker._process.pid, signal.SIGKILL)
    await until(lambda: not worker.alive)
    assert await rows(workers, shard, "SELECT 1") == [[1]]
    await workers.close()


async def test_a_query_waits_for_a_worker_no_longer_than_it_may_run(shard: Path) -> None:
    workers = SqlWorkers(count=2)
    hogs = [asyncio.create_task(workers.query([shard], ENDLESS, seconds=30)) for _ in range(2)]
    await running(workers, 2)
    started = time.monotonic()
    with pytest.raises(Overloaded, match=r"busy for 0\.2 s"):
        await workers.query([shard], "SELECT 1", seconds=0.2)
    assert time.monotonic() - started < 2
    for hog in hogs:
        hog.cancel()
    await asyncio.gather(*hogs, return_exceptions=True)
    await workers.close()


async def test_attackers_delay_others_by_no_more_than_their_own_limit(shard: Path) -> None:
    workers = SqlWorkers(count=2)
    attacks = [asyncio.create_task(workers.query([shard], ENDLESS, seconds=SHORT)) for _ in range(4)]
    await running(workers, 2)
    started = time.monotonic()
    assert await rows(workers, shard, "SELECT 1", seconds=10) == [[1]]
    assert time.monotonic() - started < 2 * (SHORT + workers_module.GRACE_SECONDS) + 3
    await asyncio.gather(*attacks, return_exceptions=True)
    await workers.close()


async def test_queries_past_the_bound_are_turned_away(shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "MAX_WAITING_QUERIES", 0)
    workers = SqlWorkers()
    with pytest.raises(Overloaded, match="0 queries wait"):
        await workers.query([shard], "SELECT 1")
    await workers.close()


async def test_closing_ends_what_runs_and_starts_nothing_new(shard: Path) -> None:
    workers = SqlWorkers()
    query = asyncio.create_task(workers.query([shard], DEAF, seconds=30))
    await running(workers, 1)
    await workers.close()
    with pytest.raises(Unavailable, match="stopping"):
        await query
    with pytest.raises(Unavailable, match="stopping"):
        await workers.query([shard], "SELECT 1")
    assert workers.running == 0
