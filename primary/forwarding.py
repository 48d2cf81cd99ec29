"""Any node takes any request of the Sessions service: what another node leads is forwarded to it.

A caller needs not know where a session's actor lives. Each call goes to the primary of the session's group, which
may be this node; an append stream becomes one lane for each primary that it touches. A forwarded call says so, and
is never forwarded again: two nodes with different maps cannot send it to and fro.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import grpc.aio
from google.protobuf.message import Message
from grpc.aio import ServicerContext

from agent_core.cluster import NodeAddress
from agent_core.errors import HeadwaterError, OutcomeUnknown, Unavailable
from agent_core.routing import ShardLayout
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
    ListSessionsRequest,
    ListSessionsResponse,
    SubscribeEvent,
    SubscribeRequest,
)
from agent_core.rpc.session_pb2_grpc import SessionsServicer
from agent_core.rpc_errors import abort, from_rpc_error
from agent_core.transport import ROUTE_DIRECT, ROUTE_FORWARDED, ROUTE_KEY
from primary.append_lanes import AppendLanes
from primary.service import SessionsService

if TYPE_CHECKING:
    # The asynchronous stub exists for type checkers only.
    from agent_core.rpc.session_pb2_grpc import SessionsAsyncStub

Response = TypeVar("Response", bound=Message)

FORWARDED = ((ROUTE_KEY, ROUTE_FORWARDED),)


class ForwardingSessions(SessionsServicer):
    """Serves what this node leads through `SessionsService`, and everything else through its primary."""

    def __init__(
        self,
        local: SessionsService,
        layout: ShardLayout,
        *,
        elsewhere: Callable[[int], NodeAddress | None],
        moved: Callable[[], Awaitable[None]],
        stub_of: Callable[[NodeAddress], SessionsAsyncStub],
    ) -> None:
        """Forward what `local` does not lead.

        Args:
            local: Serves this node's groups.
            layout: The cluster's shards and groups.
            elsewhere: The other node that leads a group; None while this node does, or nobody.
            moved: Waits until some group is led by another node than before.
            stub_of: Its Sessions service.
        """
        self._moved = moved
        self._local = local
        self._layout = layout
        self._elsewhere = elsewhere
        self._stub_of = stub_of

    async def CreateSession(  # noqa: N802 - the name in the proto
        self, request: CreateSessionRequest, context: ServicerContext[CreateSessionRequest, CreateSessionResponse]
    ) -> CreateSessionResponse:
        """Create a session, or find it there."""
        stub = self._stub(request.session.session_id, context)
        if stub is None:
            return await self._local.CreateSession(request, context)
        return await forward(stub.CreateSession, request, CreateSessionResponse, context, unanswered=OutcomeUnknown)

    async def GetSession(  # noqa: N802 - the name in the proto
        self, request: GetSessionRequest, context: ServicerContext[GetSessionRequest, GetSessionResponse]
    ) -> GetSessionResponse:
        """What is known of a session."""
        stub = self._stub(request.session_id, context)
        if stub is None:
            return await self._local.GetSession(request, context)
        return await forward(stub.GetSession, request, GetSessionResponse, context, unanswered=Unavailable)

    async def ListSessions(  # noqa: N802 - the name in the proto
        self, request: ListSessionsRequest, context: ServicerContext[ListSessionsRequest, ListSessionsResponse]
    ) -> ListSessionsResponse:
        """Sessions, most recently updated first, from this node's own shards."""
        return await self._local.ListSessions(request, context)

    async def GetTranscript(  # noqa: N802 - the name in the proto
        self, request: GetTranscriptRequest, context: ServicerContext[GetTranscriptRequest, GetTranscriptResponse]
    ) -> GetTranscriptResponse:
        """A page of a transcript."""
        stub = self._stub(request.session_id, context)
        if stub is None:
            return await self._local.GetTranscript(request, context)
        return await forward(stub.GetTranscript, request, GetTranscriptResponse, context, unanswered=Unavailable)

    async def Append(  # noqa: N802 - the name in the proto
        self, request: AppendRequest, context: ServicerContext[AppendRequest, AppendResult]
    ) -> AppendResult:
        """One entry."""
        stub = self._stub(request.session_id, context)
        if stub is None:
            return await self._local.Append(request, context)
        return await forward(stub.Append, request, AppendResult, context, unanswered=OutcomeUnknown)

    async def AppendStream(  # noqa: N802 - the name in the proto
        self,
        request_iterator: AsyncIterator[AppendBatch],
        context: ServicerContext[AppendBatch, AppendResults],
    ) -> AsyncIterator[AppendResults]:
        """The appends of many sessions; results as they come."""
        if self._keeps(context):
            async for results in self._local.AppendStream(request_iterator, context):
                yield results
            return

        def open_lane(
            primary: NodeAddress | None, batches: AsyncIterator[AppendBatch]
        ) -> AsyncIterator[AppendResults]:
            if primary is None:
                return self._local.AppendStream(batches, context)
            return self._stub_of(primary).AppendStream(batches, metadata=FORWARDED).__aiter__()

        lanes = AppendLanes(open_lane, self._primary_of)
        reading = asyncio.create_task(lanes.take(request_iterator), name="forwarded append stream")
        watching = asyncio.create_task(self._abandon(lanes), name="moved groups")
        try:
            while (answered := await lanes.results.get()) is not None:
                yield answered
        finally:
            reading.cancel()
            watching.cancel()
            await lanes.close()

    async def Subscribe(  # noqa: N802 - the name in the proto
        self, request: SubscribeRequest, context: ServicerContext[SubscribeRequest, SubscribeEvent]
    ) -> AsyncIterator[SubscribeEvent]:
        """A session's entries behind a cursor, then live."""
        stub = self._stub(request.session_id, context)
        if stub is None:
            async for event in self._local.Subscribe(request, context):
                yield event
            return
        call = stub.Subscribe(request, metadata=FORWARDED)
        try:
            async for event in call:
                yield event
        except grpc.aio.AioRpcError as error:
            await abort(context, from_rpc_error(error, unanswered=Unavailable))
        finally:
            call.cancel()

    async def _abandon(self, lanes: AppendLanes) -> None:
        """Give up the lanes to nodes that lead nothing any more: such a node may hang, and never answer."""
        while True:
            await self._moved()
            leaders = {self._elsewhere(group) for group in range(self._layout.shard_group_count)}
            await lanes.keep(leaders)

    def _keeps(self, context: ServicerContext[Any, Any]) -> bool:
        """Whether this node answers itself, if only with the primary's address.

        A caller that asks for the direct way is sent on when one other node leads everything, since then it needs
        nobody in between.
        """
        routes = [value for key, value in context.invocation_metadata() or () if key == ROUTE_KEY]
        if ROUTE_FORWARDED in routes:
            return True
        leaders = {self._elsewhere(group) for group in range(self._layout.shard_group_count)}
        return leaders == {None} or (ROUTE_DIRECT in routes and len(leaders) == 1)

    def _primary_of(self, session_id: str) -> NodeAddress | None:
        return self._elsewhere(self._layout.group_of(self._layout.shard_of(session_id)))

    def _stub(self, session_id: str, context: ServicerContext[Any, Any]) -> SessionsAsyncStub | None:
        primary = None if self._keeps(context) else self._primary_of(session_id)
        return None if primary is None else self._stub_of(primary)


async def forward(
    method: Any,  # noqa: ANN401 - one of the stub's methods, each with types of its own
    request: Message,
    response_type: type[Response],
    context: ServicerContext[Any, Any],
    *,
    unanswered: type[HeadwaterError],
) -> Response:
    """Make a call at another node, and hand its error on; one that it did not answer becomes `unanswered`."""
    try:
        response = await method(request, timeout=context.time_remaining(), metadata=FORWARDED)
    except grpc.aio.AioRpcError as error:
        await abort(context, from_rpc_error(error, unanswered=unanswered))
    assert isinstance(response, response_type), "the stub's method answers with nothing else"
    return response
