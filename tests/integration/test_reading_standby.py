"""A real standby under load, read in every way that is offered: HTTP, live events, SQL, and other SQLite tools."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import pytest
import pytest_asyncio

from agent_core.client import Client, Reader
from agent_core.database.build import WAL_KEPT_BYTES
from agent_core.rpc.cluster_pb2 import GetClusterRequest, GetLagRequest
from agent_core.rpc.cluster_pb2_grpc import ClusterReadingStub
from agent_core.rpc.read_pb2 import FollowEvent, FollowRequest
from agent_core.rpc.read_pb2_grpc import ReadingStub
from ops.benchmarks.placement import let_lead
from ops.cluster_files import free_ports
from ops.local_cluster import LocalCluster
from tests.message_content import content_of
from tests.steady import steady_plan

pytestmark = pytest.mark.asyncio(loop_scope="module")

SESSION = "followed"
STANDBY = "node-2"
MEGABYTE = 1 << 20


class Load:
    """A cluster, a writer that never rests, and an HTTP client of one standby."""

    def __init__(self, cluster: LocalCluster, client: Client, http: httpx.AsyncClient) -> None:
        self.cluster = cluster
        self.client = client
        self.http = http
        self.acknowledged = 0

    async def write(self) -> None:
        while True:
            payload = {"role": "user", "content": f"number {self.acknowledged + 1}"}
            await self.client.append(SESSION, "message", payload)
            self.acknowledged += 1

    @property
    def shards(self) -> list[Path]:
        directory = self.cluster.configurations[STANDBY].node.data_directory
        return sorted((directory / "shards").glob("shard-*.db"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def load(module_path: Path) -> AsyncIterator[Load]:
    async with (
        LocalCluster(module_path, steady_plan()) as cluster,
        Client(cluster.address("node-1").grpc_address, timeout_seconds=30) as client,
        httpx.AsyncClient(base_url=f"http://{cluster.address(STANDBY).http_address}", timeout=30) as http,
    ):
        await let_lead(cluster, "node-1")
        await client.create_session(session_id=SESSION, title="Follow me")
        made = Load(cluster, client, http)
        writer = asyncio.create_task(made.write())
        yield made
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)


async def test_an_answer_tells_its_position_and_age(load: Load) -> None:
    appended = await load.client.append(SESSION, "custom", {"n": 1})
    answer = await load.http.get(f"/v1/sessions/{SESSION}", params={"min_position": str(appended.position)})
    assert answer.status_code == 200, answer.text
    assert answer.json()["session"]["entry_count"] >= appended.seq
    assert 0 <= answer.json()["position"]["age_seconds"] < 5
    assert float(answer.headers["Headwater-Age-Seconds"]) == answer.json()["position"]["age_seconds"]


async def test_events_bring_each_entry_once_and_go_on_from_a_cursor(load: Load) -> None:
    seen: list[int] = []
    caught_up = 0
    for start in (0, 40):
        async with load.http.stream("GET", f"/v1/sessions/{SESSION}/events", params={"after_seq": start}) as events:
            assert events.headers["content-type"].startswith("text/event-stream")
            seen, caught_up, name = [], 0, ""
            async for line in events.aiter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: ") and name == "entry":
                    told = json.loads(line.removeprefix("data: "))
                    assert 0 <= told["position"]["age_seconds"] < 5
                    seen.append(told["seq"])
                elif line.startswith("data: "):
                    assert name == "caught_up"
                    caught_up += 1
                if caught_up >= 2 and len(seen) >= 100:
                    break
        assert seen == list(range(start + 1, start + 1 + len(seen)))


async def test_events_of_nothing_are_refused_before_the_stream_begins(load: Load) -> None:
    answer = await load.http.get("/v1/sessions/nobody/events")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "session_not_found")


async def test_a_session_is_followed_over_grpc(load: Load) -> None:
    async with grpc.aio.insecure_channel(load.cluster.address(STANDBY).grpc_address) as channel:
        call = ReadingStub(channel).Follow(FollowRequest(session_id=SESSION, after_seq=10))
        seen: list[int] = []
        async with asyncio.timeout(30):
            while len(seen) < 50:
                event = await call.read()
                assert isinstance(event, FollowEvent)
                seen += [entry.seq for entry in event.entries]
        call.cancel()
    assert seen == list(range(11, 11 + len(seen)))


async def test_sql_over_all_shards_sees_what_was_applied(load: Load) -> None:
    appended = await load.client.append(SESSION, "custom", {"n": 2})
    sql = "SELECT count(*) FROM entries WHERE session_id = 'followed'"
    answer = await load.http.get("/v1/query", params={"sql": sql, "min_position": f"0={appended.position}"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["shard"] is None
    assert answer.json()["rows"][0][0] >= appended.seq
    async with Reader(load.cluster.address(STANDBY).grpc_address) as reader:
        counted = await reader.query("SELECT count(*) FROM sessions")
    assert (counted.rows, counted.shard) == (((1,),), None)


async def test_the_cluster_and_its_lag_are_shown_as_json(load: Load) -> None:
    standby = (await load.http.get("/v1/cluster")).json()
    assert [node["node_id"] for node in standby["nodes"]] == ["node-1", "node-2", "node-3"]
    assert (standby["groups"][0]["role"], standby["groups"][0]["primary"]) == ("standby", "node-1")
    (lag,) = (await load.http.get("/v1/lag")).json()["lags"]
    assert (lag["node_id"], lag["measured_by"], lag["connected"]) == (STANDBY, STANDBY, True)
    assert 0 <= standby["groups"][0]["age_seconds"] < 5
    assert 0 <= lag["age_seconds"] < 5
    async with httpx.AsyncClient(base_url=f"http://{load.cluster.address('node-1').http_address}") as primary:
        lags = (await primary.get("/v1/lag")).json()["lags"]
        assert {lag["node_id"] for lag in lags} == {"node-2", "node-3"}
        led = (await primary.get("/v1/cluster")).json()["groups"][0]
        assert led["age_seconds"] == 0
        assert led["acknowledged_appends"] >= load.acknowledged > 0
    assert standby["groups"][0]["acknowledged_appends"] is None


async def test_a_node_tells_of_the_cluster_and_its_lag_over_grpc_as_over_http(load: Load) -> None:
    async with grpc.aio.insecure_channel(load.cluster.address(STANDBY).grpc_address) as channel:
        stub = ClusterReadingStub(channel)
        cluster = content_of(await stub.GetCluster(GetClusterRequest()))
        lag = content_of(await stub.GetLag(GetLagRequest()))
    # Under load numbers move between two questions; names, kinds and what is unset do not.
    assert shape_of(cluster) == shape_of((await load.http.get("/v1/cluster")).json())
    assert shape_of(lag) == shape_of((await load.http.get("/v1/lag")).json())


def shape_of(told: object) -> object:
    """An answer without its numbers."""
    match told:
        case dict():
            return {name: shape_of(value) for name, value in told.items()}
        case list():
            return [shape_of(value) for value in told]
        case bool() | str() | None:
            return told
    return "a number"


async def output_of(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return output.decode()


async def test_shards_open_in_the_sqlite3_shell_while_they_are_replicated(load: Load) -> None:
    sql = "SELECT coalesce(sum(entry_count), 0) FROM session_overview; PRAGMA integrity_check"
    counts = []
    for shard in load.shards:
        count, integrity = (await output_of("sqlite3", "-readonly", str(shard), sql)).split()
        assert integrity == "ok"
        counts.append(int(count))
    assert len(counts) == 16
    before = load.acknowledged
    async with asyncio.timeout(30):
        while load.acknowledged < before + 20:
            await asyncio.sleep(0.01)
    assert 0 < sum(counts) <= load.acknowledged + 10


async def test_shards_open_in_datasette_while_they_are_replicated(load: Load) -> None:
    shard = load.shards[load.cluster.configurations[STANDBY].cluster_map.layout.shard_of(SESSION)]
    query = f"/{shard.stem}/session_overview.json?_shape=array"
    (session,) = json.loads(await output_of(sys.executable, "-m", "datasette", "--get", query, str(shard)))
    assert session["title"] == "Follow me"
    assert 0 < session["entry_count"] <= load.acknowledged + 10


@asynccontextmanager
async def datasette_server(shards: list[Path]) -> AsyncIterator[httpx.AsyncClient]:
    """A Datasette that serves these files, and has them open for as long as it runs."""
    (port,) = free_ports(1)
    process = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-m",
            "datasette",
            "serve",
            *map(str, shards),
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        ),
        *("--setting", "sql_time_limit_ms", "20000", "--setting", "max_returned_rows", "100"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
            async with asyncio.timeout(60):
                while not await answers(http):
                    await asyncio.sleep(0.05)
            yield http
    finally:
        process.terminate()
        await process.wait()


async def answers(http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get("/-/versions.json")).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


async def test_a_datasette_that_stays_open_sees_entries_come_and_lets_the_wal_begin_anew(load: Load) -> None:
    shard = load.shards[load.cluster.configurations[STANDBY].cluster_map.layout.shard_of(SESSION)]
    wal = shard.with_name(f"{shard.name}-wal")

    async def count(http: httpx.AsyncClient) -> int:
        answer = await http.get(f"/{shard.stem}/session_overview.json?_shape=array")
        (session,) = answer.json()
        return int(session["entry_count"])

    async with datasette_server(load.shards) as http:
        first = await count(http)
        async with asyncio.timeout(60):
            while await count(http) < first + 50:
                await asyncio.sleep(0.05)
        # The server has every shard open and reads on while entries of a megabyte go through the standby's WAL.
        written = 0
        async with asyncio.timeout(120):
            while written < 5 * WAL_KEPT_BYTES or wal.stat().st_size > 2 * WAL_KEPT_BYTES:
                await load.client.append(SESSION, "custom", {"filler": "x" * MEGABYTE})
                written += MEGABYTE
                seen = await count(http)
        assert await count(http) >= seen > first


async def test_a_reader_can_refuse_what_is_too_old(load: Load) -> None:
    async def ask(**parameters: Any) -> httpx.Response:
        return await load.http.get(f"/v1/sessions/{SESSION}", params=parameters)

    assert (await ask(max_staleness_ms=5000)).status_code == 200
    for node in ("node-1", "node-3"):  # without a majority nobody comes in the primary's place
        await load.cluster.kill(node)
    async with asyncio.timeout(30):
        while (await ask(max_staleness_ms=500, wait_ms=0)).status_code == 200:
            await asyncio.sleep(0.05)
    refused = await ask(max_staleness_ms=500, wait_ms=100)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "too_stale")
    assert "did not come within 0.5 s of the primary" in refused.json()["error"]["message"]
    still = await ask()
    assert (still.status_code, still.json()["position"]["age_seconds"] > 0.5) == (200, True)
    for node in ("node-1", "node-3"):
        await load.cluster.restart(node)
    assert (await ask(max_staleness_ms=2000, wait_ms=20_000)).status_code == 200
