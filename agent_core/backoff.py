"""How long to wait before the next try: exponential, bounded, and spread by chance."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass(slots=True)
class Backoff:
    """Delays that double from try to try, each drawn between its half and its whole.

    The chance keeps those who lost the same peer at the same moment from coming back at the same moment.

    Attributes:
        first_seconds: The longest first delay.
        longest_seconds: What no delay exceeds.
    """

    first_seconds: float = 0.05
    longest_seconds: float = 2.0
    random: random.Random = field(default_factory=random.Random)
    _tries: int = 0

    def next_delay(self) -> float:
        """The delay before the next try, in seconds."""
        ceiling = min(self.longest_seconds, self.first_seconds * 2.0 ** min(self._tries, 32))
        self._tries += 1
        return ceiling * self.random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """A try succeeded; the next delay is a first one."""
        self._tries = 0
