"""Checkpoints the shards of one group beside the thread that writes them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import Protocol

import structlog

from agent_core.database.build import DatabaseError
from agent_core.database.checkpoints import WalBacklog, checkpoint_beside
from agent_core.errors import HeadwaterError
from agent_core.uninterrupted import to_its_end

log = structlog.get_logger(__name__)

TRIES_BESIDE = 2
"""The first takes long and leaves what was written meanwhile, the second is short and mostly leaves nothing."""


class WrittenShard(Protocol):
    """A shard as its checkpoints see it."""

    @property
    def path(self) -> Path:
        """Its file."""

    @property
    def backlog(self) -> WalBacklog:
        """What waits in its WAL."""


class Checkpointer:
    """One group's checkpoints, one at a time. Every method runs on the event loop.

    A checkpoint costs two fsyncs and the copying of a WAL's pages. On the writing thread every append would wait
    for that; so another thread does it, and the writing one comes in where that would not be safe
    (`agent_core.database.checkpoints`), and for a shard that is never at rest.
    """

    def __init__(
        self,
        shards: Mapping[int, WrittenShard],
        limit_bytes: int,
        *,
        between_writes: Callable[[int], Awaitable[object]],
    ) -> None:
        """Take care of `shards`.

        Args:
            shards: By number.
            limit_bytes: A shard is checkpointed when its WAL holds so much that its file does not.
            between_writes: Checkpoints a shard on its writing thread.
        """
        self._shards = shards
        self._limit_bytes = limit_bytes
        self._between_writes = between_writes
        self._ordered: set[int] = set()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def begin(self, ordered: Collection[int] = ()) -> None:
        """Begin to checkpoint the shards that are due, and those that are ordered, whatever their WALs hold."""
        self._ordered.update(ordered)
        if (self._task is None or self._task.done()) and not self._closed:
            self._task = asyncio.create_task(self._checkpoint_all(), name="checkpoints")

    async def settle(self) -> None:
        """Wait until no checkpoint is under way; none begins before `begin` is called again."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def close(self) -> None:
        """As `settle`, for good: from now on the shards may be closed."""
        self._closed = True
        await self.settle()

    async def _checkpoint_all(self) -> None:
        while (shard := self._next()) is not None:
            await self._checkpoint(shard)

    async def _checkpoint(self, shard: int) -> None:
        one = self._shards[shard]
        try:
            for _ in range(TRIES_BESIDE):
                if not one.backlog.lacks_some_for_certain:
                    break
                moved_all = await to_its_end(asyncio.to_thread(checkpoint_beside, one.path, one.backlog))
                if not (moved_all and one.backlog.pending_bytes):
                    return
            await to_its_end(self._between_writes(shard))
        except (DatabaseError, HeadwaterError) as error:
            one.backlog.has_failed()
            log.warning("checkpoint failed", shard=shard, reason=str(error))

    def _next(self) -> int | None:
        """A shard that was ordered, else the one that is furthest past its limit."""
        if self._ordered:
            return self._ordered.pop()
        due = [shard for shard, one in self._shards.items() if one.backlog.is_due(self._limit_bytes)]
        return max(due, key=lambda shard: self._shards[shard].backlog.pending_bytes, default=None)
