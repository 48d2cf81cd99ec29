"""Counts how values are spread over buckets, cheaply enough for the hot path.

One observation costs a search in a short list and two additions, a fraction of a microsecond; many equal ones
(a batch that was acknowledged together) cost one. Metrics read it at scrape time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

LATENCY_SECONDS = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.002,
    0.004,
    0.008,
    0.016,
    0.032,
    0.064,
    0.128,
    0.256,
    0.5,
    1,
    2.5,
    5,
)
"""Upper bounds for what takes from a tenth of a millisecond to seconds."""

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
"""Upper bounds for how many things go together."""


class Histogram:
    """Buckets with fixed upper bounds. One thread observes; any thread may read.

    Attributes:
        bounds: The buckets' upper bounds, inclusive, ascending; what is above the last is counted too.
        counts: Observations per bucket, the last for what is above every bound.
        sum: The observed values added up.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        if not bounds or list(bounds) != sorted(set(bounds)):
            raise ValueError(f"bounds must ascend, and there must be one; got {tuple(bounds)}")
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        """Count `value`, `count` times."""
        self.counts[bisect_left(self.bounds, value)] += count
        self.sum += value * count

    @property
    def count(self) -> int:
        """How many values were observed."""
        return sum(self.counts)
