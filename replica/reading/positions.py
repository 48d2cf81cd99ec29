"""How far this node has applied each group, and the readers that wait for it to get further.

A read's position is its *group's* applied position, taken before the read's snapshot begins, not the row that
the shard itself stores: a shard's row moves only when that shard is written, so a reader that waited for its
own write in a busy group would find an idle shard's row behind for ever. Taken before the snapshot, it is a
lower bound: the snapshot holds everything up to it, and perhaps more.

That "more" may not be committed yet: where the group is led, or was, SQLite has it before a quorum does. So a read
is handed out only once the shard's own row may be seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

from agent_core.errors import InvalidRequest, Overloaded, PositionLost, PositionNotReached, Unavailable
from agent_core.position import START, Position
from replica.reading.shard_moves import RowOf, ShardMoves

DEFAULT_WAIT_SECONDS = 2.0
MAX_WAIT_SECONDS = 30.0
MAX_WAITERS = 10_000
"""Readers of one node that may wait at once, over all groups."""


class GroupPosition(NamedTuple):
    """A position together with the group whose history it belongs to.

    Attributes:
        age_seconds: For how long the group's primary may have held more than this; 0 on the primary itself.
    """

    group: int
    position: Position
    age_seconds: float = 0.0


class History(Protocol):
    """What is asked of a group's history; `StandbyGroup` is it, also after this node has come to lead."""

    def is_lost(self, position: Position) -> bool:
        """Whether a shard at this position holds what a resync will undo."""

    def never_comes(self, position: Position) -> bool:
        """Whether the history has gone past this position without containing it."""


class _Waiter(NamedTuple):
    position: Position
    number: int
    """Orders waiters for the same position, and names them."""


class PositionWaiters:
    """Which waiters each new position of one group releases. Pure: numbers in, numbers out."""

    def __init__(self) -> None:
        self.applied = START
        self._heap: list[_Waiter] = []

    def add(self, position: Position, number: int) -> bool:
        """Register waiter `number`; False when `position` is applied already and nothing waits."""
        if position <= self.applied:
            return False
        heapq.heappush(self._heap, _Waiter(position, number))
        return True

    def discard(self, position: Position, number: int) -> None:
        """Forget a waiter that gave up."""
        self._heap.remove(_Waiter(position, number))
        heapq.heapify(self._heap)

    def advance(self, position: Position) -> list[int]:
        """Take note of an applied position; the numbers of the waiters that it releases, earliest position first.

        A position never goes back: one at or below the present one changes nothing.
        """
        self.applied = max(self.applied, position)
        released = []
        while self._heap and self._heap[0].position <= self.applied:
            released.append(heapq.heappop(self._heap).number)
        return released


