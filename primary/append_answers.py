"""What became of the appends of one stream, until its caller has been sent it."""

from __future__ import annotations

import asyncio
from functools import lru_cache

from agent_core.errors import HeadwaterError
from agent_core.position import Position
from agent_core.rpc import replication_pb2
from agent_core.rpc.session_pb2 import AppendRequest, AppendResult, GroupPosition
from primary.append_order import AppendOrder

MAX_UNANSWERED_APPENDS = 8192
"""Appends of one stream whose results were not sent yet; then nothing more of it is read.

Twice what Headwater's own client has in flight. What an append keeps in memory until then is a few hundred bytes:
its payload counts towards its group's queue.
"""


class AppendAnswers:
    """Gathers outcomes of one stream until they are sent.

    Attributes:
        order: Knows of which sessions nothing more may be taken before an append that failed comes again.
        last_error: The last failure.
    """

    def __init__(self) -> None:
        self.order = AppendOrder()
        self._session_ids: dict[int, str] = {}
        self._results: list[AppendResult] = []
        self._ready = asyncio.Event()
        self._taken = asyncio.Event()
        self._expected = 0
        self._ended = False
        self.last_error: HeadwaterError | None = None

    @property
    def full(self) -> bool:
        """Whether the stream must wait for `room` before more of it is read: its caller does not take results."""
        return self._expected >= MAX_UNANSWERED_APPENDS

    async def room(self) -> None:
        """Wait until enough results have been taken."""
        while self.full:
            self._taken.clear()
            await self._taken.wait()

    def expect(self, request: AppendRequest) -> None:
        """One more outcome will come."""
        self._expected += 1
        self._session_ids[request.request_id] = request.session_id

    def end(self) -> None:
        """No more will be expected."""
        self._ended = True
        self._ready.set()

    async def take(self) -> list[AppendResult]:
        """The outcomes since the last call, at least one; none when all that were expected have been taken."""
        while not self._results and not (self._ended and not self._expected):
            self._ready.clear()
            await self._ready.wait()
        results, self._results = self._results, []
        self._expected -= len(results)
        self._taken.set()
        return results

    def appended(self, request_id: int, group: int, seq: int, position: Position, *, duplicate: bool) -> None:
        """The entry is safe."""
        self._add(
            AppendResult(
                request_id=request_id, seq=seq, duplicate=duplicate, position=group_position(group, position)
            )
        )

    def failed(self, request_id: int, error: HeadwaterError) -> None:
        """The entry was not acknowledged."""
        self.last_error = error
        if error.retry:
            self.order.refused(self._session_ids.get(request_id, ""), request_id)
        self._add(AppendResult(request_id=request_id, error_code=error.code, error_message=str(error)))

    def _add(self, result: AppendResult) -> None:
        self._session_ids.pop(result.request_id, None)
        self._results.append(result)
        self._ready.set()


@lru_cache(maxsize=64)
def group_position(group: int, position: Position) -> GroupPosition:
    """A position as callers get it, shared by the appends of one transaction: nobody may change it."""
    return GroupPosition(group=group, position=replication_pb2.Position(epoch=position.epoch, lsn=position.lsn))
