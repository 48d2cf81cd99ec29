"""The reader moves from a node that does not serve to the next one, and takes streams apart as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.dashboard.node_client import reader as reader_module
from ops.dashboard.node_client.choice import NodeChoice
from ops.dashboard.node_client.failures import DashboardBusy, NodeRefused, NoNodeAnswers
from ops.dashboard.node_client.reader import (
    CaughtUp,
    Followed,
    FollowedEntry,
    Interrupted,
    NodeReader,
)
from ops.dashboard.node_client.server_sent_events import EventStream, ServerSentEvent
from replica.reading.http_models import SessionsResponse
from tests.unit.dashboard.views import view

Answering = Callable[[httpx.Request], httpx.Response]
GOOD = httpx.Response(200, headers={"Headwater-Age-Seconds": "0.25"}, json={
    "sessions": [], "next_page_token": "", "positions": []
})  # fmt: skip


def entry(seq: int) -> bytes:
    position = {"group": 0, "position": f"3:{seq}", "age_seconds": 0.5}
    data = {"seq": seq, "kind": "message", "payload": "a\u2028b", "created_at_ms": 0, "idempotency_key": ""}
    data["position"] = position
    return b"id: %d\nevent: entry\ndata: %s\n\n" % (seq, orjson.dumps(data))


def caught_up(seq: int) -> bytes:
    position = {"group": 0, "position": "1:1", "age_seconds": 0.5}
    return b"event: caught_up\ndata: %s\n\n" % orjson.dumps({"seq": seq, "position": position})


def refuses(_: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused")


def error(status: int, code: str, *, retry: bool) -> httpx.Response:
    return httpx.Response(status, json={"error": {"code": code, "message": f"it is {code}", "retry": retry}})


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., NodeReader]]:
    made: list[NodeReader] = []

    def reader(**nodes: Answering) -> NodeReader:
        transport = httpx.MockTransport(lambda request: nodes[request.url.host](request))
        made.append(NodeReader(NodeChoice([f"{name}:1" for name in nodes]), transport=transport))
        return made[-1]

    yield reader
    for built in made:
        await built.__aexit__()


async def test_a_read_goes_on_to_the_next_node_and_remembers_the_dead_one(make: Callable[..., NodeReader]) -> None:
    reader = make(first=refuses, second=lambda _: GOOD)
    answer = await reader.get("/v1/sessions", SessionsResponse)
    assert (answer.node, answer.age_seconds) == ("second:1", 0.25)
    assert [node.failure for node in reader.choice.nodes] == ["it refuses connections", None]


async def test_a_node_that_is_busy_is_passed_over_and_stays_a_choice(make: Callable[..., NodeReader]) -> None:
    reader = make(first=lambda _: error(429, "overloaded", retry=True), second=lambda _: GOOD)
    assert (await reader.get("/v1/sessions", SessionsResponse)).node == "second:1"
    assert reader.choice.nodes[0].failure is None


async def test_what_every_node_would_refuse_is_refused_at_once(make: Callable[..., NodeReader]) -> None:
    asked: list[str] = []

    def refuse(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        return error(404, "session_not_found", retry=False)

    with pytest.raises(NodeRefused, match="it is session_not_found") as refused:
        await make(first=refuse, second=refuse).get("/v1/sessions/x", SessionsResponse)
    assert asked == ["first"]
    assert refused.value.node == "first:1"


@pytest.mark.parametrize("content", [b"<html>", b"[]", b'"text"', b"{}", b'{"sessions": 1}', b"\xff\xfe"])
async def test_an_answer_that_is_not_one_of_a_node_is_passed_over(
    make: Callable[..., NodeReader], content: bytes
) -> None:
    reader = make(first=lambda _: httpx.Response(200, content=content), second=lambda _: GOOD)
    assert (await reader.get("/v1/sessions", SessionsResponse)).node == "second:1"


async def test_when_no_node_answers_the_error_names_each_with_its_reason(make: Callable[..., NodeReader]) -> None:
    with pytest.raises(NoNodeAnswers) as raised:
        await make(first=refuses, second=lambda _: httpx.Response(500)).get("/v1/sessions", SessionsResponse)
    assert raised.value.reasons == {"first:1": "it refuses connections", "second:1": "HTTP status 500"}


async def test_a_stream_that_breaks_goes_on_behind_the_last_entry_and_its_position_at_another_node(
    make: Callable[..., NodeReader],
) -> None:
    async def breaking() -> AsyncIterator[bytes]:
        yield entry(1) + entry(2)
        raise httpx.ReadError("broken")

    def second(request: httpx.Request) -> httpx.Response:
        assert (request.url.params["after_seq"], request.url.params["after_position"]) == ("2", "3:2")
        return httpx.Response(200, content=entry(3) + caught_up(3))

    reader = make(first=lambda _: httpx.Response(200, content=breaking()), second=second)
    followed = []
    with pytest.raises(NoNodeAnswers):
        async for event in reader.follow("s", after_seq=0):
            followed.append(event.entry.seq if isinstance(event, FollowedEntry) else event)
            if len(followed) > 5:
                reader.choice.failed("second:1", "gone", 0.0)
                raise NoNodeAnswers({})
    assert followed[:5] == [1, 2, Interrupted("first:1", "the connection broke"), 3, CaughtUp("second:1", 0.5)]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.data())
def test_a_stream_may_arrive_in_any_pieces(numbers: list[int], data: st.DataObject) -> None:
    whole = b"".join(entry(number) for number in numbers)
    stream, events, rest = EventStream(), list[ServerSentEvent](), whole
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        events += stream.feed(rest[:size])
        rest = rest[size:]
    assert [orjson.loads(event.data)["seq"] for event in events] == numbers
    assert {event.name for event in events} == {"entry"}


async def all_of(followed: AsyncIterator[Followed]) -> list[Followed]:
    return [each async for each in followed]


@asynccontextmanager
async def node_that_never_answers() -> AsyncIterator[str]:
    """The address of a server that takes every request and answers none."""
    done = asyncio.Event()

    async def take(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await done.wait()
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"{host}:{port}"
    finally:
        done.set()
        server.close()
        await server.wait_closed()


async def test_a_dashboard_whose_own_connections_are_all_in_use_calls_no_node_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reader_module, "MAX_CONNECTIONS", 1)
    monkeypatch.setattr(reader_module, "MAX_FOLLOWED", 1)
    monkeypatch.setattr(reader_module, "CONNECT_SECONDS", 0.1)
    monkeypatch.setattr(reader_module, "TURN_SECONDS", 0.1)
    async with node_that_never_answers() as address, NodeReader(NodeChoice([address])) as reader:
        held = [
            asyncio.create_task(reader.get("/v1/sessions", SessionsResponse)),
            asyncio.create_task(all_of(reader.follow("s", after_seq=0))),
        ]
        await asyncio.sleep(0)
        with pytest.raises(DashboardBusy):
            await reader.get("/v1/sessions", SessionsResponse)
        with pytest.raises(DashboardBusy, match="follows 1 sessions"):
            await anext(reader.follow("s", after_seq=0))
        assert reader.choice.nodes[0].failure is None
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)


async def test_the_cluster_is_watched_while_reads_have_every_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "MAX_CONNECTIONS", 1)
    cluster = view("node-2", {0: ("node-1", 1)}).model_dump_json().encode()

    async def answer_views(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET /v1/cluster "):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(cluster) + cluster)
        else:
            await reader.read()
        writer.close()

    async with await asyncio.start_server(answer_views, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        async with NodeReader(NodeChoice([f"{host}:{port}"])) as reader:
            held = asyncio.create_task(reader.get("/v1/sessions", SessionsResponse))
            await asyncio.sleep(0)
            seen = await reader.cluster_view(reader.choice.nodes[0])
            assert seen is not None
            assert reader.choice.nodes[0].failure is None
            held.cancel()
            await asyncio.gather(held, return_exceptions=True)
