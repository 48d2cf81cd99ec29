"""How long the resync of a reset waits for the reset to be committed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from replica.resync_needs import ResyncNeeds

RESET_PATIENCE_SECONDS = 1.0
"""How long a reset's resync waits for the reset to be committed.

Nothing past a reset is acknowledged before its resync. So where another epoch was opened behind a reset that was
not committed, that opening, and with it the reset, could never be: then the resync must come first.
"""


class ResetPatience:
    """Gives one group's resets their time. Everything runs on the event loop."""

    def __init__(self, needs: ResyncNeeds, *, on_lost: Callable[[], None]) -> None:
        """Watch the resets among `needs`; `on_lost` is called whenever one is overdue."""
        self._needs = needs
        self._on_lost = on_lost
        self._overdue: dict[int, int] = {}

    def begin(self, shard: int) -> None:
        """From now on the reset of a shard has its time to be committed."""
        lsn = self._needs.resets[shard]
        asyncio.get_running_loop().call_later(RESET_PATIENCE_SECONDS, self._lose, shard, lsn)

    def overdue(self) -> list[int]:
        """The shards whose resync must wait no longer, in the order of their resets.

        That order matters: the resync of a later one is not committed before that of an earlier one.
        """
        overdue = self._overdue.items() & self._needs.resets.items()
        return [shard for shard, _ in sorted(overdue, key=lambda reset: reset[1])]

    def resynced(self, shard: int) -> None:
        """A shard was resynced: its reset is overdue no longer."""
        self._overdue.pop(shard, None)

    def _lose(self, shard: int, lsn: int) -> None:
        if self._needs.resets.get(shard) == lsn:
            self._overdue[shard] = lsn
            self._on_lost()
