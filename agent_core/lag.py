"""How far one log is behind another: in transactions, in bytes, and in seconds.

The primary measures each standby, and each standby measures itself, so that a dead side stays visible. Pure:
whoever asks says what time it is, on a monotonic clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

MAX_MARKS = 512


@dataclass(frozen=True, slots=True)
class Lag:
    """How far an applied position is behind the end of the primary's log.

    Attributes:
        transactions: Records that are not applied yet.
        bytes: Their bytes in the log.
        seconds: Age of the last moment at which everything was known to be applied; 0 when it is now.
    """

    transactions: int
    bytes: int
    seconds: float


class CatchUpClock:
    """Knows the latest moment of which a follower has applied everything.

    Each look at the leader's log leaves a mark: its end, and the moment. Once the follower has reached the end
    that a mark names, it holds everything that there was at that moment. The marks are bounded; when there are
    too many, every other one goes, which only makes the answer coarser.
    """

    def __init__(self, now: float) -> None:
        self._marks: deque[tuple[int, float]] = deque()
        self._reached_lsn = 0
        self._caught_up_at = now

    def saw(self, last_lsn: int, now: float) -> None:
        """The leader's log ends at `last_lsn` now."""
        if not self._marks:
            # Nothing was missing until this very look, so that is where falling behind begins.
            self._caught_up_at = now
        if last_lsn <= self._reached_lsn:
            return
        if self._marks and self._marks[-1][0] >= last_lsn:
            self._marks[-1] = (self._marks[-1][0], now)
            return
        if len(self._marks) == MAX_MARKS:
            self._marks = deque(list(self._marks)[1::2])
        self._marks.append((last_lsn, now))

    def reached(self, lsn: int) -> None:
        """The follower has applied everything up to `lsn`."""
        self._reached_lsn = max(self._reached_lsn, lsn)
        while self._marks and self._marks[0][0] <= lsn:
            _, self._caught_up_at = self._marks.popleft()

    def restart(self, lsn: int) -> None:
        """The follower begins anew at `lsn`, which may be further back; the age of its data stays."""
        self._marks.clear()
        self._reached_lsn = lsn

    def seconds(self, now: float) -> float:
        """Age of the last moment of which everything is applied."""
        return max(0.0, now - self._caught_up_at)
