"""The tables and views that SQL over all shards sees, for the list beside the editor."""

from __future__ import annotations

from typing import NamedTuple


class Table(NamedTuple):
    """A table or a ready view; `example` is a first look at it."""

    name: str
    explanation: str
    columns: tuple[str, ...]
    example: str


_TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "cost")

TABLES = (
    Table(
        "tokens_by_model_and_day",
        "Ready view: what each model used on each day.",
        ("day", "model", "calls", *_TOKENS),
        "FROM tokens_by_model_and_day\nORDER BY day, model",
    ),
    Table(
        "tool_calls_by_name",
        "Ready view: how often each tool was called, failed, and how long it took.",
        ("name", "calls", "errors", "pending", "error_rate", "mean_seconds", "p50_seconds", "p95_seconds"),
        "FROM tool_calls_by_name\nORDER BY calls DESC",
    ),
    Table(
        "sessions_by_workspace",
        "Ready view: sessions and entries of each workspace.",
        ("workspace", "sessions", "entries", "running", "updated_at"),
        "FROM sessions_by_workspace\nORDER BY sessions DESC",
    ),
    Table(
        "active_time",
        "Ready view: work on each session by day; pauses of more than five minutes are none.",
        ("session_id", "workspace", "day", "active_seconds"),
        "SELECT day, sum(active_seconds) / 3600 AS hours\nFROM active_time\nGROUP BY day\nORDER BY day",
    ),
    Table(
        "sessions",
        "One row for each session.",
        (
            "session_id", "workspace", "title", "status", "provider", "model", "parent_session_id", "created_at",
            "metadata", "entry_count", "updated_at", "shard",
        ),
        "SELECT session_id, title, entry_count\nFROM sessions\nORDER BY updated_at DESC\nLIMIT 100",
    ),
    Table(
        "entries",
        "One row for each entry; payload is JSON.",
        ("session_id", "seq", "kind", "created_at", "idempotency_key", "payload", "shard"),
        "SELECT kind, count(*) AS entries\nFROM entries\nGROUP BY kind\nORDER BY entries DESC",
    ),
    Table(
        "model_calls",
        "One row for each answer of a model.",
        ("session_id", "seq", "created_at", "provider", "model", *_TOKENS, "stop_reason"),
        "SELECT model, count(*) AS calls, avg(output_tokens) AS output_tokens\nFROM model_calls\nGROUP BY model",
    ),
    Table(
        "tool_calls",
        "One row for each call of a tool.",
        (
            "session_id", "tool_call_id", "seq", "name", "started_at", "ended_at", "status", "duration_seconds",
        ),
        "SELECT name, status, duration_seconds\nFROM tool_calls\nORDER BY duration_seconds DESC\nLIMIT 50",
    ),
)  # fmt: skip
"""Ready views first. Times are milliseconds since 1970."""
