"""A result as options of an ECharts chart. Pure.

Names and values of a result stand only as values of the options, never as keys, which NiceGUI may run; tooltips are
drawn as text, not as HTML.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ops.dashboard.cluster.chart import COLOURS, NEUTRAL
from ops.dashboard.sql.result import is_number, numeric_columns, text_of
from ops.dashboard.transcript.visible import one_line

MAX_POINTS = 2_000
MAX_NAMED = 30
"""Points along the chart whose names are turned, so that there is room for each."""
LINE = {"lineStyle": {"color": NEUTRAL, "opacity": 0.25}}
TOOLTIP = {"renderMode": "richText", "confine": True}


def chosen_columns(columns: Sequence[str], rows: Sequence[Sequence[Any]], x: str, y: str) -> tuple[str, str] | None:
    """The columns to draw: those that were chosen where the result has them; None if it has no numbers."""
    numbers = numeric_columns(columns, rows)
    if not numbers:
        return None
    along = x if x in columns else next((column for column in columns if column not in numbers), columns[0])
    upwards = y if y in numbers else next((column for column in numbers if column != along), numbers[0])
    return along, upwards


def result_chart(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], *, kind: str, x: str, y: str
) -> dict[str, Any]:
    """The chart's options.

    Args:
        columns: Of the result.
        rows: Of the result; at most `MAX_POINTS` are drawn.
        kind: bar, line or scatter.
        x: The column along the chart.
        y: The column upwards; cells that are no numbers are left out.
    """
    across, up = columns.index(x), columns.index(y)
    points = [(row[across], row[up]) for row in rows[:MAX_POINTS]]
    continuous = kind != "bar" and all(is_number(along) for along, _ in points)
    data = [
        [along if continuous else one_line(text_of(along), 60), value if is_number(value) else None]
        for along, value in points
    ]
    labels = {"color": NEUTRAL, "hideOverlap": True}
    if not continuous and len(data) <= MAX_NAMED:
        labels |= {"rotate": 40, "width": 110, "overflow": "truncate"}
    axis = {"axisLabel": {"color": NEUTRAL, "hideOverlap": True}, "nameTextStyle": {"color": NEUTRAL}}
    return {
        "animation": False,
        "color": list(COLOURS),
        "textStyle": {"color": NEUTRAL},
        "grid": {"left": 12, "right": 20, "top": 36, "bottom": 12, "containLabel": True},
        "tooltip": {**TOOLTIP, "trigger": "item" if kind == "scatter" else "axis"},
        "xAxis": {
            **axis,
            "axisLabel": labels,
            "type": "value" if continuous else "category",
            "scale": True,
            "axisLine": LINE,
            "axisTick": LINE,
            "splitLine": {"show": False},
        },
        "yAxis": {**axis, "type": "value", "name": one_line(y, 40), "scale": kind == "scatter", "splitLine": LINE},
        "series": [
            {
                "name": one_line(y, 40),
                "type": kind,
                "showSymbol": len(data) <= 60,
                "symbolSize": 7,
                "barMaxWidth": 42,
                "data": data,
            }
        ],
    }
