"""From measured values to what a benchmark reports. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Figures = dict[str, object]
"""What one benchmark reports: names that end in their unit, and numbers, ready for JSON."""

Progress = Callable[[str, float], None]
"""Told what a benchmark is doing, and which share of it is done, from 0 to 1."""

MEGABYTE = 1e6

NAME_COLUMNS = 40
"""Of a figure's name, where figures are printed for people."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure may be at most, or must be at least: the goal, and the aim beyond it where there is one.

    Attributes:
        figure: The figure, by the path of its names with points between.
        at_most: The goal of a figure that is better the lower it is.
        at_least: The goal of one that is better the higher it is.
        aim: What it should come to.
    """

    figure: str
    at_most: float | None = None
    at_least: float | None = None
    aim: float | None = None

    def judge(self, figures: Figures) -> Figures:
        """The goal with what was measured, and whether it, and its aim, is `met` or `missed`."""
        measured: Any = figures
        for name in self.figure.split("."):
            measured = measured[name]
        judgement: Figures = {}
        if self.at_most is not None:
            judgement["at_most"] = self.at_most
        if self.at_least is not None:
            judgement["at_least"] = self.at_least
        judgement |= {"measured": measured, "outcome": self._outcome(measured, self.at_most, self.at_least)}
        if self.aim is not None:
            at_most, at_least = (self.aim, None) if self.at_least is None else (None, self.aim)
            judgement |= {"aim": self.aim, "aim_outcome": self._outcome(measured, at_most, at_least)}
        return judgement

    @staticmethod
    def _outcome(measured: float, at_most: float | None, at_least: float | None) -> str:
        high = at_most is not None and measured > at_most
        low = at_least is not None and measured < at_least
        return "missed" if high or low else "met"


def judged(figures: Figures, goals: Sequence[Goal]) -> Figures:
    """Each goal's judgement, by the figure it is about; see `Goal.judge`."""
    return {goal.figure: goal.judge(figures) for goal in goals}


def lines_of(figures: Figures, prefix: str = "") -> Iterator[str]:
    """Figures for people, one a line by the path of its names, each goal with its outcome."""
    for name, value in figures.items():
        if name == "goals" and isinstance(value, dict):
            for figure, judgement in value.items():
                yield f"{prefix}{figure:<{NAME_COLUMNS}} {_sentence(judgement)}"
        elif isinstance(value, dict):
            yield from lines_of(value, f"{prefix}{name}.")
        else:
            yield f"{prefix + name:<{NAME_COLUMNS}} {value}"


def _sentence(judgement: Mapping[str, Any]) -> str:
    bound = "at_most" if "at_most" in judgement else "at_least"
    goal = f"goal {bound.replace('_', ' ')} {judgement[bound]}: {judgement['outcome']}"
    aim = f"; aim {judgement['aim']}: {judgement['aim_outcome']}" if "aim" in judgement else ""
    return f"{judgement['measured']}, {goal}{aim}"


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
    """The median of each figure over the runs, under `…_spread` the lowest and the highest, and `…_all` of them.

    Args:
        runs: The figures of each run, all with the same names; at least one run.
        digits: Digits after the point, by name, in the order in which they are reported.
    """
    figures: Figures = {"runs": len(runs)}
    for name, places in digits.items():
        values = [run[name] for run in runs]
        figures[name] = _rounded(statistics.median(values), places)
        figures[f"{name}_spread"] = [_rounded(min(values), places), _rounded(max(values), places)]
        figures[f"{name}_all"] = [_rounded(value, places) for value in values]
    return figures


def _rounded(value: float, places: int) -> float:
    return round(value, places) if places else round(value)
