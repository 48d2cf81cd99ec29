"""Makes callers wait while a group's queue is full, and refuses them when it stays so."""

from __future__ import annotations

import asyncio

from agent_core.errors import Overloaded
from primary.accumulator import Accumulator

OVERLOADED_SECONDS = 1.0
"""How long a queue may stay full before callers are refused: less than a client's patience with a hung node."""


class QueueRoom:
    """Everything runs on the event loop."""

    def __init__(self, accumulator: Accumulator) -> None:
        self._accumulator = accumulator
        self._loop = asyncio.get_running_loop()
        self._free = asyncio.Event()
        self._free.set()
        self._full_since = 0.0

    def changed(self) -> None:
        """The queue has more in it, or less."""
        if not self._accumulator.full:
            self._free.set()
        elif self._free.is_set():
            self._free.clear()
            self._full_since = self._loop.time()

    def open(self) -> None:
        """Let everybody go on: whatever they submit is refused."""
        self._free.set()

    async def wait(self) -> None:
        """Wait until the queue had room; another caller may have taken it.

        Raises:
            Overloaded: It has had none for too long; nothing was written.
        """
        try:
            async with asyncio.timeout_at(self._full_since + OVERLOADED_SECONDS):
                await self._free.wait()
        except TimeoutError:
            raise Overloaded(
                f"the group's queue has been full for {OVERLOADED_SECONDS:g} s; nothing was written, "
                "try again in a moment"
            ) from None
