"""Tables that fit their screen: a narrow one gets fewer columns, not cells of two letters. And times in them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence

from rich.console import Console
from rich.table import Table


def fitting(screen: Console, build: Callable[[Collection[str]], Table], dispensable: Sequence[str]) -> Table:
    """The table with as many columns as the screen is wide enough for.

    Args:
        screen: Where it will be printed.
        build: Makes the table without the named columns.
        dispensable: Columns to go without, the first one first.
    """
    omitted: list[str] = []
    table = build(omitted)
    for column in dispensable:
        if screen.measure(table, options=screen.options.update(width=sys.maxsize)).maximum <= screen.width:
            break
        omitted.append(column)
        table = build(omitted)
    return table


def duration(seconds: float) -> str:
    """A time span for a cell, for example `12 ms`, `1.5 s`, `3 min` or `2 h`."""
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.0f} h"
