"""What is wrong with a configuration, in sentences: the key, its value, where it came from, what is allowed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ops.settings import RELATION_ERROR, NodeConfiguration

Location = tuple[int | str, ...]

MAX_SHOWN = 120
"""Characters of a wrong value that are shown."""

_NUMBERS = {"integer": "a whole number", "number": "a number"}
_OTHERS = {"boolean": "true or false", "path": "a path", "string": "text", "object": "a table"}
_SCHEMA = NodeConfiguration.model_json_schema()


class InvalidConfiguration(ValueError):
    """The configuration cannot be used; `problems` are sentences, every problem that was found."""

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        self.source = source
        self.problems = tuple(problems)
        super().__init__("\n  ".join([f"{source} cannot be used:", *self.problems]))


class Layer(NamedTuple):
    """Settings from one place, as they came, and the place's name for messages."""

    origin: str
    values: Mapping[str, Any]

    def holds(self, location: Location) -> bool:
        """Whether this layer says something at a key."""
        value: Any = self.values
        try:
            for part in location:
                value = value[part]
        except (KeyError, IndexError, TypeError):
            return False
        return True


def written(location: Location) -> str:
    """A key as people write it: `limits.entry_bytes`, `nodes[1].grpc`."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def sentences(error: ValidationError, layers: Sequence[Layer]) -> list[str]:
    """One sentence for each problem; `layers` from the weakest to the strongest."""
    return [sentence for details in error.errors(include_url=False) for sentence in _sentences(details, layers)]


def _sentences(details: ErrorDetails, layers: Sequence[Layer]) -> Iterator[str]:
    location: Location = details["loc"]
    if details["type"] == RELATION_ERROR:
        yield from details["ctx"]["problems"]
    elif details["type"] == "missing":
        yield f"{written(location)} is missing; allowed is {allowed(location) or 'any value'}"
    elif details["type"] == "extra_forbidden":
        yield f"{written(location)} is not a setting{_origin(location, layers)}; {_siblings(location)}"
    elif location[-1] == "[key]":
        key = location[:-1]
        yield f"{written(key)} is not a key here{_origin(key, layers)}; {_lowered(details['msg'])}"
    else:
        expected = allowed(location)
        rule = f"allowed is {expected}" if expected else _lowered(details["msg"])
        yield f"{written(location)} is {_shown(details['input'])}{_origin(location, layers)}; {rule}"


def allowed(location: Location) -> str | None:
    """What a key may be, in words; None where the schema does not say."""
    schema = _schema_at(location)
    if schema is None:
        return None
    if "enum" in schema:
        return " or ".join(str(choice) for choice in schema["enum"])
    kind = schema["type"]
    if kind in _NUMBERS:
        return _bounded(_NUMBERS[kind], schema)
    if kind == "array":
        return f"an array of 1 to {schema['maxItems']} tables"
    return _OTHERS[schema.get("format", kind)]


def _bounded(noun: str, schema: Mapping[str, Any]) -> str:
    if "exclusiveMinimum" in schema:
        return f"{noun} above {schema['exclusiveMinimum']:g} up to {schema['maximum']:g}"
    return f"{noun} from {schema['minimum']} to {schema['maximum']}"


def _schema_at(location: Location) -> Mapping[str, Any] | None:
    schema: Mapping[str, Any] | None = _SCHEMA
    for part in location:
        assert schema is not None
        inner = schema.get("properties", {}).get(part)
        schema = schema["items"] if isinstance(part, int) else inner
        if schema is None:
            return None
        if "$ref" in schema:
            schema = _SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
    return schema


def _siblings(location: Location) -> str:
    parent = _schema_at(location[:-1])
    names = list(parent.get("properties", {})) if parent is not None else []
    unknown = str(location[-1])
    for close in get_close_matches(unknown, names, n=1):
        return f"did you mean {written((*location[:-1], close))}?"
    return f"allowed are {', '.join(names)}"


def _origin(location: Location, layers: Sequence[Layer]) -> str:
    for layer in reversed(layers):
        if layer.holds(location):
            return f" ({layer.origin})"
    return ""


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"


def _lowered(message: str) -> str:
    return message[:1].lower() + message[1:]
