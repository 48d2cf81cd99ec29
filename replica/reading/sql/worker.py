"""A worker process: runs one query after another with the standard library's SQLite, within limits.

    python -m replica.reading.sql.worker LIMITS

LIMITS is what `SqlLimits.to_argument` makes. The process says that it is ready, then answers each request on
standard input with one message on standard output, and ends when standard input does. Whatever a query does to this
process, the node outlives it.

The standard library's SQLite is used because it can set limits, which the build that writes shards cannot; two
libraries must not share a process, and do not.
"""

from __future__ import annotations

import base64
import json
import sqlite3
import sys
import time
from collections.abc import Iterable
from contextlib import closing
from typing import Any
from urllib.parse import quote

from replica.reading.sql.limits import (
    MAX_VALUE_BYTES,
    PROGRESS_OPERATIONS,
    SqlLimits,
    limit_connection,
    limit_process,
    limit_processor_time,
)
from replica.reading.sql.messages import encode_message, read_message
from replica.reading.sql.policy import ReadOnlyPolicy

READY: dict[str, Any] = {"ready": True}
BUSY_SECONDS = 1.0

Row = tuple[Any, ...]


class QueryFailure(Exception):
    """A query that ends without a result; `code` is the error's name in `agent_core.errors`."""

    def __init__(self, code: str, message: str, *, exiting: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.exiting = exiting


def main() -> None:
    """Serve queries until standard input ends."""
    limits = SqlLimits.from_argument(sys.argv[1])
    limit_process(limits.memory_bytes)
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    answers.write(encode_message(READY))
    answers.flush()
    exiting = False
    while not exiting and (message := read_message(requests)) is not None:
        head, rows = answer(message[0], limits)
        exiting = head.get("exiting", False)
        answers.write(encode_message(head, rows))
        answers.flush()


def answer(request: dict[str, Any], limits: SqlLimits) -> tuple[dict[str, Any], bytes]:
    """The head of the answer to one request, and the rows as JSON."""
    try:
        return run(request, limits)
    except QueryFailure as failure:
        return {"code": failure.code, "message": str(failure), "exiting": failure.exiting}, b""
    except MemoryError:
        # What Python and SQLite still hold after this is anyone's guess: the next query gets a new process.
        return {"code": "query_limit", "message": _out_of_memory(limits), "exiting": True}, b""


def run(request: dict[str, Any], limits: SqlLimits) -> tuple[dict[str, Any], bytes]:
    """Run one query.

    Raises:
        QueryFailure: It was refused, passed a limit, or the shard could not be read.
    """
    seconds = float(request["seconds"])
    deadline = time.monotonic() + seconds
    limit_processor_time(seconds)
    policy = None
    try:
        with closing(_open(request["path"], limits.memory_bytes)) as connection:
            policy = ReadOnlyPolicy.install(connection)
            connection.set_progress_handler(lambda: time.monotonic() > deadline, PROGRESS_OPERATIONS)
            cursor = connection.execute(request["sql"], _bound(request["parameters"]))
            if cursor.description is None:
                raise QueryFailure("query_refused", "the statement returns no rows; write a SELECT")
            columns = [column[0] for column in cursor.description]
            rows, truncated = _collect(cursor, request["max_rows"], limits.result_bytes, deadline, seconds)
    except (sqlite3.Error, sqlite3.Warning) as error:
        raise _failure(error, policy, seconds, limits) from error
    except (OverflowError, UnicodeError) as error:
        raise QueryFailure("query_refused", f"a parameter cannot be bound: {error}") from error
    return {
        "columns": columns,
        "row_count": len(rows),
        "truncated": truncated,
    }, f"[{','.join(rows)}]".encode()


def _open(path: str, memory_bytes: int) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{quote(path)}?mode=ro", uri=True, isolation_level=None, timeout=BUSY_SECONDS, cached_statements=0
    )
    connection.text_factory = lambda text: text.decode(errors="replace")
    connection.execute("PRAGMA query_only=ON")
    limit_connection(connection, memory_bytes)
    return connection


def _bound(parameters: Any) -> Any:  # noqa: ANN401 - JSON
    """Parameters as SQLite takes them; `{"base64": "…"}` stands for a blob, as in results."""
    if isinstance(parameters, dict):
        return {name: _bound_value(value) for name, value in parameters.items()}
    return [_bound_value(value) for value in parameters]


def _bound_value(value: Any) -> Any:  # noqa: ANN401 - JSON
    return base64.b64decode(value["base64"]) if isinstance(value, dict) else value


def _collect(
    cursor: Iterable[Row], max_rows: int, max_bytes: int, deadline: float, seconds: float
) -> tuple[list[str], bool]:
    """Rows as JSON arrays, and whether more would have followed."""
    rows: list[str] = []
    size = 0
    for row in cursor:
        if len(rows) == max_rows:
            return rows, True
        encoded = _encoded(row, max_bytes)
        size += len(encoded.encode()) + 1
        if size > max_bytes:
            if rows:
                return rows, True
            raise QueryFailure("query_limit", f"one row is larger than {max_bytes} bytes as JSON")
        if time.monotonic() > deadline:
            raise QueryFailure("query_limit", _out_of_time(seconds))
        rows.append(encoded)
    return rows, False


def _encoded(row: Row, max_bytes: int) -> str:
    if sum(len(value) for value in row if isinstance(value, str | bytes)) > max_bytes:
        raise QueryFailure("query_limit", f"one row is larger than {max_bytes} bytes as JSON")
    try:
        return _JSON.encode(row)
    except ValueError:  # JSON has no infinity
        finite = [None if isinstance(value, float) and abs(value) == float("inf") else value for value in row]
        return _JSON.encode(finite)


def _blob(value: Any) -> dict[str, str]:  # noqa: ANN401 - what JSON cannot say; of SQLite's types only blobs
    return {"base64": base64.b64encode(value).decode()}


_JSON = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"), default=_blob
)


def _failure(error: Exception, policy: ReadOnlyPolicy | None, seconds: float, limits: SqlLimits) -> QueryFailure:
    """What an error of SQLite means to the caller, by its primary result code."""
    if policy is not None and policy.refused is not None:
        return QueryFailure("query_refused", f"{error}; this is read-only SQL: refused {policy.refused}")
    match getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF:
        case sqlite3.SQLITE_INTERRUPT:
            code, message = "query_limit", _out_of_time(seconds)
        case sqlite3.SQLITE_NOMEM:
            return QueryFailure("query_limit", _out_of_memory(limits), exiting=True)
        case sqlite3.SQLITE_TOOBIG:
            code, message = "query_limit", f"{error}: more than {MAX_VALUE_BYTES} bytes in one value or row"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED | sqlite3.SQLITE_CANTOPEN:
            code, message = "unavailable", f"the shard cannot be read now: {error}"
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_IOERR:
            code, message = "shard_damaged", f"the shard cannot be read: {error}"
        case _:
            code, message = "query_refused", str(error)
    return QueryFailure(code, message)


def _out_of_time(seconds: float) -> str:
    return f"the query ran longer than its limit of {seconds:g} s"


def _out_of_memory(limits: SqlLimits) -> str:
    return f"the query needs more memory than its limit of {limits.memory_bytes >> 20} MiB"


if __name__ == "__main__":
    main()
