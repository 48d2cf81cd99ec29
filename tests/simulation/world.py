"""Virtual time: one queue of events, one source of chance, and a trace of what happened last."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Any

TRACE_EVENTS = 400


class Violation(Exception):
    """Something happened that must never happen."""


class World:
    """The clock, the events to come, and the one random number generator that everything draws from.

    Attributes:
        now: Virtual seconds since the beginning.
        random: Fixed by the seed, and with it the whole run.
        events: How many events have happened.
    """

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.random = Random(seed)
        self.events = 0
        self._number = 0
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._trace: deque[tuple[float, str, str, tuple[object, ...]]] = deque(maxlen=TRACE_EVENTS)

    def after(self, seconds: float, action: Callable[..., None], *arguments: Any) -> None:
        """Let `action` happen in `seconds`; events of one moment happen in the order of these calls."""
        self._number += 1
        heappush(self._queue, (self.now + seconds, self._number, action, arguments))

    def run_until(self, moment: float, over: Callable[[], bool] | None = None) -> bool:
        """Let events happen until `moment`, or until `over` holds, which is asked about a hundred times a second.

        Returns:
            Whether `over` held.
        """
        ask_at = self.now
        queue = self._queue
        while queue and queue[0][0] <= moment:
            self.now, _, action, arguments = heappop(queue)
            self.events += 1
            action(*arguments)
            if over is not None and self.now >= ask_at:
                if over():
                    return True
                ask_at = self.now + 0.01
        self.now = moment
        return over is not None and over()

    def between(self, low: float, high: float) -> float:
        """A number of seconds by chance."""
        return low + (high - low) * self.random.random()

    def chance(self, probability: float) -> bool:
        """Whether something happens that does with this probability."""
        return self.random.random() < probability

    def note(self, who: str, what: str, *details: object) -> None:
        """Put a line into the trace."""
        self._trace.append((self.now, who, what, details))

    def trace(self, lines: int = TRACE_EVENTS) -> str:
        """The last lines of the trace, one event each."""
        return "\n".join(
            f"{at:10.6f} {who:<8} {what} {' '.join(map(str, details))}".rstrip()
            for at, who, what, details in list(self._trace)[-lines:]
        )
