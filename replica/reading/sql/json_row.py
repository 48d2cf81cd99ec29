"""One row of a result as JSON, within a bound; what JSON has no word for is written as its nearest."""

from __future__ import annotations

import base64
import json
from decimal import Decimal
from typing import Any

from replica.reading.sql.failure import QueryFailure

MAX_LEVELS = 50
"""Of lists, structs and maps within each other, in one cell."""
MARKS_BYTES = 2
"""What each value takes at least: one character, and a comma or bracket."""

Row = tuple[Any, ...]

_FLAT = frozenset({type(None), bool, int, str})
_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"))


def encode_row(row: Row, max_bytes: int) -> str:
    """A row as a JSON array.

    Infinities and NaN become null, blobs `{"base64": "…"}`, decimals numbers, maps objects with their keys as text,
    and dates, times and the like texts. The row is measured before it is encoded, so that the text is never larger
    than the worst escapes make of `max_bytes`, six times that.

    Raises:
        QueryFailure: The row is larger than `max_bytes`, or nested more than 50 levels deep.
    """
    if _FLAT.issuperset(map(type, row)):
        if sum(len(value) for value in row if isinstance(value, str)) > max_bytes:
            raise row_too_large(max_bytes)
        return _JSON.encode(row)
    return _JSON.encode(_Measured(max_bytes).plain(row, 0))


def row_too_large(max_bytes: int) -> QueryFailure:
    """What a caller is told one row of whose result alone passes the limit."""
    return QueryFailure("query_limit", f"one row is larger than {max_bytes} bytes as JSON")


class _Measured:
    """Turns values into what JSON has, as long as they take no more than so many bytes together."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._left = max_bytes

    def plain(self, value: Any, level: int) -> Any:  # noqa: ANN401 - whatever a column holds
        self._take(MARKS_BYTES)
        if level > MAX_LEVELS:
            raise QueryFailure("query_refused", f"a value is nested more than {MAX_LEVELS} levels deep")
        match value:
            case list() | tuple():
                return [self.plain(item, level + 1) for item in value]
            case dict():
                return {self._key(key): self.plain(item, level + 1) for key, item in value.items()}
            case bytes():
                return {"base64": self._text(value)}
            case str():
                return self._text(value)
        return _plain_number(value)

    def _key(self, key: Any) -> str:  # noqa: ANN401 - whatever a map's key may be
        return self._text(str(key).lower() if isinstance(key, bool) else key)

    def _text(self, value: Any) -> str:  # noqa: ANN401 - whatever has a text
        if isinstance(value, bytes):
            self._take(len(value))
            return base64.b64encode(value).decode()
        text = str(value)
        self._take(len(text))
        return text

    def _take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise row_too_large(self._max_bytes)


def _plain_number(value: Any) -> Any:  # noqa: ANN401 - whatever is no text and has no parts
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if abs(value) < float("inf") else None
        case Decimal():
            return float(value)
    return str(value)
