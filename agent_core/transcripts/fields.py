"""Reading single fields of a record from outside: the wrong type reads as absent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

TITLE_CHARACTERS = 80
NAME_CHARACTERS = 256

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR_10000_MS = 253_402_300_800_000
_SECONDS_END = 100_000_000_000
"""A number below stands for seconds (until the year 5138), one from here on for milliseconds (from 1973)."""


def string(record: Mapping[str, object], *names: str) -> str:
    """The first of the named fields that is a string with something in it; else an empty one."""
    for name in names:
        value = record.get(name)
        if isinstance(value, str) and value:
            return value
    return ""


def mapping(record: Mapping[str, object], name: str) -> Mapping[str, object]:
    """The named field if it is an object; else an empty one."""
    value = record.get(name)
    return value if isinstance(value, dict) else {}


def one_line(value: str, characters: int = NAME_CHARACTERS) -> str:
    """Text for a list: white space collapsed, control characters dropped, cut with an ellipsis."""
    # A long text is cut first: what lies far behind the limit cannot show.
    words = " ".join(value[: characters * 20].split())
    printable = "".join(character for character in words if character.isprintable())
    return printable if len(printable) <= characters else f"{printable[: characters - 1].rstrip()}…"


def title(value: str) -> str:
    """Text as a session's title."""
    return one_line(value, TITLE_CHARACTERS)


def last_component(path: str) -> str:
    """The last component of a path of any system."""
    components = [component for component in re.split(r"[/\\]", path[-4096:]) if component]
    return one_line(components[-1]) if components else ""


def timestamp_ms(record: Mapping[str, object], *names: str) -> int:
    """The first of the named fields that is a time, as Unix milliseconds; 0 when there is none.

    A time is ISO 8601 (UTC unless it says otherwise) or a number of seconds or milliseconds since 1970.
    """
    for name in names:
        value = record.get(name)
        milliseconds = 0
        if isinstance(value, str) and len(value) <= 64:
            milliseconds = _iso_8601_ms(value)
        elif isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            milliseconds = int(value * 1000 if value < _SECONDS_END else value)
        if 0 < milliseconds < _YEAR_10000_MS:
            return milliseconds
    return 0


def _iso_8601_ms(value: str) -> int:
    try:
        moment = datetime.fromisoformat(value.strip())
        return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // timedelta(milliseconds=1)
    except (ValueError, OverflowError):
        return 0
