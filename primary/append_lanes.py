"""One caller's append stream, split by the primaries that it touches and put together again.

The order of a session's appends is kept also when its group moves. The primary before may refuse what it still owes
an answer, or never have been given it; nothing behind that may be written by the next one. So a session stays with
the primary that owes it an answer, and once that did not acknowledge an append, what follows is refused here, until
one comes again, as it is at a primary (`primary/append_order.py`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Set
from itertools import chain

import grpc.aio

from agent_core.cluster import NodeAddress
from agent_core.errors import HeadwaterError, OutcomeUnknown, Unavailable, from_code
from agent_core.rpc.session_pb2 import AppendBatch, AppendRequest, AppendResult, AppendResults
from agent_core.rpc_errors import from_rpc_error
from primary.append_answers import MAX_UNANSWERED_APPENDS
from primary.append_order import AppendOrder
from primary.unanswered_appends import UnansweredAppends

MAX_WAITING_BYTES = 16 << 20
"""What of one stream waits for a lane; then the caller waits. A single batch may be larger."""
PATIENCE_SECONDS = 1.0
"""How long a primary may take and answer nothing while the rest of the stream waits; clients wait little longer."""
MAX_WAITING_RESULTS = 64
"""Messages with results that wait for the caller; then its lanes wait."""

OpenLane = Callable[[NodeAddress | None, AsyncIterator[AppendBatch]], AsyncIterator[AppendResults]]
"""Opens an append stream at a primary, None for this node: from batches to results."""


class AppendLane:
    """The part of an append stream that one primary takes.

    Args:
        order: Is told of the appends that were not acknowledged and may be repeated.

    Attributes:
        unanswered: What it was given and has not answered.
        progress_count: How often its primary has taken or answered something.
        delivering: Results of its primary wait for the caller to take them.
        task: What runs it.
    """

    def __init__(self, order: AppendOrder) -> None:
        self.unanswered = UnansweredAppends()
        self.progress_count = 0
        self.delivering = False
        self.task: asyncio.Task[None] | None = None
        self._order = order
        self._waiting: deque[tuple[AppendBatch, int]] = deque()
        self._waiting_bytes = 0
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._ended = False

    @property
    def full(self) -> bool:
        """Whether its primary must take or answer something before it is given more."""
        return self._waiting_bytes >= MAX_WAITING_BYTES or len(self.unanswered) >= MAX_UNANSWERED_APPENDS

    async def room(self) -> None:
        """Wait until it may be given more, or has ended."""
        while self.full and not self._ended:
            self._room.clear()
            await self._room.wait()

    def put(self, appends: list[AppendRequest]) -> None:
        """Give it a batch."""
        for append in appends:
            self.unanswered.add(append.request_id, append.session_id)
        batch = AppendBatch(appends=appends)
        size = batch.ByteSize()
        self._waiting.append((batch, size))
        self._waiting_bytes += size
        self._changed.set()

    async def batches(self) -> AsyncIterator[AppendBatch]:
        """What it was given, as it comes, until it is told that nothing more will."""
        while True:
            while self._waiting:
                batch, size = self._waiting.popleft()
                self._waiting_bytes -= size
                self.progress_count += 1
                self._room.set()
                yield batch
            if self._ended:
                return
            self._changed.clear()
            await self._changed.wait()

    def answered(self, results: AppendResults) -> None:
        """Its primary has answered these, or never will."""
        for result in results.results:
            session_id = self.unanswered.remove(result.request_id)
            if session_id is not None and result.error_code and from_code(result.error_code, "").retry:
                self._order.refused(session_id, result.request_id)
        self.progress_count += 1
        self._room.set()

    def end(self) -> None:
        """It will be given nothing more."""
        self._ended = True
        self._changed.set()
        self._room.set()


class AppendLanes:
    """Takes the batches of one stream, and gives its results.

    Attributes:
        results: What the caller is to be sent; None at the end.
    """

    def __init__(self, open_lane: OpenLane, primary_of: Callable[[str], NodeAddress | None]) -> None:
        """Split a stream.

        Args:
            open_lane: Opens a stream at a primary.
            primary_of: The other node that leads a session's group; None while this one does, or nobody.
        """
        self._open_lane = open_lane
        self._primary_of = primary_of
        self._lanes: dict[NodeAddress | None, AppendLane] = {}
        self._order = AppendOrder()
        self.results: asyncio.Queue[AppendResults | None] = asyncio.Queue(MAX_WAITING_RESULTS)

    async def take(self, batches: AsyncIterator[AppendBatch]) -> None:
        """Split what the caller sends, until it ends or `AppendOrder` is full; then let every lane finish."""
        try:
            async for batch in batches:
                await self._give(batch.appends)
                if self._order.full:
                    return
        finally:
            lanes = list(self._lanes.values())
            for lane in lanes:
                lane.end()
            await asyncio.gather(*(lane.task for lane in lanes if lane.task is not None), return_exceptions=True)
            await self.results.put(None)

    async def keep(self, leaders: Set[NodeAddress | None]) -> None:
        """End the lanes to other nodes than these; what they have not answered may have been written."""
        for primary in [name for name in self._lanes if name is not None and name not in leaders]:
            await self._give_up(primary, f"{primary.node_id} no longer leads, and has not answered")

    async def close(self) -> None:
        """End every lane; the caller is gone."""
        tasks = [lane.task for lane in self._lanes.values() if lane.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _give(self, appends: Iterable[AppendRequest]) -> None:
        refused: list[int] = []
        parts = self._split(appends)
        while parts:
            primary, part = parts.popitem()
            lane = self._lanes.get(primary)
            if lane is not None and lane.full:
                await self._make_room(primary, lane)
                # Groups may have moved meanwhile.
                parts = self._split(chain(part, *parts.values()))
                continue
            admitted = []
            for append in part:
                if self._admits(append, primary):
                    admitted.append(append)
                else:
                    refused.append(append.request_id)
            if admitted:
                self._lane(primary).put(admitted)
        if refused:
            error = Unavailable("an earlier append to the session was not acknowledged; repeat that first")
            await self.results.put(_failures(refused, error))

    def _split(self, appends: Iterable[AppendRequest]) -> dict[NodeAddress | None, list[AppendRequest]]:
        """Appends by the primary that they go to; a session's stay together, in order."""
        split: dict[NodeAddress | None, list[AppendRequest]] = {}
        for append in appends:
            split.setdefault(self._destination(append.session_id), []).append(append)
        return split

    def _destination(self, session_id: str) -> NodeAddress | None:
        """The primary that owes the session an answer, else the one that leads its group."""
        for primary, lane in self._lanes.items():
            if lane.unanswered.has_session(session_id):
                return primary
        return self._primary_of(session_id)

    def _admits(self, append: AppendRequest, destination: NodeAddress | None) -> bool:
        """Whether an append may go to its destination; if not, it must be refused, and counts as refused."""
        session_id = append.session_id
        if self._order.awaits_repeat(session_id) and destination != self._primary_of(session_id):
            # The primary before shall answer what it has: given repeats, it might never be done with the session.
            self._order.refused(session_id, append.request_id)
            return False
        return self._order.admits(session_id, append.request_id)

    def _lane(self, primary: NodeAddress | None) -> AppendLane:
        lane = self._lanes.get(primary)
        if lane is None:
            lane = self._lanes[primary] = AppendLane(self._order)
            lane.task = asyncio.create_task(self._run(primary, lane), name="append lane")
        return lane

    async def _run(self, primary: NodeAddress | None, lane: AppendLane) -> None:
        try:
            async for results in self._open_lane(primary, lane.batches()):
                lane.delivering = True
                await self.results.put(results)
                lane.delivering = False
                lane.answered(results)
        except grpc.aio.AioRpcError as error:
            # What was not answered may have been written all the same.
            await self._fail(lane, from_rpc_error(error, unanswered=OutcomeUnknown))
        finally:
            if self._lanes.get(primary) is lane:
                del self._lanes[primary]
            lane.end()
        await self._fail(lane, OutcomeUnknown("the primary ended the forwarded stream"))

    async def _make_room(self, primary: NodeAddress | None, lane: AppendLane) -> None:
        progress_count = lane.progress_count
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await lane.room()
        except TimeoutError:
            if lane.progress_count == progress_count and not lane.delivering:
                name = "this node" if primary is None else primary.node_id
                await self._give_up(primary, f"{name} has taken and answered nothing for {PATIENCE_SECONDS:g} s")

    async def _give_up(self, primary: NodeAddress | None, reason: str) -> None:
        """End a lane; what it has not answered may have been written."""
        lane = self._lanes.pop(primary, None)
        if lane is None:
            return
        lane.end()
        if lane.task is not None:
            lane.task.cancel()
        await self._fail(lane, OutcomeUnknown(reason))

    async def _fail(self, lane: AppendLane, error: HeadwaterError) -> None:
        if lane.unanswered:
            failed = _failures(lane.unanswered.request_ids, OutcomeUnknown(str(error)))
            lane.answered(failed)
            await self.results.put(failed)


def _failures(request_ids: Iterable[int], error: HeadwaterError) -> AppendResults:
    return AppendResults(
        results=[
            AppendResult(request_id=request_id, error_code=error.code, error_message=str(error))
            for request_id in request_ids
        ]
    )
