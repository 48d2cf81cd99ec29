"""What a viewer of the SQL page asks: as the page's address has it, and as nodes are asked. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import urlencode

MAX_SQL_CHARACTERS = 100_000
MAX_COLUMN_CHARACTERS = 256
ROWS = (1_000, 10_000, 100_000)
SECONDS = (5, 30)
KINDS = ("bar", "line", "scatter")


@dataclass(frozen=True, slots=True)
class SqlRequest:
    """The question, and how its answer is looked at.

    Attributes:
        sql: The statement; empty: nothing is asked yet.
        rows: Where the result is cut.
        seconds: How long it may run.
        view: `table` or `chart`.
        kind: Of the chart.
        x: The column along the chart; empty: the first one.
        y: The column upwards; empty: the first that has numbers.
    """

    sql: str = ""
    rows: int = ROWS[0]
    seconds: int = SECONDS[0]
    view: str = "table"
    kind: str = KINDS[0]
    x: str = ""
    y: str = ""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> SqlRequest:
        """Read from the query of an address; what is not allowed is left out."""
        return cls(
            sql=query.get("sql", "")[:MAX_SQL_CHARACTERS],
            rows=next((rows for rows in ROWS if str(rows) == query.get("rows")), ROWS[0]),
            seconds=next((seconds for seconds in SECONDS if str(seconds) == query.get("seconds")), SECONDS[0]),
            view="chart" if query.get("view") == "chart" else "table",
            kind=next((kind for kind in KINDS if kind == query.get("kind")), KINDS[0]),
            x=query.get("x", "")[:MAX_COLUMN_CHARACTERS],
            y=query.get("y", "")[:MAX_COLUMN_CHARACTERS],
        )

    @property
    def address(self) -> str:
        """The address of the page that asks this."""
        differing = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) != field.default
        }
        return f"/sql?{urlencode(differing)}" if differing else "/sql"

    @property
    def body(self) -> dict[str, Any]:
        """What nodes are asked for."""
        return {"sql": self.sql, "max_rows": self.rows, "timeout_ms": 1000 * self.seconds}
