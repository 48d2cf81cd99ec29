"""The days that a viewer looks at: as the page's address has them, and as a condition in SQL. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from urllib.parse import urlencode

DAYS = (7, 30, 90)
DAY_MILLISECONDS = 86_400_000


@dataclass(frozen=True, slots=True)
class Period:
    """A range of days in UTC; where an end is None, it is open.

    Attributes:
        days: So many up to today, in place of both ends; None: the ends count.
        since: The first day.
        until: The last day.
    """

    days: int | None = None
    since: date | None = None
    until: date | None = None

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Period:
        """Read from the query of an address; what is not allowed is left out, an end before the beginning too."""
        days = next((days for days in DAYS if str(days) == query.get("days")), None)
        if days is not None:
            return cls(days=days)
        since, until = _day(query.get("since", "")), _day(query.get("until", ""))
        return cls(since=since, until=None if since and until and until < since else until)

    @property
    def address(self) -> str:
        """The address of the page that shows it."""
        query = {"days": self.days, "since": self.since, "until": self.until}
        told = urlencode({name: str(value) for name, value in query.items() if value is not None})
        return f"/analytics?{told}" if told else "/analytics"

    def ends(self, today: date) -> tuple[date | None, date | None]:
        """The first and the last day."""
        if self.days is not None:
            return today - timedelta(days=self.days - 1), today
        return self.since, self.until

    def days_condition(self, column: str, today: date) -> str:
        """A condition on a column that holds days."""
        since, until = self.ends(today)
        parts = [f"{column} >= DATE '{since}'"] if since else []
        parts += [f"{column} <= DATE '{until}'"] if until else []
        return " AND ".join(parts) or "true"

    def times_condition(self, column: str, today: date) -> str:
        """A condition on a column that holds milliseconds since 1970."""
        since, until = self.ends(today)
        parts = [f"{column} >= {_milliseconds(since)}"] if since else []
        parts += [f"{column} < {_milliseconds(until) + DAY_MILLISECONDS}"] if until else []
        return " AND ".join(parts) or "true"


def _day(text: str) -> date | None:
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError:
        return None
    return day if 1970 <= day.year < 9999 else None


def _milliseconds(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)
