"""Plain JSON Lines."""

from pathlib import Path

import pytest

from agent_core.routing import check_session_id
from agent_core.transcripts import ImportedSession
from tests.unit.transcript_harness import payload, read, write


def test_a_chat_is_a_session_of_messages(tmp_path: Path) -> None:
    call = {"id": "c1", "function": {"name": "sql", "arguments": '{"query": "SELECT 1"}'}}
    (session,), found = read(
        write(
            tmp_path / "chat.jsonl",
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Why is it slow?"},
            {"role": "assistant", "content": None, "model": "m", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "1"},
        )
    )
    assert (session.title, session.model) == ("Why is it slow?", "m")
    assert [entry.kind for entry in found] == ["message"] * 4
    assert [payload(entry)["role"] for entry in found] == ["custom", "user", "assistant", "tool_result"]
    assert payload(found[3])["toolName"] == "sql"
    assert payload(found[1])["record"] == {"role": "user", "content": "Why is it slow?"}


def test_a_record_with_kind_and_payload_is_an_entry_as_it_stands(tmp_path: Path) -> None:
    _, (entry,) = read(
        write(
            tmp_path / "x",
            {
                "kind": "telemetry.v2",
                "payload": {"a": [1, None]},
                "session_id": "s",
                "created_at": "2025-10-06T10:00:00+02:00",
            },
        )
    )
    assert (entry.session_id, entry.kind, entry.created_at_ms) == ("s", "telemetry.v2", 1759737600000)
    assert entry.payload == b'{"a":[1,null]}'


@pytest.mark.parametrize(
    "record", [{"kind": "x", "payload": 5}, {"kind": "a b", "payload": {}}, {"kind": 5, "payload": {}}, {}]
)
def test_anything_else_is_a_custom_entry(tmp_path: Path, record: dict[str, object]) -> None:
    _, (entry,) = read(write(tmp_path / "x", record))
    assert entry.kind == "custom"
    assert payload(entry) == {"customType": "unknown", "record": record}


def test_what_a_record_says_of_its_session_is_read(tmp_path: Path) -> None:
    record = {
        "session_id": "child",
        "workspace": "harbour",
        "title": "Slow report",
        "provider": "openai",
        "model": "m",
        "parent_session_id": "parent",
        "created_at_ms": 1759737600000,
    }
    (session,), _ = read(write(tmp_path / "x", record))
    assert session == ImportedSession(
        "child", "harbour", "Slow report", "openai", "m", "parent", 1759737600000, {"format": "json-lines"}
    )


@pytest.mark.parametrize(
    ("written", "milliseconds"),
    [
        ("2025-10-06T08:00:00Z", 1759737600000),
        ("2025-10-06T08:00:00", 1759737600000),
        ("2025-10-06T10:00:00.250+02:00", 1759737600250),
        (1759737600, 1759737600000),
        (1759737600.5, 1759737600500),
        (1759737600000, 1759737600000),
        ("yesterday", 0),
        ("0001-01-01T00:00:00+14:00", 0),
        ("9" * 1000, 0),
        (-1e308, 0),
        (1e308, 0),
        (True, 0),
        (None, 0),
        ([], 0),
    ],
)
def test_a_time_is_read_as_milliseconds_or_left_to_the_primary(
    tmp_path: Path, written: object, milliseconds: int
) -> None:
    _, (entry,) = read(write(tmp_path / "x", {"role": "user", "content": "a", "timestamp": written}))
    assert entry.created_at_ms == milliseconds


@pytest.mark.parametrize(
    "name", ["mine", "a/b c", "..", "", "ünïcode", "x" * 129, "x" * 5000, "-dash", "\x00", "a\nb", "会議", 42]
)
def test_a_session_id_is_valid_whatever_the_file_calls_it(tmp_path: Path, name: object) -> None:
    _, (entry,) = read(write(tmp_path / "x", {"session_id": name, "role": "user", "content": "a"}))
    assert check_session_id(entry.session_id)


def test_a_session_id_that_is_not_allowed_stays_recognisable_and_apart(tmp_path: Path) -> None:
    records = [{"session_id": name, "role": "user", "content": "a"} for name in ("run/a b", "run/a?b", "run")]
    _, found = read(write(tmp_path / "x", *records))
    ids = [entry.session_id for entry in found]
    assert all(one.startswith("run-a-b-") for one in ids[:2])
    assert ids[2] == "run"
    assert len(set(ids)) == 3


def test_a_file_that_names_no_session_is_one_by_its_name_and_first_record(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    records = [{"role": "user", "content": "a"}, {"role": "user", "content": "a"}]
    _, found = read(write(tmp_path / "my chat.jsonl", *records))
    _, moved = read(write(tmp_path / "copy" / "my chat.jsonl", *records, {"role": "user", "content": "new"}))
    _, other = read(write(tmp_path / "my chat.jsonl", {"role": "user", "content": "b"}))
    assert found[0].session_id.startswith("my-chat-")
    assert moved[:2] == found
    assert len({entry.idempotency_key for entry in moved}) == 3
    assert other[0].session_id != found[0].session_id
