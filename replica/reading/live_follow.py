"""Live follow: a session's entries, then each further one as this node applies it.

A follower that has everything reads again only once its session's shard has moved (`ShardMoves`), its group is in
another epoch, or it is time to tell it that there is nothing new and how old that is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Protocol

from agent_core.errors import Overloaded, Unavailable
from agent_core.position import START, Position
from replica.reading.answers import TranscriptAnswer
from replica.reading.positions import AppliedPositions

MAX_FOLLOWERS = 128
"""Over both interfaces. Over HTTP each holds a connection; other readers and the operations need some too."""
IDLE_SECONDS = 10.0
"""After so long without news of its session a follower is told that there are none, and how old that is."""
FOLLOW_SECONDS = 0.05
"""How long a follower whose shard has moved rests before it reads it: one read then serves many commits."""
UNAVAILABLE_SECONDS = 10.0
"""How long a follower waits, once it was answered, for a shard that cannot be shown now, as in a fail-over."""


class ReadTranscript(Protocol):
    """`Reading.transcript`, as far as followers use it."""

    async def __call__(self, session_id: str, *, after_seq: int) -> TranscriptAnswer:
        """The entries past `after_seq`."""


class LiveFollow:
    """The followers of one node. Belongs to the event loop's thread.

    Attributes:
        following: How many there are now.
    """

    def __init__(self, transcript: ReadTranscript, applied: AppliedPositions) -> None:
        self._transcript = transcript
        self._applied = applied
        self.following = 0

    async def answers(
        self, session_id: str, group: int, shard: int, after_seq: int, after_position: Position
    ) -> AsyncGenerator[TranscriptAnswer, None]:
        """See `Reading.follow`."""
        if self.following >= MAX_FOLLOWERS:
            raise Overloaded(
                f"{MAX_FOLLOWERS} readers follow sessions on this node already; ask another one, or try again later"
            )
        self.following += 1
        try:
            async for answer in self._answers(session_id, group, shard, after_seq, after_position):
                yield answer
        finally:
            self.following -= 1

    async def _answers(
        self, session_id: str, group: int, shard: int, after_seq: int, after_position: Position
    ) -> AsyncGenerator[TranscriptAnswer, None]:
        shown = START

        def check_kept() -> None:
            # What another node showed may be ahead of this one: only a history that goes past it tells of its loss.
            self._applied.check_may_come(group, after_position)
            self._applied.check_kept(group, shown)

        caught_up_at: float | None = None
        unavailable_since: float | None = None
        while True:
            moved_at = self._applied.moved_at(group, shard)
            try:
                answer = await self._transcript(session_id, after_seq=after_seq)
            except Unavailable:
                # Who only hears that this may pass goes on from a seq that may come to name another entry.
                check_kept()
                unavailable_since = unavailable_since or time.monotonic()
                if shown == START or time.monotonic() > unavailable_since + UNAVAILABLE_SECONDS:
                    raise
                await asyncio.sleep(FOLLOW_SECONDS)
                continue
            unavailable_since = None
            check_kept()
            if answer.entries or shown == START:
                shown = answer.position.position
            if answer.entries:
                after_seq = answer.entries[-1].seq
                caught_up_at = None
                yield answer
            if answer.more:
                continue
            if caught_up_at is None or time.monotonic() >= caught_up_at + IDLE_SECONDS:
                yield answer._replace(entries=[])
                caught_up_at = time.monotonic()
            idle_seconds = caught_up_at + IDLE_SECONDS - time.monotonic()
            await self._applied.until_moved(group, shard, moved_at, idle_seconds)
            await asyncio.sleep(FOLLOW_SECONDS)
