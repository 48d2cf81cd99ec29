"""What stood behind the figures: how fast Python was on this machine beside them.

On shared processors a piece of work takes half as long again in one minute as in the next, and an interpreter
that was built without optimisation is slower by a fifth: figures of two days or machines say little without that.
"""

from __future__ import annotations

import os
import platform
import statistics
import time

from ops.benchmarks.figures import Figures

WORK_STEPS = 1_000_000
SAMPLES = 5


class Machine:
    """Times a fixed piece of work when it is made, and again when its figures are asked for."""

    def __init__(self) -> None:
        self._cores = sorted(os.sched_getaffinity(0))
        self._before = self._work_ms()

    def figures(self) -> Figures:
        """The interpreter, and how long the work took on each processor before and after, in milliseconds."""
        return {
            "python": platform.python_version(),
            "work_ms_before": self._before,
            "work_ms_after": self._work_ms(),
        }

    def _work_ms(self) -> list[float]:
        allowed = os.sched_getaffinity(0)
        try:
            return [_work_ms_on(core) for core in self._cores]
        finally:
            os.sched_setaffinity(0, allowed)


def _work_ms_on(core: int) -> float:
    os.sched_setaffinity(0, {core})
    return round(statistics.median(_timed_work() for _ in range(SAMPLES)) * 1e3, 1)


def _timed_work() -> float:
    begun, total = time.perf_counter(), 0
    for step in range(WORK_STEPS):
        total += step
    return time.perf_counter() - begun
