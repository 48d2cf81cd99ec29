"""The tables that SQL over all shards sees, whatever the number of shards, as statements of DuckDB.

Everything that is known of a session lies in one shard. So what is worked out per session is worked out shard by
shard, into a temporary table: over 128 shards at once DuckDB would hold 128 partial results, and run out of
memory. Entries themselves are not copied; they are a view of all shards.

Times are milliseconds since 1970, as in the shards. Facts of messages are read from the entries' payloads, which
are JSON that was checked when it was written.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

WORKSPACE_TABLES = ("documents", "properties", "links")
"""Tables of the workspace shard that are offered under their own names, where they exist."""

ACTIVE_GAP_MS = 300_000
"""Entries of a session that lie no further apart than this count as one stretch of work."""

_SESSION_KEYS = "SELECT {shard} AS shard, id, session_id FROM {schema}.main.sessions"

_SESSIONS = """
SELECT s.session_id, s.workspace, s.title, s.status, s.provider, s.model, s.parent_session_id, s.created_at,
       s.metadata, coalesce(e.entry_count, 0) AS entry_count, greatest(s.created_at, e.updated_at) AS updated_at,
       {shard} AS shard
FROM {schema}.main.sessions s
LEFT JOIN (
    SELECT session, count(*) AS entry_count, max(created_at) AS updated_at
    FROM {schema}.main.entries GROUP BY session
) e ON e.session = s.id
"""

# Claude Code logs one answer of a model as several records, each with the usage of the whole: the greatest counts.
_MODEL_CALLS = """
SELECT session_id, min(seq) AS seq, min(created_at) AS created_at, any_value(provider) AS provider, model,
       max(input_tokens) AS input_tokens, max(output_tokens) AS output_tokens,
       max(cache_read_tokens) AS cache_read_tokens, max(cache_write_tokens) AS cache_write_tokens, max(cost) AS
       cost, any_value(stop_reason) AS stop_reason
FROM (
    SELECT s.session_id, e.seq, e.created_at, f[1] AS provider, coalesce(f[2], '') AS model,
           coalesce(f[3], 'seq ' || e.seq) AS answer, f[4] AS stop_reason,
           coalesce(TRY_CAST(coalesce(f[5], f[6], f[7]) AS BIGINT), 0) AS input_tokens,
           coalesce(TRY_CAST(coalesce(f[8], f[9], f[10]) AS BIGINT), 0) AS output_tokens,
           coalesce(TRY_CAST(f[11] AS BIGINT), 0) AS cache_read_tokens,
           coalesce(TRY_CAST(f[12] AS BIGINT), 0) AS cache_write_tokens,
           TRY_CAST(coalesce(f[13], f[14]) AS DOUBLE) AS cost
    FROM (
        SELECT session, seq, created_at, json_extract_string(payload, [
            '$.provider', '$.model', '$.record.message.id', '$.stopReason',
            '$.usage.input_tokens', '$.usage.prompt_tokens', '$.usage.inputTokens',
            '$.usage.output_tokens', '$.usage.completion_tokens', '$.usage.outputTokens',
            '$.usage.cache_read_input_tokens', '$.usage.cache_creation_input_tokens',
            '$.usage.cost', '$.record.costUSD', '$.role']) AS f
        FROM {schema}.main.entries WHERE kind = 'message'
    ) e
    JOIN {schema}.main.sessions s ON s.id = e.session
    WHERE f[15] = 'assistant'
)
GROUP BY session_id, answer, model
"""

_TOOL_CALLS = """
WITH entry AS (
    SELECT session, seq, created_at, payload, json_extract_string(payload, [
        '$.role', '$.phase', '$.toolCallId', '$.toolName', '$.isError']) AS f
    FROM {schema}.main.entries WHERE kind IN ('message', 'tool_execution')
), called AS (
    SELECT session, seq, created_at, json_extract_string(block, '$.id') AS tool_call_id,
           json_extract_string(block, '$.name') AS name
    FROM (
        SELECT session, seq, created_at, unnest(json_extract(payload, '$.content[*]')) AS block
        FROM entry WHERE f[1] = 'assistant' AND contains(payload, 'tool_call')
    )
    WHERE json_extract_string(block, '$.type') = 'tool_call'
    UNION ALL
    SELECT session, seq, created_at, f[3], f[4] FROM entry WHERE f[2] = 'start'
), call AS (
    SELECT session, tool_call_id, min(seq) AS seq, min(created_at) AS started_at, arg_min(name, seq) AS name
    FROM called GROUP BY session, tool_call_id
), ended AS (
    SELECT session, f[3] AS tool_call_id, min(created_at) AS ended_at, arg_min(f[5] IS NOT DISTINCT FROM 'true',
    seq)
           AS is_error
    FROM entry WHERE f[1] = 'tool_result' OR f[2] = 'end' GROUP BY ALL
)
SELECT s.session_id, c.tool_call_id, c.seq, coalesce(c.name, '') AS name, c.started_at, e.ended_at,
       CASE WHEN e.is_error IS NULL THEN 'pending' WHEN e.is_error THEN 'errored' ELSE 'completed' END AS status,
       CASE WHEN e.ended_at >= c.started_at THEN (e.ended_at - c.started_at) / 1000.0 END AS duration_seconds
