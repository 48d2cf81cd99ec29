"""Which statements over all shards are about one session only, so that its shard is all that need be opened.

Everything that is known of a session lies in one shard. A statement qualifies if it is one plain SELECT from one
table whose rows belong to sessions, with `session_id = 'constant'` or `= ?` as its condition or as one of several
that must hold. Any other statement may well be about one session too; it is only slower.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from replica.reading.sql.statement_tree import nodes

TABLES_OF_SESSIONS = frozenset({"sessions", "entries", "model_calls", "tool_calls", "active_time"})

Parameters = Sequence[Any] | Mapping[str, Any]


def session_asked_for(serialized: str, parameters: Parameters) -> str | None:
    """The session that a statement is about; None: all of them, or it cannot be told.

    Args:
        serialized: What DuckDB's `json_serialize_sql` says of the statement, already checked.
        parameters: Its parameters, by position or by name.
    """
    statement = json.loads(serialized)["statements"][0]
    query = statement["node"]
    if query["type"] != "SELECT_NODE" or not _reads_one_table_of_sessions(query["from_table"]):
        return None
    if any(node.get("type") == "SELECT_NODE" for part in query.values() for node in nodes(part)):
        return None  # a query within it may read other sessions
    sessions = (_session_required(each, parameters) for each in _all_required(query["where_clause"]))
    return next((session for session in sessions if session is not None), None)


def _reads_one_table_of_sessions(table: dict[str, Any]) -> bool:
    return (
        table["type"] == "BASE_TABLE"
        and table["table_name"].lower() in TABLES_OF_SESSIONS
        and not table["column_name_alias"]  # which may call another column so
        and table["sample"] is None
    )


def _all_required(condition: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The conditions that must all hold."""
    if condition is None:
        return []
    return condition["children"] if condition["type"] == "CONJUNCTION_AND" else [condition]


def _session_required(condition: dict[str, Any], parameters: Parameters) -> str | None:
    if condition["type"] != "COMPARE_EQUAL":
        return None
    left, right = condition["left"], condition["right"]
    if left["class"] != "COLUMN_REF":
        left, right = right, left
    if left["class"] != "COLUMN_REF" or left["column_names"][-1].lower() != "session_id":
        return None
    value = _value(right, parameters)
    return value if isinstance(value, str) else None


def _value(expression: dict[str, Any], parameters: Parameters) -> Any:  # noqa: ANN401 - JSON
    if expression["class"] == "CONSTANT":
        return expression["value"].get("value")
    if expression["class"] != "PARAMETER":
        return None
    name = expression["identifier"]
    if isinstance(parameters, Mapping):
        return parameters.get(name)
    return parameters[int(name) - 1] if name.isdecimal() and 0 < int(name) <= len(parameters) else None
