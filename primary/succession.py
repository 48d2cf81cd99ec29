"""Groups whose primary changes at this moment: whoever asks for one waits a moment instead of being refused.

A caller that is refused pauses before it tries again, and its pause is longer than most changes of primary. So the
primary that hands over keeps callers waiting until it can name its successor, and the successor until it serves.
"""

from __future__ import annotations

import asyncio

PATIENCE_SECONDS = 1.0
"""How long a change may take before callers are refused: less than a client's patience with a hung node."""


class Succession:
    """Everything runs on the event loop."""

    def __init__(self, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._patience_seconds = patience_seconds
        self._loop = asyncio.get_running_loop()
        self._pending: dict[int, asyncio.Future[None]] = {}

    def begin(self, group: int) -> None:
        """From now on callers wait, until `end`, and no longer than the patience lasts."""
        if group not in self._pending:
            pending = self._pending[group] = self._loop.create_future()
            self._loop.call_later(self._patience_seconds, self._lose_patience, group, pending)

    def end(self, group: int) -> None:
        """It is known who leads the group, or that nobody does: let them all go on."""
        pending = self._pending.pop(group, None)
        if pending is not None:
            pending.set_result(None)

    async def settled(self, group: int) -> None:
        """Wait while the group's primary changes."""
        while (pending := self._pending.get(group)) is not None:
            await asyncio.shield(pending)

    def _lose_patience(self, group: int, pending: asyncio.Future[None]) -> None:
        if self._pending.get(group) is pending:
            self.end(group)
