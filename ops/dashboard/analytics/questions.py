"""What the page asks the nodes: the ready views where these know days, else what they are made of. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any, NamedTuple

from ops.dashboard.analytics.period import Period
from replica.reading.http_models import QueryResponse

MAX_ROWS = 10_000
TIMEOUT_MS = 20_000


class Tokens(NamedTuple):
    """What one model used on one day; `cost` is None where the transcripts tell none."""

    day: str
    model: str
    calls: int
    input_tokens: int
    output_tokens: int
    cost: float | None


class ToolUse(NamedTuple):
    """The calls of one tool; durations in seconds, None where no call ended."""

    name: str
    calls: int
    errors: int
    pending: int
    p50_seconds: float | None
    p95_seconds: float | None

    @property
    def error_rate(self) -> float | None:
        """Of the calls that ended; None if none did."""
        ended = self.calls - self.pending
        return self.errors / ended if ended else None


class WorkspaceUse(NamedTuple):
    """The sessions of one workspace that were updated in the period."""

    workspace: str
    sessions: int
    entries: int


class ActiveTime(NamedTuple):
    """How long was worked on one day in one workspace."""

    day: str
    workspace: str
    hours: float


def tokens_sql(period: Period, today: date) -> str:
    """Asks for `Tokens`."""
    return (
        "SELECT day::VARCHAR, model, calls, input_tokens + cache_read_tokens + cache_write_tokens, output_tokens, "  # noqa: S608
        f"cost FROM tokens_by_model_and_day WHERE {period.days_condition('day', today)} ORDER BY day, model"
    )


def tools_sql(period: Period, today: date) -> str:
    """Asks for `ToolUse`, as `tool_calls_by_name` has it, which knows no days."""
    return (
        "SELECT name, count(*), count(*) FILTER (status = 'errored'), count(*) FILTER (status = 'pending'), "  # noqa: S608
        "quantile_cont(duration_seconds, 0.5), quantile_cont(duration_seconds, 0.95) FROM tool_calls "
        f"WHERE {period.times_condition('started_at', today)} GROUP BY name ORDER BY count(*) DESC, name"
    )


def workspaces_sql(period: Period, today: date) -> str:
    """Asks for `WorkspaceUse`, as `sessions_by_workspace` has it, which knows no days."""
    return (
        "SELECT workspace, count(*), CAST(sum(entry_count) AS BIGINT) FROM sessions "  # noqa: S608
        f"WHERE {period.times_condition('updated_at', today)} GROUP BY workspace ORDER BY count(*) DESC, workspace"
    )


def active_sql(period: Period, today: date) -> str:
    """Asks for `ActiveTime`."""
    return (
        "SELECT day::VARCHAR, workspace, sum(active_seconds) / 3600 FROM active_time "  # noqa: S608
        f"WHERE {period.days_condition('day', today)} GROUP BY day, workspace ORDER BY day, workspace"
    )


def body(sql: str) -> dict[str, Any]:
    """What nodes are asked for."""
    return {"sql": sql, "max_rows": MAX_ROWS, "timeout_ms": TIMEOUT_MS}


def tokens_of(answer: QueryResponse) -> list[Tokens]:
    """The rows that `tokens_sql` brought."""
    return [Tokens(*row) for row in answer.rows]


def tools_of(answer: QueryResponse) -> list[ToolUse]:
    """The rows that `tools_sql` brought."""
    return [ToolUse(*row) for row in answer.rows]


def workspaces_of(answer: QueryResponse) -> list[WorkspaceUse]:
    """The rows that `workspaces_sql` brought."""
    return [WorkspaceUse(*row) for row in answer.rows]


def active_of(answer: QueryResponse) -> list[ActiveTime]:
    """The rows that `active_sql` brought."""
    return [ActiveTime(*row) for row in answer.rows]


def largest(sums: Sequence[tuple[str, float]], count: int) -> list[str]:
    """The `count` names with the largest sums, the largest first."""
    totals: dict[str, float] = {}
    for name, value in sums:
        totals[name] = totals.get(name, 0.0) + value
    return sorted(totals, key=lambda name: (-totals[name], name))[:count]
