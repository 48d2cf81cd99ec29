"""When a standby begins its next round of applying. Pure: times and sizes in, a wait out."""

from __future__ import annotations

ROUND_SHARE = 1 / 6
"""The share of a processor that rounds take at most while they keep up.

At a thousand appends a second the next batch is committed later than that anyway. Where appends come as fast as
three nodes on two cores take them, a round in two is saved, and a twentieth more of them are acknowledged.
"""
LONGEST_REST_SECONDS = 0.03
"""No round that was slow keeps readers waiting for longer."""
PRESSING_BYTES = 1 << 20
"""So much log that waits is applied at once: the standby has fallen behind, and a round of that size is cheap."""


class ApplyPace:
    """Lets committed records gather where they come faster than rounds are worth.

    A round costs a transaction for each shard, however many records of the shard it brings.
    """

    def __init__(self) -> None:
        self._not_before = float("-inf")

    def worked(self, began: float, processor_seconds: float) -> None:
        """A round began at `began` and took so much processor time."""
        self._not_before = began + min(processor_seconds / ROUND_SHARE, LONGEST_REST_SECONDS)

    def rest_seconds(self, waiting_bytes: int, now: float) -> float:
        """How long the next round waits, with `waiting_bytes` of log for it by now; 0 or less: it begins."""
        return self._not_before - now if waiting_bytes < PRESSING_BYTES else 0.0
