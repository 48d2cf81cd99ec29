"""Tool calls as they are put together from a transcript."""

from __future__ import annotations

import json
from typing import Any

from replica.reading.queries import TranscriptEntry, TranscriptPage
from replica.reading.tool_calls import tool_calls_of


def page(*payloads: Any, kind: str = "message") -> TranscriptPage:
    entries = [
        TranscriptEntry(seq, kind, json.dumps(payload).encode(), seq * 1000, "")
        for seq, payload in enumerate(payloads, start=1)
    ]
    return TranscriptPage(entries, more=True)


def call(*ids: str) -> dict[str, Any]:
    blocks = [{"type": "tool_call", "id": name, "name": "Bash", "arguments": {"n": name}} for name in ids]
    return {"role": "assistant", "content": [{"type": "text", "text": "x"}, *blocks]}


def result(name: str, *, error: bool = False) -> dict[str, Any]:
    return {"role": "tool_result", "toolCallId": name, "isError": error}


def test_each_call_has_its_own_outcome() -> None:
    calls, more = tool_calls_of(page(call("a", "b", "c"), result("b", error=True), result("a")))
    assert more
    assert [(made.tool_call_id, made.status, made.ended_at_ms, made.result_seq) for made in calls] == [
        ("a", "completed", 3000, 3),
        ("b", "errored", 2000, 2),
        ("c", "pending", None, None),
    ]
    assert (calls[0].name, calls[0].seq, calls[0].arguments_json) == ("Bash", 1, b'{"n":"a"}')


def test_the_first_outcome_counts() -> None:
    (made,), _ = tool_calls_of(page(call("a"), result("a"), result("a", error=True), call("a")))
    assert (made.status, made.result_seq, made.seq) == ("completed", 2, 1)


def test_executions_count_as_calls() -> None:
    start = {"phase": "start", "toolCallId": "a", "toolName": "Read", "arguments": None}
    (made,), _ = tool_calls_of(page(start, {"phase": "end", "toolCallId": "a"}, kind="tool_execution"))
    assert (made.name, made.status, made.arguments_json) == ("Read", "completed", b"null")


def test_payloads_of_any_shape_are_passed_over() -> None:
    odd: list[Any] = [
        None,
        1,
        [],
        "x",
        {"role": "assistant", "content": "text"},
        {"role": "assistant", "content": [1, {}]},
    ]
    assert tool_calls_of(page(*odd, {"role": "tool_result"}, result("unknown")))[0] == []
