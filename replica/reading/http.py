"""The read side over HTTP and JSON.

Payloads, metadata and rows go out as the JSON text that the shards hold, without being parsed here: a
transcript costs its bytes, and numbers arrive as they were written. The models describe what that makes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from agent_core.errors import InvalidRequest
from agent_core.position import Position
from agent_core.routing import ShardLayout, check_session_id
from replica.reading import http_models as models
from replica.reading import queries
from replica.reading.positions import GroupPosition
from replica.reading.queries import SessionFilter, SessionOverview, TranscriptEntry
from replica.reading.reading import QueryAnswer, Reading

POSITION_HEADER = "Headwater-Position"
"""`group=epoch:lsn`, several with commas between them; can be passed back as `min_position`."""
MAX_MIN_POSITION_CHARACTERS = 8192

MinPosition = Annotated[
    str,
    Query(
        description="Wait until this was applied: `epoch:lsn`, or the Headwater-Position of an earlier answer.",
        examples=["3:1204"],
        max_length=MAX_MIN_POSITION_CHARACTERS,
    ),
]
WaitMs = Annotated[
    int | None, Query(description="How long to wait for min_position; 2000 if absent.", ge=0, le=30_000)
]
SessionId = Annotated[str, Path(examples=["fix-login"])]

FAILURES: dict[int | str, dict[str, Any]] = {
    status: {"model": models.ErrorResponse, "description": description}
    for status, description in {
        400: "A parameter is wrong, or the SQL is refused or passes a limit.",
        404: "No session of this id.",
        413: "The body is larger than this node takes.",
        429: "Too many requests wait; try again later.",
        503: "The node cannot serve this now, or did not reach min_position in time.",
    }.items()
}


def reading_routes(reading: Reading) -> APIRouter:
    """The routes `/v1/sessions…` and `/v1/query`.

    The application that takes them bounds the bodies of requests, and answers `HeadwaterError` and
    `RequestValidationError` in the shape of `ErrorResponse`; `ops.http.build_app` does.
    """
    routes = APIRouter(prefix="/v1", tags=["reading"], responses=FAILURES)
    layout = reading.layout

    @routes.get("/sessions", response_model=models.SessionsResponse)
    async def list_sessions(
        *,
        workspace: str = "",
        status: str = "",
        model: str = "",
        text: Annotated[str, Query(description="Substring of the title or of the session id.")] = "",
        page_size: Annotated[int, Query(ge=1, le=queries.MAX_PAGE_SIZE)] = queries.DEFAULT_PAGE_SIZE,
        page_token: Annotated[str, Query(description="next_page_token of the page before.")] = "",
        min_position: MinPosition = "",
        wait_ms: WaitMs = None,
    ) -> Response:
        """Sessions of all shards, most recently updated first."""
        page = await reading.sessions(
            SessionFilter(workspace, status, model, text),
            page_size=page_size,
            page_token=page_token,
            min_positions=parse_min_positions(min_position, range(layout.shard_group_count)),
            wait_seconds=_seconds(wait_ms),
        )
        body = {
            "sessions": [_session(session) for session in page.sessions],
            "next_page_token": page.next_page_token,
            "positions": [_position(position) for position in page.positions],
        }
        return _json(body, page.positions)

    @routes.get("/sessions/{session_id}", response_model=models.SessionResponse)
    async def get_session(
        session_id: SessionId, min_position: MinPosition = "", wait_ms: WaitMs = None
    ) -> Response:
        """One session."""
        answer = await reading.session(
            session_id,
            min_position=_min_position(layout, session_id, min_position),
            wait_seconds=_seconds(wait_ms),
        )
        body = {"session": _session(answer.session), "position": _position(answer.position)}
        return _json(body, [answer.position])

    @routes.get("/sessions/{session_id}/transcript", response_model=models.TranscriptResponse)
    async def get_transcript(
        *,
        session_id: SessionId,
        after_seq: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=queries.MAX_TRANSCRIPT_LIMIT)] = queries.DEFAULT_TRANSCRIPT_LIMIT,
        min_position: MinPosition = "",
        wait_ms: WaitMs = None,
    ) -> Response:
        """Entries of one session in order, at most about 4 MiB at once; `more` tells whether others follow."""
        answer = await reading.transcript(
            session_id,
            after_seq=after_seq,
            limit=limit,
            min_position=_min_position(layout, session_id, min_position),
            wait_seconds=_seconds(wait_ms),
        )
        body = {
            "entries": [_entry(entry) for entry in answer.entries],
            "more": answer.more,
            "position": _position(answer.position),
        }
        return _json(body, [answer.position])

    async def query(body: models.QueryBody, parameters_json: bytes) -> Response:
        shard = _target(reading, body)
        group = layout.group_of(shard)
        answer = await reading.query(
            body.sql,
            shard,
            parameters_json=parameters_json,
            max_rows=body.max_rows,
            timeout_seconds=_seconds(body.timeout_ms),
            min_position=parse_min_positions(body.min_position or "", [group]).get(group),
            wait_seconds=_seconds(body.wait_ms),
        )
        return _json(_rows(answer), [answer.position])

    @routes.get("/query", response_model=models.QueryResponse)
    async def get_query(
        *,
        sql: Annotated[str, Query(examples=["SELECT kind, count(*) FROM transcript GROUP BY kind"])],
        shard: int | None = None,
        session_id: Annotated[str | None, Query(description="The shard that holds this session.")] = None,
        workspace: bool = False,
        parameters: Annotated[str, Query(description="A JSON array or object.")] = "",
        max_rows: int | None = None,
        timeout_ms: int | None = None,
        min_position: MinPosition = "",
        wait_ms: WaitMs = None,
    ) -> Response:
        """Run one reading SQL statement over one shard: name a `shard`, a `session_id`, or the `workspace`."""
        body = models.QueryBody(
            sql=sql,
            shard=shard,
            session_id=session_id,
            workspace=workspace,
            max_rows=max_rows,
            timeout_ms=timeout_ms,
            min_position=min_position,
            wait_ms=wait_ms,
        )
        return await query(body, parameters.encode())

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
        """Run one reading SQL statement over one shard; for statements and parameters that are long."""
        body = _query_body(await request.body())
        return await query(body, json.dumps(body.parameters).encode())

    return routes


def parse_min_positions(text: str, groups: Sequence[int]) -> dict[int, Position]:
    """Read `epoch:lsn` or `group=epoch:lsn, …` for a read that touches `groups`; other groups are left out.

    Raises:
        InvalidRequest: It is neither, or the group is missing where several are read.
    """
    positions: dict[int, Position] = {}
    for part in filter(None, (part.strip() for part in text[:MAX_MIN_POSITION_CHARACTERS].split(","))):
        named, equals, position = part.rpartition("=")
        if not equals and len(groups) > 1:
            raise InvalidRequest(f"min_position {part!r} names no group, and {len(groups)} groups are read")
        try:
            group = int(named) if equals else groups[0]
            parsed = Position.parse(position)
        except ValueError as error:
            raise InvalidRequest(
                f"min_position is written epoch:lsn or group=epoch:lsn, for example 0=3:1204; got {part[:80]!r}"
            ) from error
        if group in groups:
            positions[group] = parsed
    return positions


def _min_position(layout: ShardLayout, session_id: str, text: str) -> Position | None:
    group = layout.group_of(layout.shard_of(check_session_id(session_id)))
    return parse_min_positions(text, [group]).get(group)


def _target(reading: Reading, body: models.QueryBody) -> int:
    targets = [body.shard is not None, body.session_id is not None, body.workspace]
    if sum(targets) != 1:
        raise InvalidRequest("name exactly one of shard, session_id and workspace")
    if body.shard is not None:
        return reading.checked_shard(body.shard)
    if body.session_id is not None:
        return reading.layout.shard_of(check_session_id(body.session_id))
    return reading.layout.workspace_shard


def _query_body(text: bytes) -> models.QueryBody:
    try:
        return models.QueryBody.model_validate_json(text)
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_url=False)) from error


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _position(position: GroupPosition) -> dict[str, Any]:
    return {"group": position.group, "position": str(position.position)}


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


def _rows(answer: QueryAnswer) -> dict[str, Any]:
    result, shard, position = answer
    return {
        "columns": result.columns,
        "rows": orjson.Fragment(result.rows_json),
        "row_count": result.row_count,
        "truncated": result.truncated,
        "shard": shard,
        "position": _position(position),
    }


def _json(body: dict[str, Any], positions: Sequence[GroupPosition]) -> Response:
    header = ", ".join(f"{group}={position}" for group, position in positions)
    return Response(orjson.dumps(body), media_type="application/json", headers={POSITION_HEADER: header})
