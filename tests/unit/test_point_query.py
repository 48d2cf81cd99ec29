"""Which statements over all shards are about one session."""

from __future__ import annotations

from typing import Any

import duckdb
import pytest

from replica.reading.sql.point_query import session_asked_for


def asked_for(sql: str, parameters: Any = ()) -> str | None:
    with duckdb.connect() as db:
        row = db.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchone()
    assert row is not None
    return session_asked_for(row[0], parameters)


@pytest.mark.parametrize(
    ("sql", "parameters"),
    [
        ("SELECT * FROM entries WHERE session_id = 'a'", []),
        ("FROM Sessions WHERE SESSION_ID = 'a'", []),
        ("SELECT kind, count(*) FROM entries e WHERE 'a' = e.session_id AND seq > 3 GROUP BY 1 ORDER BY 2", []),
        ("SELECT * FROM tool_calls WHERE name = ? AND session_id = ?", ["x", "a"]),
        ("SELECT * FROM model_calls WHERE session_id = $id", {"id": "a"}),
        ("SELECT * FROM active_time WHERE session_id = $2", ["x", "a"]),
    ],
)
def test_a_plain_condition_on_the_session_names_it(sql: str, parameters: Any) -> None:
    assert asked_for(sql, parameters) == "a"


@pytest.mark.parametrize(
    ("sql", "parameters"),
    [
        ("SELECT * FROM entries", []),
        ("SELECT 1", []),
        ("SELECT * FROM entries WHERE session_id = 'a' OR seq = 1", []),
        ("SELECT * FROM entries WHERE NOT session_id = 'a'", []),
        ("SELECT * FROM entries WHERE session_id <> 'a'", []),
        ("SELECT * FROM entries WHERE session_id IN ('a', 'b')", []),
        ("SELECT * FROM entries WHERE session_id = upper('a')", []),
        ("SELECT * FROM entries WHERE session_id = kind", []),
        ("SELECT * FROM entries WHERE session_id = NULL", []),
        ("SELECT * FROM entries WHERE session_id = ?", [5]),
        ("SELECT * FROM entries WHERE session_id = ?", []),
        ("SELECT * FROM entries WHERE session_id = $id", {"other": "a"}),
        ("SELECT * FROM entries WHERE kind = 'a'", []),
        ("SELECT * FROM entries AS e(kind, session_id) WHERE session_id = 'a'", []),
        ("SELECT * FROM entries TABLESAMPLE 10% WHERE session_id = 'a'", []),
        ("SELECT * FROM entries e JOIN sessions s USING (session_id) WHERE session_id = 'a'", []),
        ("SELECT *, (SELECT count(*) FROM entries) FROM entries WHERE session_id = 'a'", []),
        ("SELECT * FROM entries WHERE session_id = 'a' AND seq IN (SELECT max(seq) FROM entries)", []),
        ("SELECT * FROM entries WHERE session_id = 'a' UNION ALL FROM entries", []),
        ("WITH e AS (FROM entries) SELECT * FROM sessions WHERE session_id = 'a'", []),
        ("WITH entries AS (SELECT 1 AS session_id) SELECT * FROM entries WHERE session_id = 'a'", []),
        ("SELECT * FROM documents WHERE session_id = 'a'", []),
        ("SELECT * FROM (SELECT kind AS session_id FROM entries) WHERE session_id = 'a'", []),
    ],
)
def test_anything_else_reads_all_shards(sql: str, parameters: Any) -> None:
    assert asked_for(sql, parameters) is None
