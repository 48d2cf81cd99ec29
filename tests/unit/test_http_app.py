"""Health, readiness, metrics and bounds of a node's HTTP side."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, Body, FastAPI, Query

from agent_core.errors import PositionNotReached, SessionNotFound
from ops.cluster_files import free_ports
from ops.http import MAX_HEAD_BYTES, OPERATIONS, HttpServer, _listen, build_app
from ops.http_admission import MAX_CONNECTIONS, MAX_READERS_REQUESTS
from ops.node_snapshot import FollowingSnapshot, GroupSnapshot, NodeSnapshot, PrimarySnapshot

NODE = NodeSnapshot(cluster_id="test", node_id="node-1", version="1.2.3")


class Node:
    """Something whose state a test may set."""

    def __init__(self) -> None:
        self.state = NODE

    def snapshot(self) -> NodeSnapshot:
        return self.state

    def has(self, *, primary: PrimarySnapshot | None = None, following: FollowingSnapshot | None = None) -> None:
        group = GroupSnapshot(
            group=3, role="primary", epoch=1, durable_lsn=0, committed_lsn=0, applied_lsn=0,
            primary=primary, following=following,
        )  # fmt: skip
        self.state = replace(NODE, groups=(group,))


def routes() -> APIRouter:
    router = APIRouter(prefix="/v1")

    @router.get("/missing")
    async def missing() -> None:
        raise SessionNotFound("no session 'x'")

    @router.get("/late")
    async def late() -> None:
        raise PositionNotReached("not yet")

    @router.get("/broken")
    async def broken() -> None:
        raise ZeroDivisionError("inside")

    @router.get("/page")
    async def page(size: Annotated[int, Query(ge=1, le=1000)]) -> int:
        return size

    @router.post("/echo")
    async def echo(text: Annotated[str, Body()]) -> int:
        return len(text)

    return router


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
def app(node: Node) -> FastAPI:
    return build_app(node.snapshot, routes=routes(), max_request_bytes=1000)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://node") as made:
        yield made


async def test_a_node_whose_parts_all_work_is_alive_and_ready(client: httpx.AsyncClient) -> None:
    health, readiness = await client.get("/healthz"), await client.get("/readyz")
    assert (health.status_code, health.json()) == (200, {"status": "ok", "reasons": []})
    assert (readiness.status_code, readiness.json()) == (200, {"status": "ready", "reasons": []})


async def test_a_failed_writer_makes_the_node_neither_alive_nor_ready(
    client: httpx.AsyncClient, node: Node
) -> None:
    node.has(primary=PrimarySnapshot(failure="the disk is full"))
    for path in ("/healthz", "/readyz"):
        answer = await client.get(path)
        assert answer.status_code == 503
        assert answer.json()["reasons"] == ["group 3: the disk is full"]


async def test_a_failed_follower_shows_too(client: httpx.AsyncClient, node: Node) -> None:
    node.has(following=FollowingSnapshot(connected=False, failure="page 7 is damaged"))
    assert (await client.get("/healthz")).json()["reasons"] == ["group 3: page 7 is damaged"]


async def test_a_log_that_goes_on_only_after_a_restart_shows_whatever_the_role(
    client: httpx.AsyncClient, node: Node
) -> None:
    node.state = replace(NODE, refusing_logs={3: "the log could not be made durable"})
    assert (await client.get("/healthz")).json()["reasons"] == ["group 3: the log could not be made durable"]


async def test_a_task_that_ended_by_itself_shows_too(client: httpx.AsyncClient, node: Node) -> None:
    node.state = replace(NODE, ended_tasks=("the sweep ended by itself",))
    for path in ("/healthz", "/readyz"):
        assert (await client.get(path)).json()["reasons"] == ["the sweep ended by itself"]


async def test_a_node_that_starts_is_alive_and_says_why_it_is_not_ready(
    client: httpx.AsyncClient, node: Node
) -> None:
    node.state = replace(NODE, not_ready=("group 0: waits for a majority of its voters",))
    readiness = await client.get("/readyz")
    assert readiness.status_code == 503
    assert readiness.json() == {"status": "not ready", "reasons": ["group 0: waits for a majority of its voters"]}
    assert (await client.get("/healthz")).status_code == 200


async def test_metrics_come_in_the_format_that_the_scraper_asks_for(client: httpx.AsyncClient) -> None:
    plain = await client.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain; version=")
    assert 'headwater_node_info{cluster="test",node="node-1",version="1.2.3"} 1.0' in plain.text
    openmetrics = await client.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    assert openmetrics.text.endswith("# EOF\n")


async def test_errors_are_answered_with_code_message_and_whether_to_retry(client: httpx.AsyncClient) -> None:
    missing, late = await client.get("/v1/missing"), await client.get("/v1/late")
    expected = {"code": "session_not_found", "message": "no session 'x'", "retry": False}
    assert (missing.status_code, missing.json()) == (404, {"error": expected})
    assert (late.status_code, late.json()["error"]["retry"]) == (503, True)


async def test_a_wrong_parameter_is_named_with_its_value(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/page", params={"size": 5000})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_request"
    assert answer.json()["error"]["message"].startswith("size is '5000': Input should be less than")


async def test_an_unknown_path_and_a_wrong_method_are_json_too(client: httpx.AsyncClient) -> None:
    unknown, wrong = await client.get("/v1/nowhere"), await client.post("/healthz")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "not_found")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "GET"


async def test_an_unexpected_error_tells_the_caller_nothing_of_the_inside(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/broken")
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal"
    assert "inside" not in answer.text


async def test_a_body_over_the_bound_is_refused_whether_announced_or_not(client: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b'"' + b"x" * 100

    headers = {"content-type": "application/json"}
    assert (await client.post("/v1/echo", content=b'"fits"', headers=headers)).json() == 4
    announced = await client.post("/v1/echo", content=b'"' + b"x" * 2000 + b'"', headers=headers)
    assert announced.status_code == 413
    assert "allowed are 0 to 1000" in announced.json()["error"]["message"]
    assert (await client.post("/v1/echo", content=chunks(), headers=headers)).status_code == 413


async def test_the_interface_describes_itself(client: httpx.AsyncClient) -> None:
    description = (await client.get("/openapi.json")).json()
    assert {"/metrics", "/healthz", "/readyz", "/v1/page"} <= description["paths"].keys()


async def test_a_server_runs_in_the_loop_and_leaves_signals_alone(app: FastAPI) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    address = f"127.0.0.1:{free_ports(1)[0]}"
    server = await HttpServer.start(app, address)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    async with httpx.AsyncClient(base_url=f"http://{address}") as client:
        answer = await client.get("/readyz")
        assert answer.status_code == 200
        assert "server" not in answer.headers
    await server.stop()
    with pytest.raises(OSError, match=r"refused|Connect"):
        await asyncio.open_connection(*address.split(":"))


async def test_a_head_that_does_not_end_is_cut_off(app: FastAPI) -> None:
    port = free_ports(1)[0]
    server = await HttpServer.start(app, f"127.0.0.1:{port}")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /readyz HTTP/1.1\r\nx-large: " + b"x" * (MAX_HEAD_BYTES + 1))
    assert (await reader.readline()).startswith(b"HTTP/1.1 400")
    writer.close()
    await server.stop()


async def test_operations_are_answered_when_readers_take_all_that_they_may() -> None:
    router, held = APIRouter(prefix="/v1"), asyncio.Event()

    @router.get("/held")
    async def hold() -> None:
        await held.wait()

    address = f"127.0.0.1:{free_ports(1)[0]}"
    server = await HttpServer.start(build_app(Node().snapshot, routes=router), address)
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=f"http://{address}", timeout=60, limits=limits) as http:
        asked = [asyncio.create_task(http.get("/v1/held")) for _ in range(MAX_READERS_REQUESTS + 1)]
        (first,), _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        refused = first.result()
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "overloaded")
        assert "224 requests are under way" in refused.json()["error"]["message"]
        for operation in OPERATIONS:
            assert (await http.get(operation)).status_code == 200
        held.set()
        assert [answer.status_code for answer in await asyncio.gather(*asked)].count(200) == MAX_READERS_REQUESTS
        assert (await http.get("/v1/held")).status_code == 200
    await server.stop()


async def test_connections_that_ask_for_nothing_make_room_for_one_that_does(app: FastAPI) -> None:
    port = free_ports(1)[0]
    server = await HttpServer.start(app, f"127.0.0.1:{port}")
    idle = []
    for number in range(MAX_CONNECTIONS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        if number % 2:  # a head that has begun is no request yet
            writer.write(b"GET /readyz HTTP/1.1\r\n")
        idle.append((reader, writer))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        assert (await http.get("/healthz")).status_code == 200
    assert await idle[0][0].read() == b""  # the one that has waited longest
    for _, writer in idle:
        writer.close()
    await server.stop()


async def test_an_address_that_is_taken_is_named(app: FastAPI) -> None:
    address = f"127.0.0.1:{free_ports(1)[0]}"
    server = await HttpServer.start(app, address)
    with pytest.raises(OSError, match=f"cannot listen for HTTP on {address}: Address already in use"):
        await HttpServer.start(app, address)
    await server.stop()
    again = await HttpServer.start(app, address)
    await again.stop()


async def test_a_host_that_does_not_exist_is_named(app: FastAPI) -> None:
    with pytest.raises(OSError, match=r"cannot listen for HTTP on 192\.0\.2\.1:"):
        await HttpServer.start(app, "192.0.2.1:7201")


async def test_no_answer_waits_for_a_delayed_acknowledgement() -> None:
    with (
        await _listen(f"127.0.0.1:{free_ports(1)[0]}") as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as connection,
    ):
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
