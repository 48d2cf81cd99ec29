"""The read side over gRPC: messages in, the shared reads, messages out, errors as their codes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import wraps
from typing import Any, TypeVar

import grpc.aio

from agent_core.errors import HeadwaterError, InvalidRequest
from agent_core.position import Position
from agent_core.routing import check_session_id
from agent_core.rpc import read_pb2, read_pb2_grpc, replication_pb2, session_pb2
from agent_core.rpc_errors import abort
from replica.reading.freshness import Demand
from replica.reading.paging import SessionOrder
from replica.reading.positions import GroupPosition
from replica.reading.queries import DEFAULT_TRANSCRIPT_LIMIT
from replica.reading.reading import Reading
from replica.reading.session_list import DEFAULT_PAGE_SIZE, SessionFilter

Context = grpc.aio.ServicerContext[Any, Any]
Service = TypeVar("Service")
Request = TypeVar("Request")
Response = TypeVar("Response")


def _errors_as_codes(
    method: Callable[[Service, Request], Awaitable[Response]],
) -> Callable[[Service, Request, Context], Awaitable[Response]]:
    @wraps(method)
    async def answer(self: Service, request: Request, context: Context) -> Response:
        try:
            return await method(self, request)
        except HeadwaterError as error:
            await abort(context, error)

    return answer


class ReadingService(read_pb2_grpc.ReadingServicer):
    """Serves `headwater.v1.Reading`; numbers left at 0 take their defaults."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    @_errors_as_codes
    async def ListSessions(  # noqa: N802 - gRPC names its methods
        self, request: session_pb2.ListSessionsRequest
    ) -> session_pb2.ListSessionsResponse:
        """A page of sessions."""
        return await self.list_sessions(request)

    async def list_sessions(self, request: session_pb2.ListSessionsRequest) -> session_pb2.ListSessionsResponse:
        """What `ListSessions` answers; the Sessions service answers the same.

        Raises:
            HeadwaterError: As `Reading.sessions`.
        """
        page = await self._reading.sessions(
            SessionFilter(
                request.workspace,
                request.status,
                request.model,
                request.text,
                request.updated_after_ms,
                request.updated_before_ms,
                request.created_after_ms,
                request.created_before_ms,
            ),
            SessionOrder.parse(request.sort, request.order),
            page_size=request.page_size or DEFAULT_PAGE_SIZE,
            page_token=request.page_token,
            demand=Demand(
                {minimum.group: _position(minimum.position) for minimum in request.min_positions},
                _seconds(request.max_staleness_ms),
                _seconds(request.wait_ms),
            ),
        )
        return session_pb2.ListSessionsResponse(
            sessions=[session_pb2.Session(**session._asdict()) for session in page.sessions],
            next_page_token=page.next_page_token,
            positions=map(_group_position, page.positions),
        )

    @_errors_as_codes
    async def GetSession(  # noqa: N802 - gRPC names its methods
        self, request: session_pb2.GetSessionRequest
    ) -> session_pb2.GetSessionResponse:
        """One session."""
        answer = await self._reading.session(
            request.session_id,
            demand=self._demand(request, self._reading.layout.shard_of(check_session_id(request.session_id))),
        )
        return session_pb2.GetSessionResponse(
            session=session_pb2.Session(**answer.session._asdict()), position=_group_position(answer.position)
        )

    @_errors_as_codes
    async def GetTranscript(  # noqa: N802 - gRPC names its methods
        self, request: session_pb2.GetTranscriptRequest
    ) -> session_pb2.GetTranscriptResponse:
        """Entries of one session in order."""
        answer = await self._reading.transcript(
            request.session_id,
            after_seq=request.after_seq,
            limit=request.limit or DEFAULT_TRANSCRIPT_LIMIT,
            demand=self._demand(request, self._reading.layout.shard_of(check_session_id(request.session_id))),
        )
        return session_pb2.GetTranscriptResponse(
            entries=[session_pb2.Entry(**entry._asdict()) for entry in answer.entries],
            more=answer.more,
            position=_group_position(answer.position),
        )

    @_errors_as_codes
    async def GetToolCalls(  # noqa: N802 - gRPC names its methods
        self, request: read_pb2.GetToolCallsRequest
    ) -> read_pb2.GetToolCallsResponse:
        """Tool calls of one session in order."""
        answer = await self._reading.tool_calls(
            request.session_id,
            after_seq=request.after_seq,
            limit=request.limit or DEFAULT_TRANSCRIPT_LIMIT,
            demand=self._demand(request, self._reading.layout.shard_of(check_session_id(request.session_id))),
        )
        return read_pb2.GetToolCallsResponse(
            tool_calls=[read_pb2.ToolCall(**call._asdict()) for call in answer.tool_calls],
            more=answer.more,
            position=_group_position(answer.position),
        )

    async def Follow(  # noqa: N802 - gRPC names its methods
        self, request: read_pb2.FollowRequest, context: Context
    ) -> AsyncIterator[read_pb2.FollowEvent]:
        """A session's entries, then each further one as this node applies it."""
        try:
            answers = self._reading.follow(
                request.session_id,
                after_seq=request.after_seq,
                after_position=_position(request.after_position),
            )
            async for answer in answers:
                yield read_pb2.FollowEvent(
                    entries=[session_pb2.Entry(**entry._asdict()) for entry in answer.entries],
                    position=_group_position(answer.position),
                )
        except HeadwaterError as error:
            await abort(context, error)

    @_errors_as_codes
    async def Query(self, request: read_pb2.QueryRequest) -> read_pb2.QueryResponse:  # noqa: N802 - gRPC names its methods
        """The rows of one reading SQL statement over all shards, or over one."""
        shard = self._target(request)
        answer = await self._reading.query(
            request.sql,
            shard,
            parameters_json=request.parameters_json,
            max_rows=request.max_rows or None,
            timeout_seconds=request.timeout_ms / 1000 or None,
            demand=self._demand(request, shard),
        )
        return read_pb2.QueryResponse(
            **answer.result._asdict(), shard=answer.shard, positions=map(_group_position, answer.positions)
        )

    def _demand(
        self,
        request: session_pb2.GetSessionRequest
        | session_pb2.GetTranscriptRequest
        | read_pb2.GetToolCallsRequest
        | read_pb2.QueryRequest,
        shard: int | None,
    ) -> Demand:
        groups = {}
        if request.HasField("min_position"):
            groups[self._only_group(shard)] = _position(request.min_position)
        if isinstance(request, read_pb2.QueryRequest):
            groups |= {minimum.group: _position(minimum.position) for minimum in request.min_positions}
        return Demand(groups, _seconds(request.max_staleness_ms), _seconds(request.wait_ms))

    def _only_group(self, shard: int | None) -> int:
        """The group that a position without one is of."""
        layout = self._reading.layout
        if shard is not None:
            return layout.group_of(self._reading.checked_shard(shard))
        if layout.shard_group_count > 1:
            raise InvalidRequest(
                f"min_position names no group, and {layout.shard_group_count} groups are read; use min_positions"
            )
        return 0

    def _target(self, request: read_pb2.QueryRequest) -> int | None:
        layout = self._reading.layout
        match request.WhichOneof("target"):
            case "shard":
                return request.shard
            case "session_id":
                return layout.shard_of(check_session_id(request.session_id))
            case "workspace" if request.workspace:
                return layout.workspace_shard
        return None


def _position(message: replication_pb2.Position) -> Position:
    return Position(message.epoch, message.lsn)


def _group_position(position: GroupPosition) -> session_pb2.GroupPosition:
    return session_pb2.GroupPosition(
        group=position.group,
        position=replication_pb2.Position(epoch=position.position.epoch, lsn=position.position.lsn),
        age_seconds=position.age_seconds,
    )


def _seconds(milliseconds: int) -> float | None:
    return milliseconds / 1000 if milliseconds else None
