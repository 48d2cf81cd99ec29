"""The lag of each standby over time, as options of an ECharts chart. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ops.dashboard.cluster.lag_history import LagSample

SHOWN_SECONDS = 300.0
LEAST_SHOWN_SECONDS = 30.0
"""While fewer samples are there."""
COLOURS = ("#2f8fd8", "#e08a2c", "#3fa66b", "#b45fc4", "#d1504f", "#7a8896")
"""Told apart on a light ground and on a dark one."""
NEUTRAL = "#74818f"
"""Of lines on either ground. What is written in it takes the theme's colour from the style sheet."""
LEAST_SECONDS = 0.1
"""The scale shows at least so much: without it, noise would look like lag."""


def lag_chart(lags: Mapping[str, Iterable[LagSample]], now: float) -> dict[str, Any]:
    """The chart's options; `now` in seconds since 1970."""
    line = {"lineStyle": {"color": NEUTRAL, "opacity": 0.25}}
    shown = {
        node: [[round(at * 1000), round(seconds, 3)] for at, seconds in samples if at >= now - SHOWN_SECONDS]
        for node, samples in sorted(lags.items())
    }
    first = min((samples[0][0] for samples in shown.values() if samples), default=0)
    highest = max((seconds for samples in shown.values() for _, seconds in samples), default=0.0)
    return {
        "animation": False,
        "useUTC": True,
        "color": list(COLOURS),
        "textStyle": {"color": NEUTRAL},
        "grid": {"left": 44, "right": 16, "top": 34, "bottom": 26},
        "legend": {"top": 0, "right": 0, "icon": "circle", "itemWidth": 9, "textStyle": {"color": NEUTRAL}},
        "tooltip": {"trigger": "axis", "confine": True},
        "xAxis": {
            "type": "time",
            "min": min(first or round(now * 1000), round((now - LEAST_SHOWN_SECONDS) * 1000)),
            "max": round(now * 1000),
            "axisLabel": {"color": NEUTRAL, "hideOverlap": True},
            "axisLine": line,
            "axisTick": line,
            "splitLine": {"show": False},
        },
        "yAxis": {
            "type": "value",
            "min": 0,
            "max": None if highest > LEAST_SECONDS else LEAST_SECONDS,
            "axisLabel": {"color": NEUTRAL},
            "splitLine": line,
        },
        "series": [
            {"name": node, "type": "line", "showSymbol": False, "step": False, "data": samples}
            for node, samples in shown.items()
        ],
    }
