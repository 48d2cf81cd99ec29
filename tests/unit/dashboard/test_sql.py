"""The SQL page without a browser: the address, tables, charts and files."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.dashboard.sql import export
from ops.dashboard.sql.chart import MAX_POINTS, chosen_columns, result_chart
from ops.dashboard.sql.request import MAX_SQL_CHARACTERS, SqlRequest
from ops.dashboard.sql.result import SHOWN_ROWS, result_table

HOSTILE = [
    "<script>window.hacked=1</script>",
    '<img src=x onerror="window.hacked=1">',
    '"><svg onload=alert(1)>',
    "javascript:alert(1)",
    "{{constructor.constructor('alert(1)')()}}",
    "\u202egnp.exe\x1b[2J\x00",
]
CELLS = st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | st.floats(allow_nan=False) | st.text()


def query_of(address: str) -> dict[str, str]:
    from urllib.parse import parse_qsl, urlsplit

    return dict(parse_qsl(urlsplit(address).query, keep_blank_values=True))


def read_csv(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))


def read_parquet(content: bytes, folder: Path) -> tuple[list[tuple[str, str]], list[tuple[Any, ...]]]:
    file = folder / "rows.parquet"
    file.write_bytes(content)
    with duckdb.connect() as connection:
        found = connection.execute("SELECT * FROM read_parquet($file)", {"file": str(file)})
        assert found.description is not None
        return [(column[0], str(column[1])) for column in found.description], found.fetchall()


def test_a_request_is_shared_by_its_address() -> None:
    request = SqlRequest("SELECT 'a&b=c'\n-- é", rows=10_000, seconds=30, view="chart", kind="line", x="a", y="b")
    assert SqlRequest.of(query_of(request.address)) == request
    assert SqlRequest().address == "/sql"
    assert SqlRequest("SELECT 1").address == "/sql?sql=SELECT+1"


@given(st.dictionaries(st.sampled_from(["sql", "rows", "seconds", "view", "kind", "x", "y"]), st.text()))
def test_any_address_makes_a_request_that_is_allowed(query: dict[str, str]) -> None:
    request = SqlRequest.of(query)
    assert SqlRequest.of(query_of(request.address)) == request
    assert len(request.sql) <= MAX_SQL_CHARACTERS
    assert request.body["max_rows"] in {1000, 10_000, 100_000}


@pytest.mark.parametrize("hostile", HOSTILE)
def test_nothing_in_a_result_becomes_html_or_stays_hidden(hostile: str) -> None:
    html = str(result_table([hostile], [[hostile], [{hostile: [hostile]}]]))
    text = html
    for tag in ("table", "thead", "tbody", "tr", "th", "td", "bdi"):
        text = text.replace(f"</{tag}>", "").replace(f"<{tag}>", "")
    for attribute in (' class="table result"', ' class="number"', ' class="short"', ' class="long"'):
        for tag in ("table", "th", "td"):
            text = text.replace(f"<{tag}{attribute}>", "")
    text = text.replace('<th scope="row" class="number muted">', "")
    assert "<" not in text
    assert not any(hidden in html for hidden in "\u202e\x1b\x00")


def test_a_table_shows_numbers_nulls_and_blobs_and_no_more_rows_than_fit() -> None:
    html = str(result_table(["n", "blob"], [[12345678901234567, None], [0.5, {"base64": "AAE="}]]))
    assert '<td class="number">12345678901234567</td><td class="null">null</td>' in html
    assert "AAE=" in html
    assert str(result_table(["n"], [[number] for number in range(2 * SHOWN_ROWS)])).count("<tr>") == SHOWN_ROWS + 1


def test_a_chart_takes_the_first_names_along_and_the_first_numbers_upwards() -> None:
    columns, rows = ["id", "day", "calls"], [[1, "2026-01-01", 5], [2, "2026-01-02", None]]
    assert chosen_columns(columns, rows, "", "") == ("day", "id")
    assert chosen_columns(columns, rows, "id", "calls") == ("id", "calls")
    assert chosen_columns(columns, rows, "gone", "day") == ("day", "id")
    assert chosen_columns(["a"], [["x"]], "", "") is None
    drawn = result_chart(columns, rows, kind="bar", x="day", y="calls")
    assert drawn["series"][0]["data"] == [["2026-01-01", 5], ["2026-01-02", None]]
    assert drawn["xAxis"]["type"] == "category"
    assert drawn["xAxis"]["axisLabel"]["rotate"] > 0, "so that there is room for names"
    assert result_chart(columns, rows, kind="line", x="id", y="calls")["xAxis"]["type"] == "value"
    many = result_chart(["n"], [[number] for number in range(2 * MAX_POINTS)], kind="line", x="n", y="n")
    assert len(many["series"][0]["data"]) == MAX_POINTS


def test_a_result_puts_no_key_into_a_chart_and_tooltips_are_no_html() -> None:
    hostile = ":formatter"
    drawn = result_chart([hostile, "y"], [[hostile, 1]], kind="bar", x=hostile, y="y")

    def keys(value: object) -> set[str]:
        match value:
            case dict():
                return set(value) | {key for inner in value.values() for key in keys(inner)}
            case list():
                return {key for inner in value for key in keys(inner)}
        return set()

    assert not any(key.startswith(":") for key in keys(drawn))
    assert drawn["tooltip"]["renderMode"] == "richText"


@pytest.mark.parametrize("beginning", ["=", "+", "-", "@", "\t", "\r"])
def test_a_text_that_a_spreadsheet_would_run_gets_an_apostrophe_and_a_number_stays_one(beginning: str) -> None:
    text = f"{beginning}cmd|' /C calc'!A0"
    head, row = read_csv(export.to_csv([text, "n", "m"], [[text, -5, -0.5]]))
    assert head[0] == f"'{text}"
    assert row == [f"'{text}", "-5", "-0.5"]


@given(st.lists(st.lists(CELLS, min_size=3, max_size=3), max_size=5))
def test_no_text_of_a_csv_file_begins_a_formula(rows: list[list[Any]]) -> None:
    read = read_csv(export.to_csv(["a", "b", "c"], rows))
    assert len(read) == len(rows) + 1
    for row, cells in zip(rows, read[1:], strict=True):
        for value, cell in zip(row, cells, strict=True):
            assert isinstance(value, int | float) or not cell.startswith(("=", "+", "-", "@", "\t", "\r"))


def test_json_keeps_every_value_and_tells_columns_of_one_name_apart() -> None:
    content = export.to_json(["a", "a", ""], [["=1", 12345678901234567, None]])
    assert orjson.loads(content) == [{"a": "=1", "a_2": 12345678901234567, "column": None}]
    assert json.loads(content) == orjson.loads(content)


def test_parquet_has_types_and_every_value(tmp_path: Path) -> None:
    columns = ['say "hi"', "whole", "part", "yes", "blob", "mixed", "nothing", "WHOLE"]
    rows: list[list[Any]] = [
        ["=1\n'é", 1 << 62, 1, True, {"base64": "AAE="}, {"a": [1]}, None, "x"],
        [None, -1, 0.5, None, None, 7, None, "y"],
    ]
    types, read = read_parquet(export.to_parquet(columns, rows), tmp_path)
    assert types == [
        ('say "hi"', "VARCHAR"),
        ("whole", "BIGINT"),
        ("part", "DOUBLE"),
        ("yes", "BOOLEAN"),
        ("blob", "BLOB"),
        ("mixed", "VARCHAR"),
        ("nothing", "VARCHAR"),
        ("WHOLE_2", "VARCHAR"),
    ]
    assert read == [
        ("=1\n'é", 1 << 62, 1.0, True, b"\x00\x01", '{"a":[1]}', None, "x"),
        (None, -1, 0.5, None, None, "7", None, "y"),
    ]


def test_an_empty_result_is_a_file_too(tmp_path: Path) -> None:
    assert read_csv(export.to_csv(["a"], [])) == [["a"]]
    assert orjson.loads(export.to_json(["a"], [])) == []
    assert read_parquet(export.to_parquet(["a"], []), tmp_path) == ([("a", "VARCHAR")], [])
