"""Any node takes any request of the Sessions service: what another node leads is forwarded to it.

A caller needs not know where a session's actor lives. Each call goes to the primary of the session's group, which
may be this node; an append stream becomes one lane for each primary that it touches. A forwarded call says so, and
is never forwarded again: two nodes with different maps cannot send it to and fro.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Set
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
from primary.service import SessionsService

if TYPE_CHECKING:
    # The asynchronous stub exists for type checkers only.
    from agent_core.rpc.session_pb2_grpc import SessionsAsyncStub

Response = TypeVar("Response", bound=Message)

FORWARDED = ((ROUTE_KEY, ROUTE_FORWARDED),)
MAX_WAITING_BATCHES = 64
"""Batches of one stream that wait for a lane; then the caller waits."""


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
        lanes = _Lanes(self._local, context, self._stub_of, self._primary_of)
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

    async def _abandon(self, lanes: _Lanes) -> None:
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


class _Lane:
    """The part of an append stream that one primary takes."""

    def __init__(self) -> None:
        self.batches: asyncio.Queue[AppendBatch | None] = asyncio.Queue(MAX_WAITING_BATCHES)
        self.unanswered: set[int] = set()
        self.task: asyncio.Task[None] | None = None

    async def take(self) -> AsyncIterator[AppendBatch]:
        """The batches for this lane, as they come."""
        while (batch := await self.batches.get()) is not None:
            yield batch


class _Lanes:
    """One caller's append stream, split by primary and put together again."""

    def __init__(
        self,
        local: SessionsService,
        context: ServicerContext[AppendBatch, AppendResults],
        stub_of: Callable[[NodeAddress], SessionsAsyncStub],
        primary_of: Callable[[str], NodeAddress | None],
    ) -> None:
        self._local = local
        self._context = context
        self._stub_of = stub_of
        self._primary_of = primary_of
        self._lanes: dict[NodeAddress | None, _Lane] = {}
        self.results: asyncio.Queue[AppendResults | None] = asyncio.Queue(MAX_WAITING_BATCHES)

    async def take(self, batches: AsyncIterator[AppendBatch]) -> None:
        """Split what the caller sends, until it ends; then let every lane finish."""
        try:
            async for batch in batches:
                for primary, appends in self._split(batch).items():
                    lane = self._lane(primary)
                    lane.unanswered.update(append.request_id for append in appends)
                    await lane.batches.put(AppendBatch(appends=appends))
        finally:
            lanes = list(self._lanes.values())
            for lane in lanes:
                await lane.batches.put(None)
            await asyncio.gather(*(lane.task for lane in lanes if lane.task is not None), return_exceptions=True)
            await self.results.put(None)

    async def keep(self, leaders: Set[NodeAddress | None]) -> None:
        """End the lanes to other nodes than these; what they have not answered may have been written."""
        for primary in [name for name in self._lanes if name is not None and name not in leaders]:
            lane = self._lanes.pop(primary)
            if lane.task is not None:
                lane.task.cancel()
            await self._fail(lane, OutcomeUnknown(f"{primary.node_id} no longer leads, and has not answered"))

    async def close(self) -> None:
        """End every lane; the caller is gone."""
        tasks = [lane.task for lane in self._lanes.values() if lane.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _split(self, batch: AppendBatch) -> dict[NodeAddress | None, list[AppendRequest]]:
        """A batch by primary; a session's appends stay together, in order."""
        split: dict[NodeAddress | None, list[AppendRequest]] = {}
        for append in batch.appends:
            split.setdefault(self._primary_of(append.session_id), []).append(append)
        return split

    def _lane(self, primary: NodeAddress | None) -> _Lane:
        lane = self._lanes.get(primary)
        if lane is None:
            lane = self._lanes[primary] = _Lane()
            lane.task = asyncio.create_task(self._run(primary, lane), name="append lane")
        return lane

    async def _run(self, primary: NodeAddress | None, lane: _Lane) -> None:
        if primary is None:
            answers: AsyncIterator[AppendResults] = self._local.AppendStream(lane.take(), self._context)
        else:
            answers = self._stub_of(primary).AppendStream(lane.take(), metadata=FORWARDED).__aiter__()
        try:
            async for results in answers:
                lane.unanswered.difference_update(result.request_id for result in results.results)
                await self.results.put(results)
        except grpc.aio.AioRpcError as error:
            # What was not answered may have been written all the same.
            await self._fail(lane, from_rpc_error(error, unanswered=OutcomeUnknown))
        finally:
            if self._lanes.get(primary) is lane:
                del self._lanes[primary]
        await self._fail(lane, OutcomeUnknown("the primary ended the forwarded stream"))

    async def _fail(self, lane: _Lane, error: HeadwaterError) -> None:
        if lane.unanswered:
            failed = _failures(sorted(lane.unanswered), OutcomeUnknown(str(error)))
            lane.unanswered.clear()
            await self.results.put(failed)


def _failures(request_ids: Iterable[int], error: HeadwaterError) -> AppendResults:
    return AppendResults(
        results=[
            AppendResult(request_id=request_id, error_code=error.code, error_message=str(error))
            for request_id in request_ids
        ]
    )


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
