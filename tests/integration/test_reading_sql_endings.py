"""A query that nobody waits for any more, or that ran too long, frees its worker: each engine, each way to end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import pytest

from agent_core.errors import QueryLimit
from agent_core.position import Position
from agent_core.routing import ShardLayout
from agent_core.rpc import read_pb2, read_pb2_grpc
from agent_core.rpc_errors import from_rpc_error
from ops.cluster_files import free_ports
from ops.http import HttpServer, build_app
from ops.node_snapshot import NodeSnapshot
from replica.reading import reading as reading_module
from replica.reading.http import reading_routes
from replica.reading.positions import AppliedPositions
from replica.reading.reading import Reading
from replica.reading.service import ReadingService
from replica.reading.sql.workers import SqlWorkers
from tests.interfaces import served_over_grpc
from tests.reading_shards import WrittenShards

LAYOUT = ShardLayout(shard_count=2)

ENDLESS: dict[str, dict[str, Any]] = {
    "all shards": {"sql": "SELECT count(*) FROM range(1000000) a, range(1000000) b, range(1000000) c"},
    "one shard": {
        "sql": "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n",
        "shard": 0,
    },
    "one shard, deaf to the clock": {
        "sql": "SELECT instr(zeroblob(8000000), zeroblob(4000000) || x'01')",
        "shard": 0,
    },
}
LONG_MS = 30_000
SHORT_MS = 300

targets = pytest.mark.parametrize("target", list(ENDLESS))


@pytest.fixture
async def reading(tmp_path: Path) -> AsyncIterator[Reading]:
    """One worker of each engine: what is not freed cannot answer the next query."""
    shards = WrittenShards(tmp_path, LAYOUT)
    shards.create_every_shard()
    applied = AppliedPositions(LAYOUT.shard_group_count)
    applied.advance(0, Position(1, shards.lsns[0]))
    opened = Reading.open(tmp_path, LAYOUT, applied, sql_workers=1)
    yield opened
    await opened.close()
    shards.close()


@asynccontextmanager
async def over_http(reading: Reading) -> AsyncIterator[httpx.AsyncClient]:
    node = NodeSnapshot(cluster_id="test", node_id="node-1", version="1.2.3")
    (port,) = free_ports(1)
    server = await HttpServer.start(build_app(lambda: node, routes=reading_routes(reading)), f"127.0.0.1:{port}")
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
        yield http
    await server.stop()


@asynccontextmanager
async def over_grpc(reading: Reading) -> AsyncIterator[read_pb2_grpc.ReadingAsyncStub]:
    service = ReadingService(reading)
    async with served_over_grpc(partial(read_pb2_grpc.add_ReadingServicer_to_server, service)) as channel:
        yield read_pb2_grpc.ReadingStub(channel)


def workers_of(reading: Reading, target: str) -> SqlWorkers:
    return reading.whole_workers if target == "all shards" else reading.sql_workers


async def running_alone(workers: SqlWorkers) -> None:
    async with asyncio.timeout(20):
        while not workers.queries:
            await asyncio.sleep(0.01)
    assert (workers.running, workers.killed) == (1, 0)


async def freed(workers: SqlWorkers) -> None:
    """Its worker was stopped, although the query may have gone on for half a minute."""
    async with asyncio.timeout(5):
        while workers.running:
            await asyncio.sleep(0.01)
    assert workers.killed == 1


async def answers(reading: Reading, target: str) -> None:
    result = await reading.query("SELECT 1", ENDLESS[target].get("shard"), timeout_seconds=20)
    assert result.result.rows_json == b"[[1]]"


@pytest.mark.parametrize("method", ["GET", "POST"])
@targets
async def test_a_client_over_http_that_hangs_up_frees_its_worker(
    reading: Reading, method: str, target: str
) -> None:
    workers = workers_of(reading, target)
    body = {**ENDLESS[target], "timeout_ms": LONG_MS}
    sent: dict[str, Any] = {"params": body} if method == "GET" else {"json": body}
    async with over_http(reading) as http:
        asked = asyncio.create_task(http.request(method, "/v1/query", **sent))
        await running_alone(workers)
        asked.cancel()
        await freed(workers)
        await asyncio.gather(asked, return_exceptions=True)
        await answers(reading, target)


@targets
async def test_a_call_over_grpc_that_is_cancelled_frees_its_worker(reading: Reading, target: str) -> None:
    workers = workers_of(reading, target)
    async with over_grpc(reading) as stub:
        call = stub.Query(read_pb2.QueryRequest(**ENDLESS[target], timeout_ms=LONG_MS))
        await running_alone(workers)
        call.cancel()
        await freed(workers)
        with contextlib.suppress(asyncio.CancelledError):
            await call
        await answers(reading, target)


@targets
async def test_a_query_past_its_time_frees_its_worker_over_http(reading: Reading, target: str) -> None:
    async with over_http(reading) as http:
        answer = await http.post("/v1/query", json={**ENDLESS[target], "timeout_ms": SHORT_MS})
        assert answer.json()["error"]["code"] == "query_limit"
        await answers(reading, target)


@targets
async def test_a_query_past_its_time_frees_its_worker_over_grpc(reading: Reading, target: str) -> None:
    async with over_grpc(reading) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Query(read_pb2.QueryRequest(**ENDLESS[target], timeout_ms=SHORT_MS))
        assert type(from_rpc_error(caught.value)) is QueryLimit
        await answers(reading, target)


@pytest.mark.parametrize(("processors", "at_once"), [(1, 1), (2, 1), (4, 2), (16, 3)])
async def test_queries_over_all_shards_leave_half_of_the_processors_to_replication(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processors: int, at_once: int
) -> None:
    monkeypatch.setattr(reading_module, "processors", lambda: processors)
    reading = Reading.open(tmp_path, LAYOUT, AppliedPositions(LAYOUT.shard_group_count), sql_workers=3)
    assert [workers.at_once for workers in reading.workers] == [3, at_once]
