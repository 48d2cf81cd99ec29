"""When the group writer begins its next batch. Pure: times and counts in, a wait out."""

from __future__ import annotations

BATCH_MUTATIONS = 16
"""A batch of so many does not wait for more."""
BATCH_SPACING_SECONDS = 0.010
"""So long after the last batch a small one begins: of a thousand appends a second, ten in a batch.

Where a client and three nodes share two cores, 5 ms take an eighth more processor time and answer nobody sooner.
"""


class BatchPace:
    """Lets a busy group's small batches grow for a moment, and a lone append begin at once.

    A batch costs a commit, an fsync and messages on every node, whatever is in it. Where appends come faster than
    a quorum answers, and one by one, a few of them a batch cost a fraction of that, and nodes that are less busy
    answer sooner. PostgreSQL's `commit_delay` with `commit_siblings` is the same bargain.
    """

    def __init__(self) -> None:
        self._last_began = float("-inf")
        self._at_once = True

    def first_queued(self, *, idle: bool) -> None:
        """The next batch's first mutation was queued; `idle`: nothing is being written or waits for its quorum."""
        self._at_once = idle

    def wait_seconds(self, queued: int, now: float) -> float:
        """How long the next batch, of `queued` mutations by now, waits for more of them; 0 or less: it begins."""
        if self._at_once or queued >= BATCH_MUTATIONS:
            return 0.0
        return self._last_began + BATCH_SPACING_SECONDS - now

    def began(self, now: float) -> None:
        """A batch begins."""
        self._last_began = now
