"""A result as a file.

CSV is opened by spreadsheets, which take a text that begins with `=`, `+`, `-`, `@`, a tab or a carriage return for
a formula and run it. Transcripts hold such texts, so CSV puts an apostrophe before each, as OWASP advises; numbers
stay numbers, negative ones too. JSON and Parquet hold every value as it is.
"""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import orjson

from ops.dashboard.sql.result import is_blob, is_number, text_of

FORMULA_BEGINNINGS = ("=", "+", "-", "@", "\t", "\r")
MAX_BIGINT = (1 << 63) - 1


def harmless(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(FORMULA_BEGINNINGS) else text


def to_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """RFC 4180, in UTF-8 with a byte order mark, by which spreadsheets know it."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow([harmless(column) for column in columns])
    writer.writerows([value if is_number(value) else harmless(text_of(value)) for value in row] for row in rows)
    return file.getvalue().encode("utf-8-sig", errors="replace")


def to_json(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """An array of objects, one for each row; columns of one name are told apart by a number."""
    names = distinct(columns)
    return orjson.dumps(
        [dict(zip(names, row, strict=True)) for row in rows],
        option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_INDENT_2,
    )


def to_parquet(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    """Whole numbers as BIGINT, others as DOUBLE, truth values, blobs, and everything else as text."""
    types = [_type([row[place] for row in rows]) for place in range(len(columns))]
    names = [f"c{place}" for place in range(len(columns))]
    declared = ", ".join(
        f"{name}: '{'VARCHAR' if kind == 'BLOB' else kind}'" for name, kind in zip(names, types, strict=True)
    )
    selected = ", ".join(
        f"{f'from_base64({name})' if kind == 'BLOB' else name} AS {_quoted(column)}"
        for name, kind, column in zip(names, types, distinct(columns), strict=True)
    )
    with tempfile.TemporaryDirectory(prefix="headwater-parquet-") as folder, duckdb.connect() as connection:
        source, target = Path(folder) / "rows.json", Path(folder) / "rows.parquet"
        source.write_bytes(b"\n".join(_line(names, types, row) for row in rows))
        connection.execute("SET threads = 1")
        connection.execute(
            f"COPY (SELECT {selected} FROM read_json($source, format = 'newline_delimited', "  # noqa: S608 - quoted
            f"columns = {{{declared}}}, maximum_object_size = 33554432)) TO '{target}' (FORMAT parquet)",
            {"source": str(source)},
        )
        return target.read_bytes()


def distinct(columns: Sequence[str]) -> list[str]:
    """The columns' names, each once: a repeated one gets a number."""
    names: list[str] = []
    taken: set[str] = set()
    for column in columns:
        name, number = column or "column", 2
        while name.casefold() in taken:
            name, number = f"{column or 'column'}_{number}", number + 1
        taken.add(name.casefold())
        names.append(name)
    return names


def _line(names: Sequence[str], types: Sequence[str], row: Sequence[Any]) -> bytes:
    cells = zip(names, types, row, strict=True)
    return orjson.dumps(
        {name: text_of(value) if kind in {"VARCHAR", "BLOB"} and value is not None else value
         for name, kind, value in cells}
    )  # fmt: skip


def _type(values: Iterable[object]) -> str:
    present = [value for value in values if value is not None]
    if not present:
        return "VARCHAR"
    if all(isinstance(value, bool) for value in present):
        return "BOOLEAN"
    if all(is_number(value) for value in present):
        whole = all(isinstance(value, int) and abs(value) <= MAX_BIGINT for value in present)
        return "BIGINT" if whole else "DOUBLE"
    return "BLOB" if all(map(is_blob, present)) else "VARCHAR"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""').replace("\x00", "") + '"'