FROM call c
JOIN {schema}.main.sessions s ON s.id = c.session
LEFT JOIN ended e ON e.session = c.session AND e.tool_call_id = c.tool_call_id
"""

_ACTIVE_TIME = """
SELECT s.session_id, s.workspace, e.day, e.active_seconds
FROM (
    SELECT session, CAST(make_timestamp(created_at * 1000) AS DATE) AS day,
           sum(CASE WHEN gap BETWEEN 0 AND {active_gap_ms} THEN gap ELSE 0 END) / 1000.0 AS active_seconds
    FROM (
        SELECT session, created_at, created_at - lag(created_at) OVER (PARTITION BY session ORDER BY seq) AS gap
        FROM {schema}.main.entries
    )
    GROUP BY ALL
) e
JOIN {schema}.main.sessions s ON s.id = e.session
"""

_PER_SHARD = {
    "session_keys": _SESSION_KEYS,
    "sessions": _SESSIONS,
    "model_calls": _MODEL_CALLS,
    "tool_calls": _TOOL_CALLS,
    "active_time": _ACTIVE_TIME,
}

_ENTRIES = """
SELECT {shard} AS shard, session, seq, kind, created_at, idempotency_key, payload FROM {schema}.main.entries
"""

_VIEWS = {
    "entries": """
SELECT k.session_id, e.seq, e.kind, e.created_at, e.idempotency_key, e.payload, e.shard
FROM all_entries e JOIN session_keys k ON k.shard = e.shard AND k.id = e.session
""",
    "tokens_by_model_and_day": """
SELECT CAST(make_timestamp(created_at * 1000) AS DATE) AS day, model, count(*) AS calls,
       CAST(sum(input_tokens) AS BIGINT) AS input_tokens, CAST(sum(output_tokens) AS BIGINT) AS output_tokens,
       CAST(sum(cache_read_tokens) AS BIGINT) AS cache_read_tokens,
       CAST(sum(cache_write_tokens) AS BIGINT) AS cache_write_tokens, sum(cost) AS cost
FROM model_calls
GROUP BY ALL
""",
    "tool_calls_by_name": """
SELECT name, count(*) AS calls, count(*) FILTER (status = 'errored') AS errors,
       count(*) FILTER (status = 'pending') AS pending,
       count(*) FILTER (status = 'errored') / nullif(count(*) FILTER (status <> 'pending'), 0) AS error_rate,
       avg(duration_seconds) AS mean_seconds, quantile_cont(duration_seconds, 0.5) AS p50_seconds,
       quantile_cont(duration_seconds, 0.95) AS p95_seconds
FROM tool_calls
GROUP BY ALL
""",
    "sessions_by_workspace": """
SELECT workspace, count(*) AS sessions, CAST(sum(entry_count) AS BIGINT) AS entries,
       count(*) FILTER (status = 'running') AS running, max(updated_at) AS updated_at
FROM sessions
GROUP BY ALL
""",
}

_INNER = frozenset({"session_keys", "all_entries"})
_WORD = re.compile(r"(?<!main\.)\b[a-z_]+\b")


class WholeTables:
    """The tables over the shards of one node.

    Attributes:
        names: Those that can be read.
    """

    def __init__(self, workspace: str, workspace_tables: Collection[str]) -> None:
        """Describe them.

        Args:
            workspace: The workspace shard's schema.
            workspace_tables: Those of `WORKSPACE_TABLES` that it has.
        """
        self._workspace_views = {
            table: f"SELECT * FROM {workspace}.main.{table}"  # noqa: S608 - our own constants
            for table in workspace_tables
        }
        self.names = (frozenset(_PER_SHARD) | frozenset(_VIEWS) | frozenset(self._workspace_views)) - _INNER

    def definitions(self, tables: Collection[str], schemas: Mapping[int, str]) -> Iterator[str]:
        """The statements that make `tables`, and before them those that they rest on; nothing else is made.

        Args:
            tables: Of `names`.
            schemas: By a session shard's number, where it is attached; those to be read, at least one.
        """
        needed = set(tables)
        for view in reversed(_VIEWS):
            if view in needed:
                needed.update(_WORD.findall(_VIEWS[view]))
        for table, query in _PER_SHARD.items():
            if table in needed:
                first, *others = _for_each(schemas, query)
                yield f"CREATE TEMP TABLE {table} AS {first}"
                for other in others:
                    yield f"INSERT INTO {table} {other}"
        all_entries = " UNION ALL ".join(_for_each(schemas, _ENTRIES))
        for view, query in {"all_entries": all_entries, **_VIEWS, **self._workspace_views}.items():
            if view in needed:
                yield f"CREATE TEMP VIEW {view} AS {query}"


def _for_each(schemas: Mapping[int, str], query: str) -> list[str]:
    return [
        query.format(shard=shard, schema=schema, active_gap_ms=ACTIVE_GAP_MS) for shard, schema in schemas.items()
    ]
