"""The Sessions service over gRPC: checks what comes in, asks the registry, answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import structlog
from grpc.aio import ServicerContext

from agent_core.errors import HeadwaterError, InvalidRequest, Unavailable
from agent_core.position import Position
from agent_core.routing import ShardLayout, check_session_id
from agent_core.rpc.session_pb2 import (
    AppendBatch,
    AppendRequest,
    AppendResult,
    AppendResults,
    CreateSessionRequest,
    CreateSessionResponse,
    GetSessionRequest,
    GetSessionResponse,
    GetTranscriptRequest,
    GetTranscriptResponse,
    GroupPosition,
    ListSessionsRequest,
    ListSessionsResponse,
    SubscribeEvent,
    SubscribeRequest,
)
from agent_core.rpc.session_pb2_grpc import SessionsServicer
from agent_core.rpc_errors import abort
from agent_core.tracing import Tracer
from primary.append_answers import AppendAnswers, group_position
from primary.checks import WriteChecks, acknowledgement
from primary.mutation import OutcomeSink
from primary.registry import SessionRegistry
from primary.subscription import subscribe
from primary.tracing import traced

log = structlog.get_logger(__name__)

TRANSCRIPT_BYTES = 4 << 20
MAX_TRANSCRIPT_ENTRIES = 10_000
MAX_RESULTS_PER_MESSAGE = 4096

Listing = Callable[[ListSessionsRequest], Awaitable[ListSessionsResponse]]
"""How sessions are listed: from the shards, as on every node."""


class SessionsService(SessionsServicer):
    """Serves the sessions of the groups that this node leads."""

    def __init__(
        self,
        registry: SessionRegistry,
        layout: ShardLayout,
        checks: WriteChecks,
        listing: Listing,
        tracer: Tracer | None = None,
    ) -> None:
        self._registry = registry
        self._layout = layout
        self._checks = checks
        self._listing = listing
        self._tracer = tracer

    async def CreateSession(  # noqa: N802 - the name in the proto
        self, request: CreateSessionRequest, context: ServicerContext[CreateSessionRequest, CreateSessionResponse]
    ) -> CreateSessionResponse:
        """Create a session, or find it there."""
        try:
            session, position, created = await self._registry.create(
                self._checks.session(request.session), acknowledgement(request.acknowledgement)
            )
        except HeadwaterError as error:
            await abort(context, error)
        return CreateSessionResponse(
            session=session, created=created, position=self._position(session.session_id, position)
        )

    async def GetSession(  # noqa: N802 - the name in the proto
        self, request: GetSessionRequest, context: ServicerContext[GetSessionRequest, GetSessionResponse]
    ) -> GetSessionResponse:
        """What is known of a session, from its actor."""
        try:
            actor = await self._registry.actor(check_session_id(request.session_id))
            position = self._registry.readable_position(request.session_id)
        except HeadwaterError as error:
            await abort(context, error)
        return GetSessionResponse(session=actor.session, position=self._position(request.session_id, position))

    async def ListSessions(  # noqa: N802 - the name in the proto
        self, request: ListSessionsRequest, context: ServicerContext[ListSessionsRequest, ListSessionsResponse]
    ) -> ListSessionsResponse:
        """Sessions, most recently updated first."""
        try:
            return await self._listing(request)
        except HeadwaterError as error:
            await abort(context, error)

    async def GetTranscript(  # noqa: N802 - the name in the proto
        self, request: GetTranscriptRequest, context: ServicerContext[GetTranscriptRequest, GetTranscriptResponse]
    ) -> GetTranscriptResponse:
        """A page of a transcript, from memory."""
        try:
            if request.limit > MAX_TRANSCRIPT_ENTRIES:
                raise InvalidRequest(f"limit is {request.limit}; at most {MAX_TRANSCRIPT_ENTRIES} are allowed")
            actor = await self._registry.actor(check_session_id(request.session_id))
            position = self._registry.readable_position(request.session_id)
        except HeadwaterError as error:
            await abort(context, error)
        entries = actor.entries(request.after_seq, request.limit or 1000, TRANSCRIPT_BYTES)
        last_seq = entries[-1].seq if entries else request.after_seq
        return GetTranscriptResponse(
            entries=entries,
            more=last_seq < actor.visible_seq,
            position=self._position(request.session_id, position),
        )

    async def Append(  # noqa: N802 - the name in the proto
        self, request: AppendRequest, context: ServicerContext[AppendRequest, AppendResult]
    ) -> AppendResult:
        """One entry; a failure is the call's error, not a field of the result."""
        answer = AppendAnswers()
        try:
            await self._submit(request, answer, raise_errors=True)
        except HeadwaterError as error:
            await abort(context, error)
        (result,) = await answer.take()
        if result.error_code:
            await abort(context, answer.last_error or HeadwaterError(result.error_message))
        return result

    async def AppendStream(  # noqa: N802 - the name in the proto
        self,
        request_iterator: AsyncIterator[AppendBatch],
        context: ServicerContext[AppendBatch, AppendResults],
    ) -> AsyncIterator[AppendResults]:
        """The appends of many sessions; results as they come."""
        answers = AppendAnswers()
        reading = asyncio.create_task(self._read_appends(request_iterator, answers), name="append stream")
        try:
            while True:
                results = await answers.take()
                if not results:
                    return
                for start in range(0, len(results), MAX_RESULTS_PER_MESSAGE):
                    yield AppendResults(results=results[start : start + MAX_RESULTS_PER_MESSAGE])
        finally:
            reading.cancel()

    async def Subscribe(  # noqa: N802 - the name in the proto
        self, request: SubscribeRequest, context: ServicerContext[SubscribeRequest, SubscribeEvent]
    ) -> AsyncIterator[SubscribeEvent]:
        """A session's entries behind a cursor, then live."""
        try:
            async for event in subscribe(self._registry, check_session_id(request.session_id), request.after_seq):
                yield event
        except HeadwaterError as error:
            await abort(context, error)

    async def _read_appends(self, batches: AsyncIterator[AppendBatch], answers: AppendAnswers) -> None:
        try:
            async for batch in batches:
                for request in batch.appends:
                    if answers.full:
                        await answers.room()
                    await self._submit(request, answers, raise_errors=False)
                if answers.order.full:
                    return
        finally:
            answers.end()

    async def _submit(self, request: AppendRequest, answers: AppendAnswers, *, raise_errors: bool) -> None:
        answers.expect(request)
        try:
            new = self._checks.entry(request)
            _check_order(answers, request)
            await self._registry.settled(new.session_id)
            writer = self._registry.writer(new.session_id)
            if writer.full:
                await writer.room()
            # An earlier one may have been refused meanwhile, and have made the room.
            _check_order(answers, request)
            sink: OutcomeSink = answers
            if self._tracer is not None and request.traceparent:
                sink = traced(self._tracer, request.traceparent, answers)
            self._registry.append(new, sink, request.request_id)
        except HeadwaterError as error:
            if raise_errors:
                raise
            answers.failed(request.request_id, error)

    def _position(self, session_id: str, position: Position) -> GroupPosition:
        group = self._layout.group_of(self._layout.shard_of(session_id))
        return group_position(group, position)


def _check_order(answers: AppendAnswers, request: AppendRequest) -> None:
    """Refuse an append that would get in front of one of its session.

    Raises:
        Unavailable: An earlier one was not acknowledged and has not come again.
    """
    if not answers.order.admits(request.session_id, request.request_id):
        raise Unavailable(
            f"an earlier append to session {request.session_id!r} was not acknowledged; repeat that first"
        )
