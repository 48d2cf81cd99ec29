"""The checks that a query from outside must pass before a worker process sees it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from agent_core.errors import InvalidRequest, QueryLimit, QueryRefused
from replica.reading.sql.limits import MAX_PARAMETERS, MAX_PARAMETERS_BYTES, MAX_SQL_BYTES, SqlLimits
from replica.reading.sql.messages import encode_message


def encode_request(
    paths: Sequence[Path], sql: str, parameters_json: bytes, *, max_rows: int, seconds: float, limits: SqlLimits
) -> bytes:
    """The message that asks a worker to run a query within `limits`; the rest is as in `SqlWorkers.query`.

    Raises:
        InvalidRequest: An argument is out of range or not what it must be.
        QueryLimit: The statement or its parameters are too large.
        QueryRefused: The statement cannot be one.
    """
    if not 1 <= max_rows <= limits.rows:
        raise InvalidRequest(f"max_rows is {max_rows}; allowed are 1 to {limits.rows}")
    if not 0 < seconds <= limits.seconds:
        raise InvalidRequest(
            f"the time limit is {seconds:g} s; allowed are more than 0 and at most {limits.seconds:g} s"
        )
    _check_sql(sql)
    return encode_message(
        {
            "paths": [str(path) for path in paths],
            "sql": sql,
            "parameters": _parameters(parameters_json),
            "max_rows": max_rows,
            "seconds": seconds,
        }
    )


def _check_sql(sql: str) -> None:
    try:
        size = len(sql.encode())
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"sql is not valid Unicode: {error}") from error
    if size > MAX_SQL_BYTES:
        raise QueryLimit(f"sql is {size} bytes long; allowed are {MAX_SQL_BYTES}")
    if not sql.strip():
        raise InvalidRequest("sql is empty; write one SELECT statement")
    if "\0" in sql:
        raise QueryRefused("sql contains a NUL character")


def _parameters(parameters_json: bytes) -> list[Any] | dict[str, Any]:
    if not parameters_json:
        return []
    if len(parameters_json) > MAX_PARAMETERS_BYTES:
        raise QueryLimit(f"parameters are {len(parameters_json)} bytes long; allowed are {MAX_PARAMETERS_BYTES}")
    try:
        parameters = orjson.loads(parameters_json)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"parameters are not JSON: {error}") from error
    if not isinstance(parameters, dict | list):
        raise InvalidRequest("parameters must be a JSON array or object")
    if len(parameters) > MAX_PARAMETERS:
        raise QueryLimit(f"there are {len(parameters)} parameters; allowed are {MAX_PARAMETERS}")
    named = parameters.items() if isinstance(parameters, dict) else enumerate(parameters, start=1)
    for name, value in named:
        _check_parameter(name, value)
    return parameters


def _check_parameter(name: str | int, value: Any) -> None:  # noqa: ANN401 - JSON
    match value:
        case None | bool() | int() | float() | str():
            return
        case {"base64": str(text), **others} if not others:
            try:
                base64.b64decode(text, validate=True)
            except ValueError as error:
                raise InvalidRequest(f"parameter {name} is not base64: {error}") from error
            return
    raise InvalidRequest(
        f"parameter {name} is a JSON {'array' if isinstance(value, list) else 'object'}; allowed are null, "
        'booleans, numbers, texts and {"base64": "…"}'
    )
