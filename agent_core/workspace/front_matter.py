"""The YAML front matter of a document, from a hostile file.

Aliases are refused: a few lines of them stand for gigabytes once they are followed. So is deep nesting, before
anything is built of it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import date
from typing import Any

import yaml
from frontmatter.default_handlers import YAMLHandler

from agent_core.workspace.document import MAX_FRONT_MATTER_BYTES, Property

MAX_DEPTH = 16
_MAX_INTEGER = 2**63

_OPENING = (yaml.MappingStartEvent, yaml.SequenceStartEvent)
_CLOSING = (yaml.MappingEndEvent, yaml.SequenceEndEvent)

JsonObject = dict[str, Any]
"""What JSON can hold: text without lone surrogates and NUL, finite numbers of 64 bits, no other types."""


class BrokenFrontMatter(Exception):
    """Front matter that says nothing.

    Attributes:
        line: Of the file, from 1.
        body: The text behind it.
    """

    def __init__(self, line: int, reason: str, body: str) -> None:
        super().__init__(reason)
        self.line = line
        self.body = body


def split_front_matter(text: str) -> tuple[JsonObject, str]:
    """The front matter of a file's text, and the text behind it; both as they are when there is none.

    Raises:
        BrokenFrontMatter: It is not YAML, no mapping, or passes a limit.
    """
    handler = YAMLHandler()
    boundary = None if handler.FM_BOUNDARY is None else handler.FM_BOUNDARY.match(text)
    if boundary is None:
        return {}, text
    try:
        source, body = handler.split(text)
    except ValueError:  # one line of dashes alone is a rule across the page
        return {}, text
    first_line = 1 + text.count("\n", 0, boundary.end())
    try:
        _check_events(source)
        values = handler.load(source, Loader=_Loader)
    except (yaml.YAMLError, _Refused) as error:
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        raise BrokenFrontMatter(first_line + _line(error, source), f"front matter: {reason}", body) from error
    if values is None:
        return {}, body
    if not isinstance(values, dict):
        raise BrokenFrontMatter(first_line, "front matter: it is no mapping of names to values", body)
    return {_text(name): _json(value) for name, value in values.items()}, body


def properties_of(values: JsonObject, prefix: str = "") -> Iterator[Property]:
    """The values as filters know them: `a: {b: [1, 2]}` makes `a.b` 1 and `a.b` 2; null is the empty text."""
    for name, value in values.items():
        yield from _flat(f"{prefix}{name}", value)


def scalar_text(value: object) -> str | None:
    """A JSON value as text; None for a list or an object."""
    return None if isinstance(value, (dict, list)) else _text(value)


class _Refused(Exception):
    """Carries a place as the errors of yaml do."""

    def __init__(self, reason: str, problem_mark: Any = None) -> None:  # noqa: ANN401 - one of two types of yaml
        super().__init__(reason)
        self.problem_mark = problem_mark


class _Loader(yaml.CSafeLoader):
    """Names the place of values that look like a date or a number and are none, too."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: ANN401 - as in yaml
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError) as error:
            raise _Refused(str(error), node.start_mark) from error


def _check_events(source: str) -> None:
    size = len(source.encode())
    if size > MAX_FRONT_MATTER_BYTES:
        raise _Refused(f"it has {size} bytes; at most {MAX_FRONT_MATTER_BYTES} are allowed")
    depth = 0
    for event in yaml.parse(source, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise _Refused(f"the alias *{event.anchor} is not allowed: write the value out", event.start_mark)
        depth += isinstance(event, _OPENING) - isinstance(event, _CLOSING)
        if depth > MAX_DEPTH:
            raise _Refused(f"it nests deeper than {MAX_DEPTH} levels", event.start_mark)


def _line(error: Exception, source: str) -> int:
    """Where in the front matter an error is, in lines from 0."""
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        return int(mark.line)
    position = getattr(error, "position", None)
    return 0 if position is None else source.encode()[:position].count(b"\n")


def _flat(name: str, value: object) -> Iterator[Property]:
    match value:
        case dict():
            yield from properties_of(value, f"{name}.")
        case list():
            for item in value:
                yield from _flat(name, item)
        case _:
            yield Property(name, _text(value))


def _json(value: object) -> Any:  # noqa: ANN401 - a JSON value
    match value:
        case dict():
            return {_text(name): _json(item) for name, item in value.items()}
        case list() | tuple():
            return [_json(item) for item in value]
        case set():
            return sorted(_text(item) for item in value)
    is_number = isinstance(value, int | float) and abs(value) < _MAX_INTEGER  # neither infinity nor NaN is
    return value if value is None or is_number else _text(value)


def _text(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case bytes():
            return base64.b64encode(value).decode()
        case date():
            return value.isoformat()
    text = str(value)
    if "\0" in text or not text.isascii():
        # What can be neither stored nor sent: NUL, and halves of characters that escapes in YAML may leave.
        text = text.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
