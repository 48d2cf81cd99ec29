"""Live follow: a session's entries, then each further one as this node applies it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Protocol

from agent_core.errors import Overloaded, Unavailable
from agent_core.position import START
from replica.reading.answers import TranscriptAnswer
from replica.reading.positions import AppliedPositions

MAX_FOLLOWERS = 128
"""Over both interfaces. Over HTTP each holds a connection; other readers and the operations need some too."""
IDLE_SECONDS = 10.0
"""After so long without news a follower is told that there are none, which also shows it that the node lives."""
FOLLOW_SECONDS = 0.05
"""How long a follower that has everything rests before it is told of more: one read then serves many commits."""
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

    async def answers(self, session_id: str, group: int, after_seq: int) -> AsyncGenerator[TranscriptAnswer, None]:
        """See `Reading.follow`."""
        if self.following >= MAX_FOLLOWERS:
            raise Overloaded(
                f"{MAX_FOLLOWERS} readers follow sessions on this node already; ask another one, or try again later"
            )
        self.following += 1
        try:
            async for answer in self._answers(session_id, group, after_seq):
                yield answer
        finally:
            self.following -= 1

    async def _answers(self, session_id: str, group: int, after_seq: int) -> AsyncGenerator[TranscriptAnswer, None]:
        quiet = False
        shown = START
        unavailable_since: float | None = None
        while True:
            try:
                answer = await self._transcript(session_id, after_seq=after_seq)
            except Unavailable:
                # Who only hears that this may pass goes on from a seq that may come to name another entry.
                self._applied.check_kept(group, shown)
                unavailable_since = unavailable_since or time.monotonic()
                if shown == START or time.monotonic() > unavailable_since + UNAVAILABLE_SECONDS:
                    raise
                await asyncio.sleep(FOLLOW_SECONDS)
                continue
            unavailable_since = None
            self._applied.check_kept(group, shown)
            if answer.entries or shown == START:
                shown = answer.position.position
            if answer.entries:
                after_seq = answer.entries[-1].seq
                quiet = False
                yield answer
            if not answer.more:
                if not quiet or not await self._applied.moves(group, answer.position.position, IDLE_SECONDS):
                    yield answer._replace(entries=[])
                quiet = True
                await asyncio.sleep(FOLLOW_SECONDS)
