"""Sessions that append through whatever happens to the cluster, and what became of each append."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from agent_core.client import Client
from agent_core.errors import HeadwaterError
from ops.benchmarks.load import payloads

WITHIN_SECONDS = 60.0
POLL_SECONDS = 0.005
ENTRY_BYTES = 500


@dataclass(frozen=True, slots=True)
class Append:
    """One append: when it was begun and ended, in seconds of the monotonic clock, and whether it failed."""

    began: float
    ended: float
    failed: bool

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended - self.began


class Writers:
    """Sessions that append without a pause, each waiting for its own acknowledgement."""

    def __init__(self, client: Client, sessions: Sequence[str]) -> None:
        self.appends: list[Append] = []
        self._tasks = [asyncio.create_task(self._write(client, session)) for session in sessions]

    async def acknowledged_after(self, moment: float, within_seconds: float = WITHIN_SECONDS) -> float:
        """Wait for the first acknowledgement of an append that was begun after a moment; when it came.

        Raises:
            TimeoutError: None came in time.
        """
        seen = 0
        async with asyncio.timeout(within_seconds):
            while True:
                for append in self.appends[seen:]:
                    if append.began >= moment and not append.failed:
                        return append.ended
                seen = len(self.appends)
                await asyncio.sleep(POLL_SECONDS)

    def ended_after(self, moment: float) -> list[Append]:
        """The appends that ended after a moment, failed ones too."""
        return [append for append in self.appends if append.ended >= moment]

    async def stop(self) -> None:
        """Append no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _write(self, client: Client, session: str) -> None:
        text = payloads(ENTRY_BYTES)[0]
        while True:
            began, failed = time.monotonic(), False
            try:
                await client.append(session, "message", text)
            except HeadwaterError:
                failed = True
            self.appends.append(Append(began, time.monotonic(), failed))
