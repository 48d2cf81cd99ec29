"""Rows as options of ECharts charts. Pure.

As in `ops.dashboard.sql.chart`, what comes from transcripts stands only as values, and tooltips are drawn as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

from ops.dashboard.analytics.questions import ToolUse, WorkspaceUse, largest
from ops.dashboard.analytics.timeline import timeline
from ops.dashboard.cluster.chart import COLOURS, NEUTRAL
from ops.dashboard.sql.chart import LINE, TOOLTIP
from ops.dashboard.transcript.visible import one_line

SHOWN_SERIES = 5
"""Names with a colour of their own; the others are summed up."""
SHOWN_BARS = 12
OTHERS = "others"
GOOD, BAD, WAITING = "#3fa66b", "#d1504f", "#c9a23a"

_AXIS = {
    "axisLabel": {"color": NEUTRAL, "hideOverlap": True},
    "axisLine": LINE,
    "axisTick": LINE,
    "splitLine": LINE,
}
_LEGEND = {"top": 0, "icon": "circle", "itemWidth": 9, "textStyle": {"color": NEUTRAL, "lineHeight": 16}}


def over_time(
    amounts: Sequence[tuple[str, str, float]],
    ends: tuple[date | None, date | None],
    measure: str,
    names: Sequence[str],
) -> dict[str, Any]:
    """Stacked bars, one a day, or a week or month where the range is long.

    Args:
        amounts: `(day, name, amount)`; each name is a part of its day's bar. Days of nothing count as none.
        ends: The first and the last day to show; None: as the amounts have it.
        measure: What is measured, such as `tokens`.
        names: Those with a colour of their own, by which they are known in other charts too; the rest is summed up.
    """
    drawn = [each for each in amounts if each[2]]
    time = timeline((day for day, _, _ in drawn), *ends)
    sums: dict[tuple[str, str], float] = {}
    for day, name, amount in drawn:
        part = (name if name in names else OTHERS, time.column(day))
        sums[part] = sums.get(part, 0.0) + amount
    there = {name for name, _ in sums}
    coloured = [*zip(names, COLOURS, strict=False), *([] if OTHERS in names else [(OTHERS, COLOURS[-1])])]
    return {
        **_base(),
        "legend": {**_LEGEND, "type": "scroll", "pageIconColor": NEUTRAL, "pageTextStyle": {"color": NEUTRAL}},
        "grid": {"left": 24, "right": 36, "top": 62, "bottom": 8, "containLabel": True},
        "tooltip": {**TOOLTIP, "trigger": "axis"},
        "xAxis": {
            **_AXIS,
            "type": "category",
            "data": list(time.columns),
            "splitLine": {"show": False},
        },
        "yAxis": {
            **_AXIS,
            "type": "value",
            "name": f"{measure} a {time.unit}",
            "nameTextStyle": {"color": NEUTRAL, "align": "left"},
        },
        "series": [
            {
                "name": _name(name),
                "type": "bar",
                "stack": "time",
                "barMaxWidth": 42,
                "itemStyle": {"color": colour},
                "data": [round(sums.get((name, column), 0.0), 4) for column in time.columns],
            }
            for name, colour in coloured
            if name in there
        ],
    }


def largest_names(amounts: Sequence[tuple[str, str, float]]) -> list[str]:
    """The names of `(day, name, amount)` that get a colour of their own: those with most."""
    return largest([(name, amount) for _, name, amount in amounts], SHOWN_SERIES)


def tool_calls(tools: Sequence[ToolUse]) -> dict[str, Any]:
    """How each tool's calls ended."""
    shown = tools[:SHOWN_BARS]
    return _across(
        [tool.name for tool in shown],
        [
            ("completed", GOOD, [tool.calls - tool.errors - tool.pending for tool in shown]),
            ("errored", BAD, [tool.errors for tool in shown]),
            ("pending", WAITING, [tool.pending for tool in shown]),
        ],
        stacked=True,
    )


def tool_durations(tools: Sequence[ToolUse]) -> dict[str, Any]:
    """How long each tool takes, in seconds: half of its calls at most, and 95 of 100."""
    shown = [tool for tool in tools if tool.p95_seconds is not None][:SHOWN_BARS]
    return _across(
        [tool.name for tool in shown],
        [
            ("median", COLOURS[0], [round(tool.p50_seconds or 0.0, 3) for tool in shown]),
            ("95th percentile", COLOURS[1], [round(tool.p95_seconds or 0.0, 3) for tool in shown]),
        ],
    )


def workspaces(used: Sequence[WorkspaceUse]) -> dict[str, Any]:
    """Sessions of each workspace."""
    shown = used[:SHOWN_BARS]
    return _across(
        [each.workspace or "(none)" for each in shown],
        [("sessions", COLOURS[0], [each.sessions for each in shown])],
    )


def _across(
    names: Sequence[str], series: Sequence[tuple[str, str, Sequence[float]]], *, stacked: bool = False
) -> dict[str, Any]:
    """Bars from left to right, the first name at the top."""
    return {
        **_base(),
        "legend": {**_LEGEND, "show": len(series) > 1},
        "grid": {"left": 8, "right": 24, "top": 38 if len(series) > 1 else 8, "bottom": 8, "containLabel": True},
        "tooltip": {**TOOLTIP, "trigger": "axis", "axisPointer": {"type": "shadow"}},
        "xAxis": {**_AXIS, "type": "value"},
        "yAxis": {
            **_AXIS,
            "type": "category",
            "inverse": True,
            "data": [_name(name) for name in names],
            "splitLine": {"show": False},
            "axisLabel": {"color": NEUTRAL, "width": 120, "overflow": "truncate"},
        },
        "series": [
            {
                "name": name,
                "type": "bar",
                "stack": "all" if stacked else None,
                "barMaxWidth": 18,
                "itemStyle": {"color": colour},
                "data": list(values),
            }
            for name, colour, values in series
        ],
    }


def _base() -> dict[str, Any]:
    return {"animation": False, "color": [*COLOURS], "textStyle": {"color": NEUTRAL}}


def _name(name: str) -> str:
    return one_line(name, 40) or "(unnamed)"
