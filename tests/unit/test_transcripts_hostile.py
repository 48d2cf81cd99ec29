"""Files that are broken, huge, or no transcripts: reported or refused, never anything else."""

import os
import tracemalloc
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_core.routing import check_session_id
from agent_core.transcripts import (
    BrokenLine,
    ImportedEntry,
    ImportedSession,
    UnreadableTranscript,
    imported,
    read_transcript,
)
from agent_core.transcripts import facts as facts_module

GOOD = b'{"role":"user","content":"a"}'


def broken(path: Path) -> list[tuple[int, str]]:
    return [(event.line, event.reason) for event in read_transcript(path) if isinstance(event, BrokenLine)]


def count_entries(path: Path) -> int:
    return sum(isinstance(event, ImportedEntry) for event in read_transcript(path))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not JSON at character 2 of the line: unexpected end of data"),
        (b'{"role":"user","content":"a', "not JSON at character"),
        (b'{"a":"\xff"}', "not UTF-8 at byte 7 of the line"),
        (b"42", "not a JSON object but a number"),
        (b"[1]", "not a JSON object but an array"),
        (b'"massive error"', "not a JSON object but a string"),
        (b"null", "not a JSON object but null"),
        (b"true", "not a JSON object but a boolean"),
        (b'{"a":"\x00"}', "not JSON at character"),
        (b"\x00" * 100, "not JSON at character"),
        (b'{"a":"\\ud83d"}', "not JSON at character"),
        (b'{"a":NaN}', "not JSON at character"),
        (b'{"a":' * 100_000, "not JSON at character"),
        (b'{"a":' * 300 + b"1" + b"}" * 300, "nested more than 200 levels deep"),
    ],
    ids=range(14),
)
@pytest.mark.parametrize("first", [True, False])
def test_a_broken_line_is_reported_and_the_rest_goes_on(
    tmp_path: Path, line: bytes, reason: str, first: bool
) -> None:
    path = tmp_path / "x.jsonl"
    lines = [line, GOOD, GOOD] if first else [GOOD, b"", line, GOOD]
    path.write_bytes(b"\n".join(lines))
    ((number, why),) = broken(path)
    assert number == (1 if first else 3)
    assert why.startswith(reason)
    assert count_entries(path) == 2


def test_a_line_past_the_bound_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    with path.open("wb") as stream:
        stream.write(GOOD + b'\n{"a":"')
        stream.seek(40 << 20, os.SEEK_CUR)  # a hole: takes no room on the disk
        stream.write(b'"}\n' + GOOD + b"\n")
    assert broken(path) == [(2, "longer than 16777216 bytes")]
    assert count_entries(path) == 2


def test_a_record_whose_payload_would_pass_the_bound_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(GOOD + b"\n" + orjson.dumps({"role": "user", "content": "x" * (9 << 20)}))
    ((number, reason),) = broken(path)
    assert number == 2
    assert reason.startswith("its payload would be 18")


def test_a_record_of_the_deepest_nesting_allowed_can_be_written_again(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    deep = b"[" * 195 + b"]" * 195
    path.write_bytes(
        b'{"role":"assistant","content":[{"type":"tool_use","id":"a","name":"b","input":' + deep + b"}]}"
    )
    assert count_entries(path) == 1


def test_arguments_deeper_than_allowed_stay_the_text_they_were(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    arguments = '{"a":' * 400 + "1" + "}" * 400
    call = {"id": "c", "function": {"name": "f", "arguments": arguments}}
    path.write_bytes(orjson.dumps({"role": "assistant", "content": "", "tool_calls": [call]}))
    (entry,) = (event for event in read_transcript(path) if isinstance(event, ImportedEntry))
    assert orjson.loads(entry.payload)["content"][0]["arguments"] == arguments


def test_windows_line_ends_and_a_byte_order_mark_are_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD + b"\r\n\r\n" + GOOD + b"\r\n")
    assert broken(path) == []
    assert count_entries(path) == 2


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n \n",
        b"print('hello')\n",
        b"\x89PNG\r\n\x1a\n\x00\x00",
        b"[\n  1\n]\n",
        "{}\n".encode("utf-16"),
        b"42\n",
    ],
    ids=range(7),
)
def test_what_is_no_transcript_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(UnreadableTranscript, match=r"notes\.txt .*JSON Lines are read"):
        list(read_transcript(path))


