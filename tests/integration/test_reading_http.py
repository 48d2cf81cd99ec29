"""The read side over HTTP and JSON."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_core.errors import InvalidRequest
from agent_core.position import Position
from agent_core.routing import ShardLayout
from ops.http import build_app
from ops.node_snapshot import NodeSnapshot
from replica.reading import http_models as models
from replica.reading.http import reading_routes
from replica.reading.http_events import Cursor
from replica.reading.http_freshness import POSITION_HEADER, parse_min_positions
from replica.reading.positions import AppliedPositions
from replica.reading.reading import Reading
from tests.reading_shards import WrittenShards

LAYOUT = ShardLayout(shard_count=4, shard_group_count=2)
NUMBER = st.integers(0, 2**63 - 1)


@pytest.fixture
async def shards(tmp_path: Path) -> AsyncIterator[WrittenShards]:
    written = WrittenShards(tmp_path, LAYOUT)
    written.create_every_shard()
    for number in range(5):
        written.create(f"session-{number}", created_at=number, title=f"Title {number}", workspace="w")
    written.append("session-1", '{"n": 12345678901234567890, "text": "é"}', "[1.0]", at=100)
    yield written
    written.close()


@pytest.fixture
async def client(tmp_path: Path, shards: WrittenShards) -> AsyncIterator[httpx.AsyncClient]:
    applied = AppliedPositions(LAYOUT.shard_group_count)
    applied.advance(0, Position(1, 40))
    applied.advance(1, Position(2, 50))
    reading = Reading.open(tmp_path, LAYOUT, applied)
    node = NodeSnapshot(cluster_id="test", node_id="node-1", version="1.2.3")
    transport = httpx.ASGITransport(build_app(lambda: node, routes=reading_routes(reading)))
    async with httpx.AsyncClient(transport=transport, base_url="http://node") as http:
        yield http
    await reading.close()


def group_position(session_id: str) -> dict[str, Any]:
    group = LAYOUT.group_of(LAYOUT.shard_of(session_id))
    return {"group": group, "position": ["1:40", "2:50"][group], "age_seconds": 0.0}


async def test_sessions_are_listed_in_pages(client: httpx.AsyncClient) -> None:
    first = await client.get("/v1/sessions", params={"page_size": 3, "workspace": "w", "text": "title"})
    assert first.status_code == 200
    page = models.SessionsResponse.model_validate_json(first.content)
    assert [session.session_id for session in page.sessions] == ["session-1", "session-4", "session-3"]
    assert page.sessions[0].entry_count == 2
    assert page.sessions[0].metadata == {}
    assert first.json()["positions"] == [
        {"group": 0, "position": "1:40", "age_seconds": 0.0},
        {"group": 1, "position": "2:50", "age_seconds": 0.0},
    ]
    assert first.headers[POSITION_HEADER] == "0=1:40, 1=2:50"
    rest = await client.get(
        "/v1/sessions",
        params={"page_token": page.next_page_token, "min_position": first.headers[POSITION_HEADER]},
    )
    assert [session["session_id"] for session in rest.json()["sessions"]] == ["session-2", "session-0"]
    assert rest.json()["next_page_token"] == ""


async def test_a_list_keeps_its_order_over_its_pages(client: httpx.AsyncClient) -> None:
    asked: dict[str, Any] = {"sort": "created", "order": "asc", "page_size": 2}
    seen: list[str] = []
    token = ""
    while True:
        page = (await client.get("/v1/sessions", params={**asked, "page_token": token})).json()
        seen += [session["session_id"] for session in page["sessions"]]
        token = page["next_page_token"]
        if not token:
            break
        wrong = await client.get("/v1/sessions", params={"sort": "title", "page_token": token})
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "invalid_request")
    assert seen == [f"session-{number}" for number in range(5)]
    latest = await client.get("/v1/sessions", params={"sort": "created", "page_size": 1})
    assert latest.json()["sessions"][0]["session_id"] == "session-4"
    assert (await client.get("/v1/sessions", params={"sort": "size"})).status_code == 400


async def test_a_session_is_shown(client: httpx.AsyncClient) -> None:
    response = await client.get("/v1/sessions/session-1")
    assert models.SessionResponse.model_validate_json(response.content).session.title == "Title 1"
    position = group_position("session-1")
    assert response.json()["position"] == position
    assert response.headers[POSITION_HEADER] == f"{position['group']}={position['position']}"


async def test_a_transcript_keeps_its_payloads_as_they_were_written(client: httpx.AsyncClient) -> None:
    response = await client.get("/v1/sessions/session-1/transcript", params={"limit": 1})
    body = models.TranscriptResponse.model_validate_json(response.content)
    assert body.more
    assert '"payload":{"n": 12345678901234567890, "text": "é"}' in response.text
    rest = await client.get("/v1/sessions/session-1/transcript", params={"after_seq": 1})
    assert rest.json() == {
        "entries": [
            {"seq": 2, "kind": "message", "payload": [1.0], "created_at_ms": 100, "idempotency_key": "key-2"}
        ],
        "more": False,
        "position": group_position("session-1"),
    }


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_sql_is_answered_with_rows(client: httpx.AsyncClient, method: str) -> None:
    asked: dict[str, Any] = {"sql": "SELECT title, :x AS x FROM sessions WHERE session_id = 'session-1'"}
    asked |= {"session_id": "session-1", "max_rows": 5, "timeout_ms": 4000, "min_position": "1:1", "wait_ms": 0}
    if method == "GET":
        response = await client.get("/v1/query", params={**asked, "parameters": '{"x": 1}'})
    else:
        response = await client.post("/v1/query", json={**asked, "parameters": {"x": 1}})
    assert response.status_code == 200, response.text
    models.QueryResponse.model_validate_json(response.content)
    assert response.json() == {
        "columns": ["title", "x"],
        "rows": [["Title 1", 1]],
        "row_count": 1,
        "truncated": False,
        "shard": LAYOUT.shard_of("session-1"),
        "positions": [group_position("session-1")],
    }
    assert response.headers[POSITION_HEADER].endswith(group_position("session-1")["position"])


async def test_the_workspace_shard_is_asked_by_name(client: httpx.AsyncClient) -> None:
    response = await client.get("/v1/query", params={"sql": "SELECT shard FROM replication", "workspace": True})
    assert response.json()["rows"] == [[LAYOUT.workspace_shard]]


@pytest.mark.parametrize(
    ("path", "status", "code", "words"),
    [
        ("/v1/sessions/nobody", 404, "session_not_found", "'nobody'"),
        ("/v1/sessions/nobody/transcript", 404, "session_not_found", "'nobody'"),
        ("/v1/sessions/a%20b", 400, "invalid_request", "session_id"),
        ("/v1/sessions?page_size=0", 400, "invalid_request", "page_size is '0': Input should be greater"),
        ("/v1/sessions?page_size=x", 400, "invalid_request", "page_size is 'x': Input should be a valid integer"),
        ("/v1/sessions?page_token=x", 400, "invalid_request", "page_token"),
        ("/v1/sessions?min_position=1:1", 400, "invalid_request", "names no group"),
        ("/v1/sessions?min_position=7=1:1&wait_ms=0", 200, "", ""),
        ("/v1/sessions/session-1?min_position=x", 400, "invalid_request", "epoch:lsn"),
        ("/v1/sessions/session-1?min_position=9:9&wait_ms=1", 503, "position_not_reached", "9:9"),
        ("/v1/sessions/session-1?wait_ms=30001", 400, "invalid_request", "wait_ms"),
        ("/v1/sessions/session-1/transcript?after_seq=-1", 400, "invalid_request", "after_seq"),
        ("/v1/sessions/session-1/transcript?after_seq=9223372036854775808", 400, "invalid_request", "after_seq"),
        ("/v1/query?shard=0", 400, "invalid_request", "sql is missing"),
        ("/v1/query?sql=SELECT+1&shard=0&session_id=a", 400, "invalid_request", "at most one"),
        ("/v1/query?sql=SELECT+1&shard=-1", 400, "invalid_request", "shard is '-1'"),
        ("/v1/query?sql=SELECT+1&shard=0&timeout_ms=0", 400, "invalid_request", "time limit is 0 s"),
        ("/v1/query?sql=SELECT+1&shard=0&parameters=x", 400, "invalid_request", "not JSON"),
        ("/v1/query?sql=DELETE+FROM+entries&shard=0", 400, "query_refused", "refused DELETE"),
        ("/v1/query?sql=SELECT+zeroblob(1e9)&shard=0", 400, "query_limit", "16777216 bytes"),
        ("/v1/nothing", 404, "not_found", "Not Found"),
    ],
)
async def test_errors_have_one_shape_and_name_what_is_wrong(
    client: httpx.AsyncClient, path: str, status: int, code: str, words: str
) -> None:
    response = await client.get(path)
    assert response.status_code == status, response.text
    if code:
        error = models.ErrorResponse.model_validate_json(response.content).error
        assert error.code == code
        assert words in error.message


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the body"),
        (b"{", "the body"),
        (b"[" * 10_000, "the body"),
        (b'{"sql": "SELECT 1", "shard": 0, "colour": "red"}', "colour"),
        (b'{"sql": "SELECT 1", "shard": "0"}', "shard"),
        (b'{"sql": 1, "shard": 0}', "sql"),
        (b'{"sql": "SELECT 1", "shard": 0, "parameters": "x"}', "parameters"),
        (b'{"sql": "SELECT ?", "shard": 0, "parameters": [NaN]}', "parameters"),
        (b'{"sql": "\\ud800", "shard": 0}', "the body"),
        (b'{"sql": "SELECT 1", "shard": 0, "wait_ms": 31000, "min_position": "9:9"}', "wait_ms is '31000'"),
    ],
)
async def test_a_body_is_checked_before_it_is_believed(client: httpx.AsyncClient, body: bytes, words: str) -> None:
    response = await client.post("/v1/query", content=body)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["code"] == "invalid_request"
    assert words in response.json()["error"]["message"]


class Replaced:
    """A history that another one replaced from lsn 60 on."""

    def is_lost(self, position: Position) -> bool:
        return False

    def never_comes(self, position: Position) -> bool:
        return position.lsn >= 60


async def test_a_position_that_a_fail_over_has_lost_is_a_conflict(tmp_path: Path, shards: WrittenShards) -> None:
    applied = AppliedPositions(LAYOUT.shard_group_count)
    applied.judge_by(0, Replaced())
    applied.judge_by(1, Replaced())
    reading = Reading.open(tmp_path, LAYOUT, applied)
    node = NodeSnapshot(cluster_id="test", node_id="node-1", version="1.2.3")
    transport = httpx.ASGITransport(build_app(lambda: node, routes=reading_routes(reading)))
    async with httpx.AsyncClient(transport=transport, base_url="http://node") as http:
        answer = await http.get("/v1/sessions/session-1", params={"min_position": "1:60"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "position_lost")
    assert not answer.json()["error"]["retry"]
    await reading.close()


async def test_who_resumes_a_stream_of_events_after_what_a_fail_over_has_lost_is_told_so(
    tmp_path: Path, shards: WrittenShards
) -> None:
    applied = AppliedPositions(LAYOUT.shard_group_count)
    applied.judge_by(0, Replaced())
    applied.judge_by(1, Replaced())
    reading = Reading.open(tmp_path, LAYOUT, applied)
    node = NodeSnapshot(cluster_id="test", node_id="node-1", version="1.2.3")
    transport = httpx.ASGITransport(build_app(lambda: node, routes=reading_routes(reading)))
    events = "/v1/sessions/session-1/events"
    async with httpx.AsyncClient(transport=transport, base_url="http://node") as http:
        for answer in (
            await http.get(events, params={"after_seq": 1, "after_position": "1:60"}),
            await http.get(events, headers={"last-event-id": "1@1:60"}),
        ):
            assert (answer.status_code, answer.json()["error"]["code"]) == (409, "position_lost")
    await reading.close()


@given(st.builds(Cursor, NUMBER, st.builds(Position, NUMBER, NUMBER)))
def test_a_browser_gives_back_the_cursor_that_an_event_named(cursor: Cursor) -> None:
    assert Cursor.parse(str(cursor)) == cursor


async def test_a_body_that_is_too_large_is_refused(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/query", content=b" " * 1_100_000)
    assert response.status_code == 413
    assert models.ErrorResponse.model_validate_json(response.content).error.code == "invalid_request"


async def test_the_openapi_page_describes_answers_and_errors(client: httpx.AsyncClient) -> None:
    description = (await client.get("/openapi.json")).json()
    assert set(description["paths"]) - {"/metrics", "/healthz", "/readyz"} == {
        "/v1/sessions",
        "/v1/sessions/{session_id}",
        "/v1/sessions/{session_id}/transcript",
        "/v1/sessions/{session_id}/tool-calls",
        "/v1/sessions/{session_id}/events",
        "/v1/query",
    }
    answers = description["paths"]["/v1/sessions"]["get"]["responses"]
    assert answers["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/SessionsResponse")
    assert answers["409"]["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorResponse")
    assert answers["503"]["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorResponse")
    assert "sql" in json.dumps(description["paths"]["/v1/query"]["post"]["requestBody"])


NUMBERS = [
    "9" * 19,
    "9" * 400,
    "9" * 4300,
    "9" * 5000,
    "-1",
    "-" + "9" * 400,
    "1e400",
    "NaN",
    "1.5",
    "0x10",
    "٣",
    "",
]


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: f"{number[:5]}-{len(number)}")
async def test_no_number_from_outside_breaks_a_read(client: httpx.AsyncClient, number: str) -> None:
    description = (await client.get("/openapi.json")).json()
    for path, operations in description["paths"].items():
        if not path.startswith("/v1") or path.endswith("/events"):
            continue
        for parameter in operations["get"]["parameters"]:
            if parameter["in"] == "query":
                params = {"wait_ms": "0", "sql": "SELECT 1", "shard": "0", parameter["name"]: number}
                answer = await client.get(path.format(session_id="session-1"), params=params)
                assert answer.status_code < 500, (path, parameter["name"], answer.text)
    for name in ("shard", "max_rows", "timeout_ms", "max_staleness_ms", "wait_ms", "parameters"):
        value = f"[{number}]" if name == "parameters" else number
        answer = await client.post("/v1/query", content=f'{{"sql": "SELECT 1", "{name}": {value}}}')
        assert answer.status_code < 500, (name, answer.text)


@pytest.mark.parametrize(
    "number",
    ["9" * 19, "9" * 5000, "-1", "1.5", "x", "1@", "1@x", "1@1:2:3", "@1:2"],
    ids=lambda number: number[:5],
)
async def test_a_cursor_that_is_no_seq_is_refused(client: httpx.AsyncClient, number: str) -> None:
    events = "/v1/sessions/session-1/events"
    for answer in (
        await client.get(events, params={"after_seq": number}),
        await client.get(events, headers={"last-event-id": number}),
        await client.get(events, params={"after_position": number}),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")


async def test_a_length_that_is_no_number_of_bytes_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/query", content=b"{}", headers={"content-length": "9" * 5000})
    assert answer.status_code == 413
    assert answer.json()["error"]["message"].startswith("the body has 99999999999999999999 bytes")


@pytest.mark.parametrize(
    ("text", "groups", "positions"),
    [
        ("", [0], {}),
        ("3:4", [5], {5: Position(3, 4)}),
        ("5=3:4", [5], {5: Position(3, 4)}),
        ("4=3:4, 5=1:2", [5], {5: Position(1, 2)}),
        ("0=3:4,1=1:2", range(2), {0: Position(3, 4), 1: Position(1, 2)}),
    ],
)
def test_minimum_positions_are_read_in_both_forms(
    text: str, groups: list[int], positions: dict[int, Position]
) -> None:
    assert parse_min_positions(text, groups) == positions


@pytest.mark.parametrize("text", ["x", "1", "1:", ":1", "1:-1", "=1:1", "x=1:1", "1=1=1:1", "1:" + "9" * 5000])
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="min_position"):
        parse_min_positions(text, [1])
