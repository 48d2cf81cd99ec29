"""One caller's append stream, split by the primaries that it touches and put together again."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Set
from itertools import chain

import grpc.aio

from agent_core.cluster import NodeAddress
from agent_core.errors import HeadwaterError, OutcomeUnknown
from agent_core.rpc.session_pb2 import AppendBatch, AppendRequest, AppendResult, AppendResults
from agent_core.rpc_errors import from_rpc_error
from primary.append_answers import MAX_UNANSWERED_APPENDS

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

    Attributes:
        unanswered: The ids of the appends that it was given and has not answered.
        moves: How often its primary has taken or answered something.
        delivers: Results of its primary wait for the caller to take them.
        task: What runs it.
    """

    def __init__(self) -> None:
        self.unanswered: set[int] = set()
        self.moves = 0
        self.delivers = False
        self.task: asyncio.Task[None] | None = None
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
        self.unanswered.update(append.request_id for append in appends)
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
                self.moves += 1
                self._room.set()
                yield batch
            if self._ended:
                return
            self._changed.clear()
            await self._changed.wait()

    def answered(self, results: AppendResults) -> None:
        """Its primary has answered these."""
        self.unanswered.difference_update(result.request_id for result in results.results)
        self.moves += 1
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
        self.results: asyncio.Queue[AppendResults | None] = asyncio.Queue(MAX_WAITING_RESULTS)

    async def take(self, batches: AsyncIterator[AppendBatch]) -> None:
        """Split what the caller sends, until it ends; then let every lane finish."""
        try:
            async for batch in batches:
                await self._give(batch.appends)
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
        parts = self._split(appends)
        while parts:
            primary, part = parts.popitem()
            lane = self._lane(primary)
            if lane.full:
                await self._make_room(primary, lane)
                # Groups may have moved meanwhile.
                parts = self._split(chain(part, *parts.values()))
            else:
                lane.put(part)

    def _split(self, appends: Iterable[AppendRequest]) -> dict[NodeAddress | None, list[AppendRequest]]:
        """Appends by primary; a session's stay together, in order."""
        split: dict[NodeAddress | None, list[AppendRequest]] = {}
        for append in appends:
            split.setdefault(self._primary_of(append.session_id), []).append(append)
        return split

    def _lane(self, primary: NodeAddress | None) -> AppendLane:
        lane = self._lanes.get(primary)
        if lane is None:
            lane = self._lanes[primary] = AppendLane()
            lane.task = asyncio.create_task(self._run(primary, lane), name="append lane")
        return lane

    async def _run(self, primary: NodeAddress | None, lane: AppendLane) -> None:
        try:
            async for results in self._open_lane(primary, lane.batches()):
                lane.delivers = True
                await self.results.put(results)
                lane.delivers = False
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
        moves = lane.moves
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await lane.room()
        except TimeoutError:
            if lane.moves == moves and not lane.delivers:
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
            failed = _failures(sorted(lane.unanswered), OutcomeUnknown(str(error)))
            lane.answered(failed)
            await self.results.put(failed)


def _failures(request_ids: Iterable[int], error: HeadwaterError) -> AppendResults:
    return AppendResults(
        results=[
            AppendResult(request_id=request_id, error_code=error.code, error_message=str(error))
            for request_id in request_ids
        ]
    )