def test_a_missing_file_a_directory_and_a_pipe_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnreadableTranscript, match="cannot be read: No such file"):
        list(read_transcript(tmp_path / "missing"))
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(UnreadableTranscript, match="is not a regular file"):
            list(read_transcript(path))


def test_too_many_sessions_in_one_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts_module, "MAX_SESSIONS", 3)
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"".join(b'{"session_id":"s%d"}\n' % number for number in range(4)))
    with pytest.raises(UnreadableTranscript, match="more than 3 sessions"):
        list(read_transcript(path))


def test_a_large_file_is_never_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes((orjson.dumps({"role": "user", "content": "x" * 10_000}) + b"\n") * 3_000)
    assert path.stat().st_size > 30_000_000
    tracemalloc.start()
    try:
        assert count_entries(path) == 3_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def read_hostile(path: Path) -> None:
    sessions: set[str] = set()
    keys: list[tuple[str, str]] = []
    try:
        for event in read_transcript(path):
            if isinstance(event, ImportedSession):
                sessions.add(check_session_id(event.session_id))
                assert len(event.title) <= 80
                orjson.dumps(event.metadata)
            elif isinstance(event, ImportedEntry):
                assert event.session_id in sessions
                assert len(event.payload) <= imported.MAX_PAYLOAD_BYTES
                assert isinstance(orjson.loads(event.payload), dict)
                assert event.kind
                assert event.created_at_ms >= 0
                keys.append((event.session_id, event.idempotency_key))
    except UnreadableTranscript as error:
        assert str(path) in str(error)
    assert len(set(keys)) == len(keys)


# fmt: off
FIELD_NAMES = st.sampled_from([
    "type", "role", "content", "message", "sessionId", "session_id", "uuid", "leafUuid", "timestamp",
    "created_at", "isSidechain", "agentId", "summary", "cwd", "kind", "payload", "history", "trajectory",
    "environment", "info", "replay_config", "tool_calls", "tool_use_id", "id", "name", "input", "function",
    "arguments", "model", "snapshot", "state", "working_dir", "is_demo", "customTitle", "isCompactSummary",
    "tool_call_ids", "source", "text",
])
# fmt: on
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | st.sampled_from(
        ["user", "assistant", "tool", "tool_result", "tool_use", "summary", "text", "image", "thinking"]
    )
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(FIELD_NAMES, inner, max_size=6),
    max_leaves=20,
)
RECORDS = st.dictionaries(FIELD_NAMES, VALUES, max_size=10)


@given(content=st.binary(max_size=400))
def test_arbitrary_bytes_are_reported_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "arbitrary"
    path.write_bytes(content)
    read_hostile(path)


@given(records=st.lists(RECORDS, min_size=1, max_size=6), cut=st.integers(0, 40), pretty=st.booleans())
def test_records_with_any_value_in_any_field_are_read(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, object]], cut: int, pretty: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "records"
    option = orjson.OPT_INDENT_2 if pretty else 0
    lines = b"\n".join(orjson.dumps(record, option=option) for record in records)
    path.write_bytes(lines[: len(lines) - cut])
    read_hostile(path)


@given(history=st.lists(RECORDS | LEAVES, max_size=6), fields=RECORDS, pretty=st.booleans())
def test_trajectories_with_any_value_in_any_field_are_read(
    tmp_path_factory: pytest.TempPathFactory, history: list[object], fields: dict[str, object], pretty: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "trajectory"
    option = orjson.OPT_INDENT_2 if pretty else 0
    path.write_bytes(orjson.dumps({**fields, "history": history}, option=option))
    read_hostile(path)
