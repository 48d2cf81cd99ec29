"""Transcripts on a terminal and for a machine."""

from __future__ import annotations

import unicodedata

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_core.client import Entry
from ops.cli.plain_text import plain
from ops.cli.rendering import body, counted, heading, json_line, moment


def entry(payload: object, kind: str = "message", created_at_ms: int = 1_700_000_000_000) -> Entry:
    encoded = payload if isinstance(payload, bytes) else orjson.dumps(payload)
    return Entry(3, kind, encoded, created_at_ms, "key")


def test_a_heading_says_who_and_when() -> None:
    assert heading(entry({"role": "user", "content": "Hello"})) == "#3 message user 2023-11-14 22:13:20"


def test_a_tool_result_names_its_tool_and_whether_it_failed() -> None:
    result = {"role": "tool_result", "toolName": "Edit", "content": "no such file", "isError": True}
    assert heading(entry(result)).startswith("#3 message tool_result Edit, an error 2023")


def test_blocks_stand_one_below_the_other() -> None:
    content = [
        {"type": "reasoning", "text": "Hm."},
        {"type": "text", "text": "I will look."},
        {"type": "tool_call", "id": "1", "name": "bash", "arguments": {"command": "ls"}},
    ]
    assert body(entry({"role": "assistant", "content": content})) == (
        '(reasoning) Hm.\nI will look.\n→ bash {\n  "command": "ls"\n}'
    )


def test_a_compaction_shows_its_summary() -> None:
    assert body(entry({"summary": "What was done."}, kind="compaction")) == "What was done."


@pytest.mark.parametrize("payload", [{"anything": 1}, [1, "two"], "text", None, 5, b"not json \xff"])
def test_an_unknown_payload_is_shown_as_it_is(payload: object) -> None:
    assert body(entry(payload, kind="custom"))
    assert heading(entry(payload, kind="custom")).startswith("#3 custom")


def test_what_would_steer_the_terminal_is_spelled_out() -> None:
    hostile = "\x1b]0;title\x07\x1b[2Jgone\x9b31m\u202egnp.exe\r\x00"
    shown = body(entry({"content": hostile})) + heading(entry({"role": hostile}, kind=hostile))
    assert "\\u001b]0;title\\u0007" in shown
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in shown)
    assert "\u202e" not in shown


@given(st.text())
def test_plain_text_has_no_control_character_but_newline_and_tab(text: str) -> None:
    steering = {"Cc", "Cf", "Cs"}
    assert not any(
        unicodedata.category(character) in steering for character in plain(text) if character not in "\n\t"
    )


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_any_number_that_came_as_a_time_can_be_shown(milliseconds: int) -> None:
    assert isinstance(moment(milliseconds), str)


def test_an_entry_for_a_machine_is_one_line_and_keeps_every_digit() -> None:
    line = json_line(entry(b'{"n":12345678901234567890123,\n"t":"a\\nb"}'.replace(b",\n", b",")))
    assert b"12345678901234567890123" in line
    assert b"\n" not in json_line(entry(b'{\n  "t": "a"\r\n}'))
    assert orjson.loads(json_line(entry(b'{\n"t":1}'))) == {
        "seq": 3,
        "kind": "message",
        "created_at_ms": 1_700_000_000_000,
        "payload": {"t": 1},
    }


def test_a_count_has_its_noun_in_the_right_number() -> None:
    counts = [counted(count, "file") for count in (0, 1, 2)]
    assert counts == ["0 files", "1 file", "2 files"]
    assert [counted(count, "entry", "entries") for count in (1, 2)] == ["1 entry", "2 entries"]


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_what_is_nested_very_deeply_is_shown_as_it_was_appended(opening: bytes, closing: bytes) -> None:
    payload = b'{"content":' + opening * 1000 + b"1" + closing * 1000 + b"}"
    assert body(entry(payload)) == payload.decode()
