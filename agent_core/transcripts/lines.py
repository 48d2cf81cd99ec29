"""JSON Lines from a hostile file: one record at a time, whatever the file's size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import orjson

from agent_core.transcripts.imported import MAX_DEPTH, MAX_LINE_BYTES

_JSON_TYPES = {list: "an array", str: "a string", int: "a number", float: "a number", bool: "a boolean"}

BYTE_ORDER_MARK = b"\xef\xbb\xbf"

Record = dict[str, object]
"""A JSON object from outside: nothing is known of it but that its nesting is within `MAX_DEPTH`."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line that holds a record.

    Attributes:
        number: From 1.
        raw: The record as it came, without white space around it.
        record: The same, parsed.
    """

    number: int
    raw: bytes
    record: Record


@dataclass(frozen=True, slots=True)
class DamagedLine:
    """A line that holds none, and why."""

    number: int
    reason: str


class NotARecord(ValueError):
    """The bytes are not one JSON object within the bounds; the message says why."""


def read_lines(stream: BinaryIO) -> Iterator[Line | DamagedLine]:
    """The lines from the start of the file, blank ones passed over."""
    stream.seek(0)
    number = 0
    while chunk := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(chunk) > MAX_LINE_BYTES and not chunk.endswith(b"\n"):
            _pass_over_rest(stream)
            yield DamagedLine(number, f"longer than {MAX_LINE_BYTES} bytes")
            continue
        raw = chunk.removeprefix(BYTE_ORDER_MARK).strip() if number == 1 else chunk.strip()
        if not raw:
            continue
        try:
            yield Line(number, raw, parse_record(raw))
        except NotARecord as problem:
            yield DamagedLine(number, str(problem))


def parse_record(raw: bytes) -> Record:
    """Parse one JSON object.

    Raises:
        NotARecord: It is not UTF-8, not JSON, not an object, or nested too deeply.
    """
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise NotARecord(_why_not_json(raw, error)) from None
    if not isinstance(value, dict):
        raise NotARecord(f"not a JSON object but {_JSON_TYPES.get(type(value), 'null')}")
    # Each level takes an opening bracket, so nearly every record is cleared by counting them.
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH and not is_within_depth(value):
        raise NotARecord(f"nested more than {MAX_DEPTH} levels deep")
    return value


def is_within_depth(value: object, depth: int = MAX_DEPTH) -> bool:
    """Whether a JSON value has at most so many levels of objects and arrays."""
    level = [value]
    for _ in range(depth + 1):
        level = [child for container in level for child in _children(container)]
        if not level:
            return True
    return False


def _children(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _why_not_json(raw: bytes, error: orjson.JSONDecodeError) -> str:
    try:
        raw.decode()
    except UnicodeDecodeError as encoding:
        return f"not UTF-8 at byte {encoding.start + 1} of the line"
    return f"not JSON at character {error.pos + 1} of the line: {error.msg.partition(': line')[0]}"


def _pass_over_rest(stream: BinaryIO) -> None:
    while (chunk := stream.readline(1 << 20)) and not chunk.endswith(b"\n"):
        pass
