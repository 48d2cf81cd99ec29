"""A result as a table on the page. Cells are hostile: they are made visible, cut short and escaped. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeGuard

import orjson
from markupsafe import Markup

from ops.dashboard.transcript.visible import one_line

SHOWN_ROWS = 500
SHOWN_CHARACTERS = 300
SHORT = 40
"""Characters that stay on one line."""


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a cell is one; truth values are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_blob(value: object) -> TypeGuard[dict[str, str]]:
    """Whether a cell is a blob, as nodes write them."""
    return isinstance(value, dict) and value.keys() == {"base64"} and isinstance(value["base64"], str)


def text_of(value: object) -> str:
    """A cell as text, whole: numbers as JSON has them, what is nested as JSON, nothing for null."""
    match value:
        case None:
            return ""
        case str():
            return value
        case _ if is_blob(value):
            return value["base64"]
        case _:
            return orjson.dumps(value).decode()


def result_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Markup:
    """The first rows as HTML."""
    heads = Markup("").join(
        Markup("<th{}><bdi>{}</bdi></th>").format(_number_class(_numeric(rows, place)), one_line(column, 60))
        for place, column in enumerate(columns)
    )
    body = Markup("").join(
        Markup('<tr><th scope="row" class="number muted">{}</th>{}</tr>').format(number, _cells(row))
        for number, row in enumerate(rows[:SHOWN_ROWS], 1)
    )
    return Markup(
        '<table class="table result"><thead><tr><th class="number">#</th>{}</tr></thead><tbody>{}</tbody></table>'
    ).format(heads, body)


def _cells(row: Iterable[object]) -> Markup:
    return Markup("").join(_cell(value) for value in row)


def _cell(value: object) -> Markup:
    if value is None:
        return Markup('<td class="null">null</td>')
    shown = one_line(text_of(value), SHOWN_CHARACTERS)
    if is_number(value):
        return Markup('<td class="number">{}</td>').format(shown)
    return Markup('<td class="{}"><bdi>{}</bdi></td>').format("short" if len(shown) <= SHORT else "long", shown)


def _number_class(numeric: bool) -> Markup:
    return Markup(' class="number"') if numeric else Markup("")


def _numeric(rows: Sequence[Sequence[Any]], place: int) -> bool:
    first = next((row[place] for row in rows[:SHOWN_ROWS] if row[place] is not None), None)
    return is_number(first)


def numeric_columns(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """The columns that hold numbers, judged by their first value."""
    return [column for place, column in enumerate(columns) if _numeric(rows, place)]
