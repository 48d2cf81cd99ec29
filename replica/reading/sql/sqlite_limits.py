"""What a query over one shard may use, in SQLite's own terms."""

from __future__ import annotations

import sqlite3

from replica.reading.sql.limits import MAX_PARAMETERS, MAX_SQL_BYTES

MAX_VALUE_BYTES = 16 << 20
"""Of one text, blob or row within SQLite."""
PROGRESS_OPERATIONS = 1000
"""Virtual machine operations of SQLite between two looks at the clock."""
INTERPRETER_BYTES = 256 << 20
"""Of address space that a worker process takes beside SQLite's memory: Python, and the result as JSON."""

_SQLITE_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: MAX_VALUE_BYTES,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: MAX_SQL_BYTES,
    sqlite3.SQLITE_LIMIT_COLUMN: 500,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 200,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 100,
    sqlite3.SQLITE_LIMIT_VDBE_OP: 250_000,
    sqlite3.SQLITE_LIMIT_FUNCTION_ARG: 100,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1000,
    sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER: MAX_PARAMETERS,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 1,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}


def limit_connection(connection: sqlite3.Connection, memory_bytes: int) -> None:
    """Bound what one statement on a connection may be and may use."""
    for category, limit in _SQLITE_LIMITS.items():
        connection.setlimit(category, limit)
    connection.execute(f"PRAGMA hard_heap_limit={memory_bytes}")
    connection.execute("PRAGMA temp_store=MEMORY")
