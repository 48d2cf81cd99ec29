"""What every worker process does, whatever engine it runs: take requests one by one, and give rows back as JSON.

A worker says that it is ready, then answers each request on standard input with one message on standard output, and
ends when standard input does.
"""

from __future__ import annotations

import base64
import sys
import time
from collections.abc import Iterable
from typing import Any, Protocol

from replica.reading.sql.failure import QueryFailure, out_of_memory, out_of_time
from replica.reading.sql.json_row import Row, encode_row, row_too_large
from replica.reading.sql.limits import SqlLimits, limit_process
from replica.reading.sql.messages import encode_message, read_message

READY: dict[str, Any] = {"ready": True}
MAX_MESSAGE_CHARACTERS = 500
"""Of what is told about an error that nobody foresaw."""

Answer = tuple[dict[str, Any], bytes]
"""The head of an answer, and the rows as JSON."""


class Engine(Protocol):
    """What runs the queries of a worker process.

    Attributes:
        limits: What each query may use.
        address_space_bytes: What the process may map beside the memory that the limits give to a query.
        heap_bytes: The part of it that may be memory of its own, not files.
        open_files: How many files it may hold open.
    """

    limits: SqlLimits
    address_space_bytes: int
    heap_bytes: int
    open_files: int

    def prepare(self) -> None:
        """Do what the next query needs and does not depend on it; called before each."""

    def run(self, request: dict[str, Any]) -> Answer:
        """Run one query.

        Raises:
            QueryFailure: It was refused, passed a limit, or a shard could not be read.
        """


def serve(engine: Engine) -> None:
    """Answer requests until standard input ends."""
    limit_process(
        address_space_bytes=engine.limits.memory_bytes + engine.address_space_bytes,
        heap_bytes=engine.limits.memory_bytes + engine.heap_bytes,
        open_files=engine.open_files,
    )
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    engine.prepare()
    answers.write(encode_message(READY))
    answers.flush()
    while (message := read_message(requests)) is not None:
        head, rows = _answer(engine, message[0])
        answers.write(encode_message(head, rows))
        answers.flush()
        if head.get("exiting", False):
            break
        engine.prepare()


def _answer(engine: Engine, request: dict[str, Any]) -> Answer:
    try:
        return engine.run(request)
    except QueryFailure as failure:
        return {"code": failure.code, "message": str(failure), "exiting": failure.exiting}, b""
    except MemoryError:
        # What Python and the engine still hold after this is anyone's guess: the next query gets a new process.
        return {"code": "query_limit", "message": out_of_memory(engine.limits), "exiting": True}, b""
    except Exception as error:
        # Engines have values that Python has no room for: what the caller is told is better than a dead process.
        message = f"this query's result cannot be given: {type(error).__name__}: {error}"
        return {"code": "query_refused", "message": message[:MAX_MESSAGE_CHARACTERS], "exiting": True}, b""


def rows_answer(columns: list[str], rows: list[str], *, truncated: bool) -> Answer:
    """The answer that carries rows, each a JSON array."""
    head = {"columns": columns, "row_count": len(rows), "truncated": truncated}
    return head, f"[{','.join(rows)}]".encode()


def bound_parameters(parameters: Any) -> Any:  # noqa: ANN401 - JSON
    """Parameters as an engine takes them; `{"base64": "…"}` stands for a blob, as in results."""
    if isinstance(parameters, dict):
        return {name: _bound_value(value) for name, value in parameters.items()}
    return [_bound_value(value) for value in parameters]


def collect(
    cursor: Iterable[Row], max_rows: int, max_bytes: int, deadline: float, seconds: float
) -> tuple[list[str], bool]:
    """Rows as JSON arrays, and whether more would have followed.

    Raises:
        QueryFailure: Time is up, or one row alone is larger than `max_bytes`.
    """
    rows: list[str] = []
    size = 0
    for row in cursor:
        if len(rows) == max_rows:
            return rows, True
        encoded = encode_row(row, max_bytes)
        size += len(encoded.encode()) + 1
        if size > max_bytes:
            if rows:
                return rows, True
            raise row_too_large(max_bytes)
        if time.monotonic() > deadline:
            raise QueryFailure("query_limit", out_of_time(seconds))
        rows.append(encoded)
    return rows, False


def _bound_value(value: Any) -> Any:  # noqa: ANN401 - JSON
    return base64.b64decode(value["base64"]) if isinstance(value, dict) else value
