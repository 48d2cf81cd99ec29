"""The tool calls of a session, put together from the entries that make and end them.

A call is made by a `tool_call` block of an assistant's message, or by a `tool_execution` entry of phase `start`;
it is ended by a message of the role `tool_result`, or by a `tool_execution` of phase `end`. The first end counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson

from replica.reading.queries import TranscriptEntry, TranscriptPage

PENDING, COMPLETED, ERRORED = "pending", "completed", "errored"


class ToolCall(NamedTuple):
    """One call; times in milliseconds since the epoch (1970).

    Attributes:
        tool_call_id: As the model named it.
        name: Of the tool.
        seq: Of the entry that made the call.
        arguments_json: What the tool was called with.
        status: `pending`, `completed` or `errored`.
        started_at_ms: When the call was made.
        ended_at_ms: When its outcome came; None while it is pending.
        result_seq: Of the entry that holds the outcome; None while it is pending.
    """

    tool_call_id: str
    name: str
    seq: int
    arguments_json: bytes
    status: str
    started_at_ms: int
    ended_at_ms: int | None
    result_seq: int | None


def tool_calls_of(page: TranscriptPage) -> tuple[list[ToolCall], bool]:
    """The calls that a page of a transcript makes, in order, and whether the transcript goes on.

    A call whose outcome lies beyond the page is shown as pending.
    """
    calls: dict[str, ToolCall] = {}
    for entry in page.entries:
        payload = _object(entry.payload_json)
        if payload.get("role") == "tool_result" or payload.get("phase") == "end":
            _end(calls, entry, payload)
        else:
            for call in _made(entry, payload):
                calls.setdefault(call.tool_call_id, call)
    return list(calls.values()), page.more


def _made(entry: TranscriptEntry, payload: dict[str, Any]) -> Iterator[ToolCall]:
    if entry.kind == "tool_execution" and payload.get("phase") == "start":
        yield _call(entry, payload.get("toolCallId"), payload.get("toolName"), payload.get("arguments"))
    content = payload.get("content")
    if payload.get("role") == "assistant" and isinstance(content, list):
        for block in content:
            if isinstance(block, dict) and block.get("type") == "tool_call":
                yield _call(entry, block.get("id"), block.get("name"), block.get("arguments"))


def _call(entry: TranscriptEntry, tool_call_id: object, name: object, arguments: object) -> ToolCall:
    return ToolCall(
        tool_call_id=str(tool_call_id or ""),
        name=str(name or ""),
        seq=entry.seq,
        arguments_json=orjson.dumps(arguments),
        status=PENDING,
        started_at_ms=entry.created_at_ms,
        ended_at_ms=None,
        result_seq=None,
    )


def _end(calls: dict[str, ToolCall], entry: TranscriptEntry, payload: dict[str, Any]) -> None:
    call = calls.get(str(payload.get("toolCallId") or ""))
    if call is not None and call.status == PENDING:
        calls[call.tool_call_id] = call._replace(
            status=ERRORED if payload.get("isError") is True else COMPLETED,
            ended_at_ms=entry.created_at_ms,
            result_seq=entry.seq,
        )


def _object(payload_json: bytes) -> dict[str, Any]:
    try:
        payload = orjson.loads(payload_json)
    except orjson.JSONDecodeError:
        return {}
    return payload if isinstance(payload, dict) else {}
