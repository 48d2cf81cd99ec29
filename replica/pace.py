"""When a standby begins its next round of applying. Pure: counts, sizes and times in, a wait out."""

from __future__ import annotations

TRANSACTIONS_PER_SECOND = 1250
"""From this rate on rounds gather.

A thousand appends a second, of which some share a transaction, are applied as they are committed. As many as three
nodes on two cores take come faster than that: with rounds that gather, the standbys spend so much less of the cores
on each that a tenth more are acknowledged.
"""
LONGEST_REST_SECONDS = 0.05
"""However fast they come, no reader waits longer for a round to begin."""
PRESSING_BYTES = 1 << 20
"""So much log that waits is applied at once: the standby has fallen behind, and a round of that size is cheap."""


class ApplyPace:
    """Lets committed transactions gather where they come faster than rounds are worth.

    A round costs a local transaction for each shard, however many of the shard's it merges. So it rests for as long
    as `TRANSACTIONS_PER_SECOND` would need to bring what it brought. Where they come more slowly, that is over
    before the next ones are there; where they come faster, each round brings more than the one before, until the
    longest rest.
    """

    def __init__(self) -> None:
        self._not_before = float("-inf")

    def worked(self, began: float, transactions: int) -> None:
        """A round began at `began` and applied so many transactions."""
        self._not_before = began + min(transactions / TRANSACTIONS_PER_SECOND, LONGEST_REST_SECONDS)

    def rest_seconds(self, waiting_bytes: int, now: float) -> float:
        """How long the next round waits, with `waiting_bytes` of log for it by now; 0 or less: it begins."""
        return self._not_before - now if waiting_bytes < PRESSING_BYTES else 0.0