class AppliedPositions:
    """The applied position of every group of this node. Belongs to the event loop's thread.

    Attributes:
        timeouts: Waits for a position that ended without it, since the start.
    """

    def __init__(self, shard_group_count: int) -> None:
        self._groups = [PositionWaiters() for _ in range(shard_group_count)]
        self._visible = [PositionWaiters() for _ in range(shard_group_count)]
        self._moves = [ShardMoves() for _ in range(shard_group_count)]
        self._histories: list[History | None] = [None] * shard_group_count
        self._futures: dict[int, asyncio.Future[None]] = {}
        self._numbers = itertools.count()
        self.timeouts = 0

    @property
    def waiting(self) -> int:
        """Readers that wait now."""
        return len(self._futures)

    def applied(self, group: int) -> Position:
        """How far a group's shards on this node are, as far as they may be seen; `(0, 0)` until something was."""
        return self._groups[group].applied

    def advance(self, group: int, position: Position) -> None:
        """Say that every shard of a group contains everything up to `position`, and that it may be seen."""
        self._rise(group, self._groups[group], position)
        self.reveal(group, position)

    def reveal(self, group: int, position: Position) -> None:
        """Say that everything up to `position` may be seen, whichever shards contain it."""
        self._rise(group, self._visible[group], position)

    def written_by(self, group: int, row_of: RowOf) -> None:
        """Another role writes a group's shards from now on; `row_of` tells the rows that it has given them."""
        self._moves[group].row_of = row_of

    def judge_by(self, group: int, history: History) -> None:
        """Refuse from now on what `history` says will never be committed."""
        self._histories[group] = history

    async def until_visible(self, group: int, read_at: Position | None, deadline_seconds: float) -> None:
        """Wait until what a read has found may be seen; nearly always at once.

        Args:
            group: The group of the shard that was read.
            read_at: The position in the shard's own row, within the read's snapshot or after it; None: no shard.
            deadline_seconds: How long to wait, 0 to 30.

        Raises:
            Unavailable: What was read is not committed yet; the answer must not be given.
            Overloaded: Too many readers wait.
        """
        visible = self._visible[group]
        if read_at is None:
            return
        try:
            if read_at > visible.applied:
                await self._reached(visible, read_at, deadline_seconds)
            # A higher epoch's position is past the row of a history that lost, and yet does not contain it.
            if (history := self._histories[group]) is not None and history.is_lost(read_at):
                raise Unavailable(
                    f"what this node's shard of group {group} held, up to {read_at}, was never acknowledged and is "
                    "undone by a resync; try again"
                )
        except TimeoutError:
            raise Unavailable(
                f"what this node's shard of group {group} holds, up to {read_at}, is not acknowledged yet, only "
                f"{visible.applied} is; read another node, or try again"
            ) from None

    async def wait(
        self, group: int, min_position: Position, deadline_seconds: float = DEFAULT_WAIT_SECONDS
    ) -> Position:
        """Wait until a group has applied `min_position`, and return its applied position then.

        Args:
            group: The group.
            min_position: What must be applied.
            deadline_seconds: How long to wait, 0 to 30.

        Raises:
            PositionNotReached: It was not applied in time.
            PositionLost: It never will be.
            InvalidRequest: The deadline is out of range.
            Overloaded: Too many readers wait.
        """
        if not 0 <= deadline_seconds <= MAX_WAIT_SECONDS:
            raise InvalidRequest(
                f"the wait for a position is {deadline_seconds:g} s; allowed are 0 to {MAX_WAIT_SECONDS:g} s"
            )
        waiters = self._groups[group]
        self.check_may_come(group, min_position)
        if min_position > waiters.applied:
            try:
                await self._reached(waiters, min_position, deadline_seconds)
            except TimeoutError:
                raise PositionNotReached(
                    f"group {group} has applied {waiters.applied} here, and did not reach {min_position} "
                    f"within {deadline_seconds:.3g} s"
                ) from None
            # A later epoch's position is past this one, and need not contain it.
            self.check_may_come(group, min_position)
        return waiters.applied

    def moved_at(self, group: int, shard: int) -> Position:
        """See `ShardMoves.moved_at`: what to wait past, taken before the shard is read."""
        return self._moves[group].moved_at(shard)

    async def until_moved(self, group: int, shard: int, since: Position, seconds: float) -> None:
        """Wait until a shard moves past `since`, or its group comes to another epoch, or `seconds` are over.

        Raises:
            Overloaded: Too many readers wait.
        """
        moves = self._moves[group]
        if moves.moved_at(shard) > since:
            return
        with contextlib.suppress(TimeoutError):
            await self._released(partial(moves.wait, shard, since), partial(moves.discard, shard), seconds)

    def check_kept(self, group: int, shown: Position) -> None:
        """Check that what was shown at a position, when it could be seen, is in the group's history still.

        Raises:
            PositionLost: It is not: the history that holds it was replaced.
        """
        history = self._histories[group]
        if history is not None and (history.is_lost(shown) or history.never_comes(shown)):
            raise PositionLost(
                f"what this node showed of group {group} up to {shown} is in part undone by a later primary's "
                "history; read again from the beginning"
            )

    def check_may_come(self, group: int, min_position: Position) -> None:
        """Check that a position, which another node may have shown, is in the group's history here or may come.

        Raises:
            PositionLost: It never will: another primary's history has replaced it.
        """
        if (history := self._histories[group]) is not None and history.never_comes(min_position):
            raise PositionLost(
                f"group {group} will never reach {min_position}: a later primary's history has taken its place, so "
                "what was written there is lost; read without a position what there is"
            )

    async def _reached(self, waiters: PositionWaiters, position: Position, seconds: float) -> None:
        try:
            await self._released(partial(waiters.add, position), partial(waiters.discard, position), seconds)
        except TimeoutError:
            self.timeouts += 1
            raise

    async def _released(
        self, register: Callable[[int], object], discard: Callable[[int], None], seconds: float
    ) -> None:
        """Wait until the number that is registered is released.

        Raises:
            TimeoutError: It was not within `seconds`.
            Overloaded: Too many readers wait.
        """
        if len(self._futures) >= MAX_WAITERS:
            raise Overloaded(f"{MAX_WAITERS} readers wait for a position already; try again later")
        number = next(self._numbers)
        register(number)
        future = self._futures[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(seconds):
                await future
        finally:
            if self._futures.pop(number, None) is not None:
                discard(number)

    def _rise(self, group: int, waiters: PositionWaiters, position: Position) -> None:
        if position > waiters.applied:
            self._release(waiters.advance(position))
            self._release(self._moves[group].advance(self._groups[group].applied.epoch))

    def _release(self, numbers: list[int]) -> None:
        for number in numbers:
            future = self._futures.pop(number)
            if not future.done():
                future.set_result(None)
