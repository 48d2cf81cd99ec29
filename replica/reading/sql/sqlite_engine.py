"""The engine of the worker processes that read one shard: the standard library's SQLite, within limits.

The standard library's SQLite is used because it can set limits, which the build that writes shards cannot; two
libraries must not share a process, and do not.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from typing import Any
from urllib.parse import quote

from replica.reading.sql.answering import Answer, bound_parameters, collect, rows_answer
from replica.reading.sql.failure import QueryFailure, out_of_memory, out_of_time
from replica.reading.sql.limits import SqlLimits, limit_processor_time
from replica.reading.sql.policy import ReadOnlyPolicy
from replica.reading.sql.sqlite_limits import (
    INTERPRETER_BYTES,
    MAX_VALUE_BYTES,
    PROGRESS_OPERATIONS,
    limit_connection,
)

BUSY_SECONDS = 1.0
OPEN_FILES = 64


class Engine:
    """SQLite over one shard, opened anew for each query."""

    address_space_bytes = INTERPRETER_BYTES
    heap_bytes = INTERPRETER_BYTES
    open_files = OPEN_FILES

    def __init__(self, limits: SqlLimits) -> None:
        self.limits = limits

    def prepare(self) -> None:
        """Opening a shard takes no time."""

    def run(self, request: dict[str, Any]) -> Answer:
        """Run one query over the shard file that `request["paths"]` names."""
        limits = self.limits
        seconds = float(request["seconds"])
        deadline = time.monotonic() + seconds
        limit_processor_time(seconds)
        policy = None
        try:
            with closing(_open(request["paths"][0], limits.memory_bytes)) as connection:
                policy = ReadOnlyPolicy.install(connection)
                connection.set_progress_handler(lambda: time.monotonic() > deadline, PROGRESS_OPERATIONS)
                cursor = connection.execute(request["sql"], bound_parameters(request["parameters"]))
                if cursor.description is None:
                    raise QueryFailure("query_refused", "the statement returns no rows; write a SELECT")
                columns = [column[0] for column in cursor.description]
                rows, truncated = collect(cursor, request["max_rows"], limits.result_bytes, deadline, seconds)
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise _failure(error, policy, seconds, limits) from error
        except (OverflowError, UnicodeError) as error:
            raise QueryFailure("query_refused", f"a parameter cannot be bound: {error}") from error
        return rows_answer(columns, rows, truncated=truncated)


def _open(path: str, memory_bytes: int) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{quote(path)}?mode=ro", uri=True, isolation_level=None, timeout=BUSY_SECONDS, cached_statements=0
    )
    connection.text_factory = lambda text: text.decode(errors="replace")
    connection.execute("PRAGMA query_only=ON")
    limit_connection(connection, memory_bytes)
    return connection


def _failure(error: Exception, policy: ReadOnlyPolicy | None, seconds: float, limits: SqlLimits) -> QueryFailure:
    """What an error of SQLite means to the caller, by its primary result code."""
    if policy is not None and policy.refused is not None:
        return QueryFailure("query_refused", f"{error}; this is read-only SQL: refused {policy.refused}")
    match getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF:
        case sqlite3.SQLITE_INTERRUPT:
            code, message = "query_limit", out_of_time(seconds)
        case sqlite3.SQLITE_NOMEM:
            return QueryFailure("query_limit", out_of_memory(limits), exiting=True)
        case sqlite3.SQLITE_TOOBIG:
            code, message = "query_limit", f"{error}: more than {MAX_VALUE_BYTES} bytes in one value or row"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED | sqlite3.SQLITE_CANTOPEN:
            code, message = "unavailable", f"the shard cannot be read now: {error}"
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_IOERR:
            code, message = "shard_damaged", f"the shard cannot be read: {error}"
        case _:
            code, message = "query_refused", str(error)
    return QueryFailure(code, message)
