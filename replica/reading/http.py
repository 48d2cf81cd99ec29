"""The read side over HTTP and JSON.

Payloads, metadata and rows go out as the JSON text that the shards hold, without being parsed here: a
transcript costs its bytes, and numbers arrive as they were written. The models describe what that makes.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from pydantic import ValidationError

from agent_core.errors import InvalidRequest
from agent_core.routing import check_session_id
from replica.reading import http_models as models
from replica.reading import queries
from replica.reading.answers import QueryAnswer
from replica.reading.http_disconnect import while_connected
from replica.reading.http_events import Cursor, entry_events
from replica.reading.http_freshness import (
    Demanded,
    demand,
    json_response,
    parse_after_position,
    position_fields,
    seconds,
)
from replica.reading.paging import Direction, SessionOrder, SessionSort
from replica.reading.queries import SessionOverview, TranscriptEntry
from replica.reading.reading import MAX_SEQ, Reading
from replica.reading.session_list import DEFAULT_PAGE_SIZE, MAX_MOMENT, MAX_PAGE_SIZE, SessionFilter
from replica.reading.tool_calls import ToolCall

SessionId = Annotated[str, Path(examples=["fix-login"])]

FAILURES: dict[int | str, dict[str, Any]] = {
    status: {"model": models.ErrorResponse, "description": description}
    for status, description in {
        400: "A parameter is wrong, or the SQL is refused or passes a limit.",
        404: "No session of this id.",
        409: "A fail-over has lost min_position: it will never be reached.",
        413: "The body is larger than this node takes.",
        429: "Too many requests wait; try again later.",
        503: "The node cannot serve this now, or did not meet min_position or max_staleness in time.",
    }.items()
}


AfterSeq = Annotated[int, Query(description="Only what follows this entry.", ge=0, le=MAX_SEQ)]
Limit = Annotated[int, Query(description="Entries to read.", ge=1, le=queries.MAX_TRANSCRIPT_LIMIT)]
Moment = Annotated[int, Query(description="Milliseconds since 1970; 0: any.", ge=0, le=MAX_MOMENT)]


def reading_routes(reading: Reading) -> APIRouter:
    """The routes `/v1/sessions…` and `/v1/query`.

    The application that takes them bounds the bodies of requests, and answers `HeadwaterError` and
    `RequestValidationError` in the shape of `ErrorResponse`; `ops.http.build_app` does.
    """
    routes = APIRouter(prefix="/v1", responses=FAILURES)
    routes.include_router(_session_routes(reading))
    routes.include_router(_query_routes(reading))
    return routes


def _session_routes(reading: Reading) -> APIRouter:
    routes = APIRouter(tags=["sessions"])
    layout = reading.layout

    def group_of(session_id: str) -> list[int]:
        return [layout.group_of(layout.shard_of(check_session_id(session_id)))]

    @routes.get("/sessions", response_model=models.SessionsResponse)
    async def list_sessions(
        *,
        workspace: str = "",
        status: str = "",
        model: str = "",
        text: Annotated[str, Query(description="Substring of the title or of the session id.")] = "",
        updated_after_ms: Moment = 0,
        updated_before_ms: Moment = 0,
        created_after_ms: Moment = 0,
        created_before_ms: Moment = 0,
        sort: SessionSort = SessionSort.UPDATED,
        order: Annotated[
            Direction | None, Query(description="Newest first, or titles from their first letter, if absent.")
        ] = None,
        page_size: Annotated[int, Query(ge=1, le=MAX_PAGE_SIZE)] = DEFAULT_PAGE_SIZE,
        page_token: Annotated[str, Query(description="next_page_token of the page before.")] = "",
        demanded: Demanded,
    ) -> Response:
        """Sessions of all shards, most recently updated first if no order is asked for."""
        page = await reading.sessions(
            SessionFilter(
                workspace,
                status,
                model,
                text,
                updated_after_ms,
                updated_before_ms,
                created_after_ms,
                created_before_ms,
            ),
            SessionOrder.parse(sort, order or ""),
            page_size=page_size,
            page_token=page_token,
            demand=demanded.of(range(layout.shard_group_count)),
        )
        body = {
            "sessions": [_session(session) for session in page.sessions],
            "next_page_token": page.next_page_token,
            "positions": [position_fields(position) for position in page.positions],
        }
        return json_response(body, page.positions)

    @routes.get("/sessions/{session_id}", response_model=models.SessionResponse)
    async def get_session(session_id: SessionId, demanded: Demanded) -> Response:
        """One session."""
        answer = await reading.session(session_id, demand=demanded.of(group_of(session_id)))
        body = {"session": _session(answer.session), "position": position_fields(answer.position)}
        return json_response(body, [answer.position])

    @routes.get("/sessions/{session_id}/transcript", response_model=models.TranscriptResponse)
    async def get_transcript(
        *,
        session_id: SessionId,
        after_seq: AfterSeq = 0,
        limit: Limit = queries.DEFAULT_TRANSCRIPT_LIMIT,
        demanded: Demanded,
    ) -> Response:
        """Entries of one session in order, at most about 4 MiB at once; `more` tells whether others follow."""
        answer = await reading.transcript(
            session_id, after_seq=after_seq, limit=limit, demand=demanded.of(group_of(session_id))
        )
        body = {
            "entries": [_entry(entry) for entry in answer.entries],
            "more": answer.more,
            "position": position_fields(answer.position),
        }
        return json_response(body, [answer.position])

    @routes.get("/sessions/{session_id}/tool-calls", response_model=models.ToolCallsResponse)
    async def get_tool_calls(
        *,
        session_id: SessionId,
        after_seq: AfterSeq = 0,
        limit: Limit = queries.DEFAULT_TRANSCRIPT_LIMIT,
        demanded: Demanded,
    ) -> Response:
        """The tool calls that `limit` entries past `after_seq` make, as far as these entries tell."""
        answer = await reading.tool_calls(
            session_id, after_seq=after_seq, limit=limit, demand=demanded.of(group_of(session_id))
        )
        body = {
            "tool_calls": [_tool_call(call) for call in answer.tool_calls],
            "more": answer.more,
            "position": position_fields(answer.position),
        }
        return json_response(body, [answer.position])

    @routes.get(
        "/sessions/{session_id}/events",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {}}, "description": "Server-sent events."}},
    )
    async def follow_session(
        *,
        session_id: SessionId,
        after_seq: AfterSeq = 0,
        after_position: Annotated[
            str, Query(description="The position that came with the entry after_seq.", examples=["3:1204"])
        ] = "",
        last_event_id: Annotated[
            str | None, Header(description="In place of both, sent by a browser that resumes: an event's id.")
        ] = None,
    ) -> StreamingResponse:
        """The entries past `after_seq`, then each further one: events `entry`, `caught_up`, `error`.

        Who goes on with `after_position`, as a browser does by itself, hears `position_lost` if a fail-over has
        undone something of what was shown there.
        """
        if last_event_id is not None:
            cursor = Cursor.parse(last_event_id)
        else:
            cursor = Cursor(after_seq, parse_after_position(after_position))
        answers = reading.follow(session_id, after_seq=cursor.seq, after_position=cursor.position)
        # What is wrong with the request is answered as such, before the stream begins.
        first = await anext(answers, None)
        return StreamingResponse(
            entry_events(first, answers, _entry, cursor.seq),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    return routes


def _query_routes(reading: Reading) -> APIRouter:
    routes = APIRouter(tags=["sql"])
    layout = reading.layout

    async def query(body: models.QueryBody, parameters_json: bytes) -> Response:
        shard = _target(reading, body)
        groups = range(layout.shard_group_count) if shard is None else [layout.group_of(shard)]
        answer = await reading.query(
            body.sql,
            shard,
            parameters_json=parameters_json,
            max_rows=body.max_rows,
            timeout_seconds=seconds(body.timeout_ms),
            demand=demand(body.min_position, body.max_staleness_ms, body.wait_ms, groups),
        )
        return json_response(_rows(answer), answer.positions)

    @routes.get("/query", response_model=models.QueryResponse)
    async def get_query(
        *,
        sql: Annotated[str, Query(examples=["SELECT kind, count(*) FROM entries GROUP BY kind"])],
        shard: models.Number | None = None,
        session_id: Annotated[str | None, Query(description="The shard that holds this session.")] = None,
        workspace: bool = False,
        parameters: Annotated[str, Query(description="A JSON array or object.")] = "",
        max_rows: models.Number | None = None,
        timeout_ms: models.Number | None = None,
        demanded: Demanded,
        request: Request,
    ) -> Response:
        """Run one reading SQL statement: over all shards with DuckDB, or over one with SQLite.

        With `session_id`, `shard` or `workspace` it sees that shard's own tables and views; with none of them it
        sees `sessions`, `entries`, `model_calls`, `tool_calls`, `active_time`, `tokens_by_model_and_day`,
        `tool_calls_by_name`, `sessions_by_workspace`, `documents`, `properties` and `links` as whole tables.
        Hanging up ends it.
        """
        body = models.QueryBody(
            sql=sql,
            shard=shard,
            session_id=session_id,
            workspace=workspace,
            max_rows=max_rows,
            timeout_ms=timeout_ms,
            min_position=demanded.min_position,
            max_staleness_ms=demanded.max_staleness_ms,
            wait_ms=demanded.wait_ms,
        )
        return await while_connected(request, query(body, parameters.encode()))

    @routes.post(
        "/query",
        response_model=models.QueryResponse,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": models.QueryBody.model_json_schema()}},
            }
        },
    )
    async def post_query(request: Request) -> Response:
        """As GET, for statements and parameters that are long."""
        body = _query_body(await request.body())
        return await while_connected(request, query(body, json.dumps(body.parameters).encode()))

    return routes


def _target(reading: Reading, body: models.QueryBody) -> int | None:
    targets = [body.shard is not None, body.session_id is not None, body.workspace]
    if sum(targets) > 1:
        raise InvalidRequest("name at most one of shard, session_id and workspace; none of them means all shards")
    if body.shard is not None:
        return reading.checked_shard(body.shard)
    if body.session_id is not None:
        return reading.layout.shard_of(check_session_id(body.session_id))
    return reading.layout.workspace_shard if body.workspace else None


def _query_body(text: bytes) -> models.QueryBody:
    try:
        return models.QueryBody.model_validate_json(text)
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_url=False)) from error


def _session(session: SessionOverview) -> dict[str, Any]:
    fields = session._asdict()
    fields["metadata"] = orjson.Fragment(fields.pop("metadata_json"))
    return fields


def _entry(entry: TranscriptEntry) -> dict[str, Any]:
    seq, kind, payload_json, created_at_ms, idempotency_key = entry
    return {
        "seq": seq,
        "kind": kind,
        "payload": orjson.Fragment(payload_json),
        "created_at_ms": created_at_ms,
        "idempotency_key": idempotency_key,
    }


def _tool_call(call: ToolCall) -> dict[str, Any]:
    fields = call._asdict()
    fields["arguments"] = orjson.Fragment(fields.pop("arguments_json"))
    return fields


def _rows(answer: QueryAnswer) -> dict[str, Any]:
    result, shard, positions = answer
    return {
        "columns": result.columns,
        "rows": orjson.Fragment(result.rows_json),
        "row_count": result.row_count,
        "truncated": result.truncated,
        "shard": shard,
        "positions": [position_fields(position) for position in positions],
    }
