"""The engine of the worker processes that read all shards of a node: DuckDB, within limits.

DuckDB reads the shard files through its extension for SQLite, which brings a SQLite of its own: that is why it
lives in a process of its own. Each query gets a new DuckDB: nothing that one query leaves behind can reach the
next. It is made before the query comes, with the extension loaded, which takes a good part of the time of a short
query.
"""

from __future__ import annotations

import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import duckdb_extension_sqlite_scanner

from agent_core.session_shard import shard_of
from replica.reading.sql.answering import Answer, bound_parameters, collect, rows_answer
from replica.reading.sql.duckdb_policy import Refused, check_statement
from replica.reading.sql.failure import QueryFailure, out_of_memory, out_of_time
from replica.reading.sql.limits import SqlLimits, limit_processor_time
from replica.reading.sql.point_query import Parameters, session_asked_for
from replica.reading.sql.whole_tables import WORKSPACE_TABLES, WholeTables

ADDRESS_SPACE_BYTES = 3 << 30
"""Beside the memory of a query: its heap as below, the library, each shard's memory map."""
HEAP_BYTES = 384 << 20
"""Beside the memory of a query: the interpreter, one row as Python's objects, the result as JSON.

DuckDB does not count what it hands over: a list of small structs is two hundred times as large in Python."""
OPEN_FILES = 2048
"""A shard takes three, and more than one connection may look at it."""
PREPARE_SECONDS = 10.0
WORKSPACE = "workspace"
THREADS = 1
"""Of one query: the processors are for replication first."""

_OPTIONS: dict[str, str | bool | int | float | list[str]] = {
    "threads": THREADS,
    "temp_directory": "",
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
}


class Engine:
    """DuckDB over all shards, a new one for each query."""

    address_space_bytes = ADDRESS_SPACE_BYTES
    heap_bytes = HEAP_BYTES
    open_files = OPEN_FILES

    def __init__(self, limits: SqlLimits) -> None:
        self.limits = limits
        self._next: duckdb.DuckDBPyConnection | None = None

    def prepare(self) -> None:
        """Make the DuckDB for the next query; no shard is open in it."""
        limit_processor_time(PREPARE_SECONDS)
        extension = Path(duckdb_extension_sqlite_scanner.__file__).with_name("extensions")
        extension = extension / f"v{duckdb.__version__}" / "sqlite_scanner.duckdb_extension"
        self._next = duckdb.connect(":memory:", config={**_OPTIONS, "memory_limit": f"{self.limits.memory_bytes}B"})
        self._next.execute(f"LOAD {_quoted(str(extension))}")

    def run(self, request: dict[str, Any]) -> Answer:
        """Run one query over the shard files `request["paths"]`, the workspace shard's last."""
        assert self._next is not None
        limits, seconds = self.limits, float(request["seconds"])
        deadline = time.monotonic() + seconds
        limit_processor_time(seconds)
        try:
            with closing(self._next) as db:
                stop = threading.Timer(seconds, db.interrupt)
                stop.daemon = True
                stop.start()
                try:
                    parameters = bound_parameters(request["parameters"])
                    _open_shards(db, request["paths"], request["sql"], parameters)
                    cursor = db.execute(request["sql"], parameters)
                    columns = [str(column[0]) for column in cursor.description or ()]
                    rows_one_by_one = iter(cursor.fetchone, None)  # many at once could be too large for Python
                    rows, truncated = collect(
                        rows_one_by_one, request["max_rows"], limits.result_bytes, deadline, seconds
                    )
                finally:
                    stop.cancel()
        except duckdb.Error as error:
            raise _failure(error, seconds, limits) from error
        return rows_answer(columns, rows, truncated=truncated)


def _open_shards(db: duckdb.DuckDBPyConnection, paths: list[str], sql: str, parameters: Parameters) -> None:
    """Attach the shards read-only, make the tables that a statement reads, and lock everything behind it.

    Raises:
        QueryFailure: The statement may not run.
    """
    *session_shards, workspace_shard = paths
    _attach(db, workspace_shard, WORKSPACE)
    present = db.execute("SELECT table_name FROM duckdb_tables() WHERE database_name = ?", [WORKSPACE]).fetchall()
    whole_tables = WholeTables(WORKSPACE, [table for table in WORKSPACE_TABLES if (table,) in present])
    serialized = _serialized(db, sql)
    tables = _tables_read(serialized, whole_tables.names)
    session = session_asked_for(serialized, parameters)
    read = range(len(session_shards)) if session is None else [shard_of(session, len(session_shards))]
    schemas = {number: f"shard_{number}" for number in read}
    for number, schema in schemas.items():
        _attach(db, session_shards[number], schema)
    for statement in whole_tables.definitions(tables, schemas):
        db.execute(statement)
    db.execute("SET TimeZone = 'UTC'")
    db.execute("SET python_enable_replacements = false")
    db.execute("SET enable_external_access = false")
    db.execute("SET lock_configuration = true")


def _attach(db: duckdb.DuckDBPyConnection, path: str, schema: str) -> None:
    db.execute(f"ATTACH {_quoted(path)} AS {schema} (TYPE sqlite, READ_ONLY)")


def _serialized(db: duckdb.DuckDBPyConnection, sql: str) -> str:
    row = db.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchone()
    assert row is not None
    return str(row[0])


def _tables_read(serialized: str, tables: frozenset[str]) -> frozenset[str]:
    try:
        return check_statement(serialized, tables)
    except Refused as refusal:
        raise QueryFailure("query_refused", str(refusal)) from refusal


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _failure(error: duckdb.Error, seconds: float, limits: SqlLimits) -> QueryFailure:
    """What an error of DuckDB means to the caller."""
    match error:
        case duckdb.InterruptException():
            # What it held may not be given back, and the next query would have that much less of the heap.
            return QueryFailure("query_limit", out_of_time(seconds), exiting=True)
        case duckdb.OutOfMemoryException():
            return QueryFailure("query_limit", out_of_memory(limits), exiting=True)
        case duckdb.FatalException() | duckdb.InternalException():
            return QueryFailure("query_refused", f"DuckDB cannot run this: {error}", exiting=True)
        case duckdb.IOException():
            return QueryFailure("unavailable", f"a shard cannot be read now: {error}")
    return QueryFailure("query_refused", str(error))
