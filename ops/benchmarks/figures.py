"""From measured values to what a benchmark reports. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Figures = dict[str, object]
"""What one benchmark reports: names that end in their unit, and numbers, ready for JSON."""

Progress = Callable[[str, float], None]
"""Told what a benchmark is doing, and which share of it is done, from 0 to 1."""

MEGABYTE = 1e6


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure, by the path of its names with points between, and what it may be at most."""

    figure: str
    at_most: float


def judged(figures: Figures, goals: Sequence[Goal]) -> Figures:
    """Each goal with what was measured, and whether that is `met` or `missed`."""
    judgements: Figures = {}
    for goal in goals:
        found: Any = figures
        for name in goal.figure.split("."):
            found = found[name]
        judgements[goal.figure] = {
            "goal": goal.at_most,
            "measured": found,
            "outcome": "met" if found <= goal.at_most else "missed",
        }
    return judgements


def unheard(_doing: str, _share: float) -> None:
    """For a benchmark whose progress nobody watches."""


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which a share of the values lies; `values` must not be empty."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """The narrowest pair of the values that holds the median of what they were drawn from with this confidence.

    It asks nothing of how the values are spread (the sign test turned round); fewer than six give their extremes,
    and less confidence. `values` must not be empty.
    """
    ordered = sorted(values)
    below, cut = 0.0, 0
    while cut < len(ordered) // 2:
        below += math.comb(len(ordered), cut) / 2 ** len(ordered)
        if below > (1 - confidence) / 2:
            break
        cut += 1
    cut = max(cut - 1, 0)
    return ordered[cut], ordered[len(ordered) - 1 - cut]


def over_runs(runs: Sequence[Mapping[str, float]], digits: Mapping[str, int]) -> Figures:
    """The median of each figure over the runs, and under `…_all` what each run gave, to show the spread.

    Args:
        runs: The figures of each run, all with the same names; at least one run.
        digits: Digits after the point, by name, in the order in which they are reported.
    """
    figures: Figures = {"runs": len(runs)}
    for name, places in digits.items():
        values = [run[name] for run in runs]
        figures[name] = _rounded(statistics.median(values), places)
        figures[f"{name}_all"] = [_rounded(value, places) for value in values]
    return figures


def _rounded(value: float, places: int) -> float:
    return round(value, places) if places else round(value)
