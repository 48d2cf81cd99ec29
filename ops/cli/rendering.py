"""A transcript's entries as lines: for eyes, harmless to the terminal, or for a machine. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson

from agent_core.client import Entry
from ops.cli.plain_text import plain


def json_line(entry: Entry) -> bytes:
    """An entry as one line of JSON; the payload keeps its text, so that no digit of it is lost."""
    payload = entry.payload
    if b"\n" in payload or b"\r" in payload:
        payload = orjson.dumps(orjson.loads(payload))
    head = {"seq": entry.seq, "kind": entry.kind, "created_at_ms": entry.created_at_ms}
    return orjson.dumps({**head, "payload": orjson.Fragment(payload)})


def heading(entry: Entry) -> str:
    """Who said it and when, for example `#3 message tool_result Edit, an error 2026-11-24 08:59:47`."""
    said = [f"#{entry.seq}", entry.kind]
    document = _document(entry)
    if isinstance(document, dict):
        said += [_string(document, name) for name in ("role", "customType", "toolName", "phase")]
    line = " ".join(word for word in said if word)
    if isinstance(document, dict) and document.get("isError") is True:
        line += ", an error"
    return " ".join(plain(f"{line} {moment(entry.created_at_ms)}").split())


def body(entry: Entry) -> str:
    """What it says: its content or summary, else all of it as JSON; what is nested very deeply, as appended."""
    document = _document(entry)
    said = document
    if isinstance(document, dict):
        said = next((document[name] for name in ("content", "summary") if name in document), document)
    try:
        return plain(_readable(said))
    except (RecursionError, orjson.JSONEncodeError):
        # Nested deeper than can be taken apart or written anew, though not deeper than may be appended.
        return plain(entry.payload.decode(errors="replace"))


def counted(count: int, one: str, many: str = "") -> str:
    """A number with its noun: "1 file", "2 files", "0 entries".

    Args:
        count: How many.
        one: The noun in the singular …
        many: … and in the plural, where that is not the singular with an s.
    """
    return f"{count} {one if count == 1 else many or one + 's'}"


def moment(milliseconds: int) -> str:
    """A time as people read it, in UTC; empty for none, the number itself for one past the calendar."""
    if not milliseconds:
        return ""
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return str(milliseconds)


def _document(entry: Entry) -> Any:  # noqa: ANN401 - whatever JSON value was appended
    try:
        return entry.document()
    except ValueError:
        return entry.payload.decode(errors="replace")


def _readable(content: object) -> str:
    """Blocks one below the other, tool calls with their arguments."""
    match content:
        case str():
            return content
        case list():
            return "\n".join(map(_readable, content))
        case {"type": "tool_call", "name": str(name), "arguments": arguments}:
            return f"→ {name} {_json(arguments)}"
        case {"type": "reasoning", "text": str(text)}:
            return f"(reasoning) {text}"
        case {"text": str(text)}:
            return text
        case _:
            return _json(content)


def _json(value: object) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def _string(document: dict[str, Any], name: str) -> str:
    value = document.get(name)
    return value if isinstance(value, str) else ""
