"""The time along a chart: every day, or every week or month where days would be too many. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import islice
from typing import Literal

Unit = Literal["day", "week", "month"]

UNITS: tuple[Unit, ...] = ("day", "week", "month")
MAX_COLUMNS = 100
_LONGEST: dict[Unit, int] = {"day": 1, "week": 7, "month": 31}
"""Days; so many past its beginning, the next one has begun and the one after it has not."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """The columns of a chart.

    Attributes:
        unit: How long each is.
        columns: Their names, in order: the first day of each, of a month only year and month.
    """

    unit: Unit
    columns: tuple[str, ...]

    def column(self, day: str) -> str:
        """The column that a day belongs to; what Python takes for no day is one of its own."""
        known = _parsed(day)
        return day if known is None else _name(_begin(known, self.unit), self.unit)


def timeline(days: Iterable[str], first: date | None = None, last: date | None = None) -> Timeline:
    """Columns without a gap for `days`, from `first` to `last` at least.

    Where even months are too many, as with a day that is made up, those that hold nothing are left out.
    """
    named = {day: _parsed(day) for day in days}
    known = sorted(day for day in named.values() if day is not None)
    others = sorted(name for name, day in named.items() if day is None)
    ends = [day for day in (first, *known, last) if day is not None]
    for unit in UNITS if ends else ():
        columns = list(islice(_columns(min(ends), max(ends), unit), MAX_COLUMNS + 1))
        if len(columns) <= MAX_COLUMNS:
            return Timeline(unit, (*columns, *others))
    return Timeline("month", (*dict.fromkeys(_name(day, "month") for day in known), *others))


def _columns(first: date, last: date, unit: Unit) -> Iterator[str]:
    begin, end = _begin(first, unit), _begin(last, unit)
    yield _name(begin, unit)
    while begin < end:
        begin = _begin(begin + timedelta(_LONGEST[unit]), unit)
        yield _name(begin, unit)


def _begin(day: date, unit: Unit) -> date:
    match unit:
        case "day":
            return day
        case "week":
            return day - timedelta(day.weekday())
        case "month":
            return day.replace(day=1)


def _name(begin: date, unit: Unit) -> str:
    return f"{begin:%Y-%m}" if unit == "month" else begin.isoformat()


def _parsed(day: str) -> date | None:
    try:
        return date.fromisoformat(day)
    except ValueError:
        return None
