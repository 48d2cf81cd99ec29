"""SWE-agent trajectories."""

from pathlib import Path

import orjson
import pytest

from agent_core.transcripts import BrokenLine, ImportedEntry, ImportedSession, UnreadableTranscript, read_transcript
from tests.unit.transcript_harness import payload

ISSUE = (
    "We're currently solving the following issue within our repository. Here's the issue text:\n"
    "ISSUE:\nTiles twice\nMore."
)


def trajectory(*more: object, seconds: float = 0.25, **fields: object) -> dict[str, object]:
    call = {"id": "c1", "type": "function", "function": {"name": "open", "arguments": '{"path": "a.py"}'}}
    return {
        "environment": "main",
        "trajectory": [{"action": "open a.py", "execution_time": seconds, "state": {"working_dir": "/cartograph"}}],
        "history": [
            {"role": "system", "content": "You are a programmer."},
            {"role": "user", "content": "Look here", "is_demo": True},
            {"role": "user", "content": ISSUE},
            {"role": "assistant", "content": "I open it.", "tool_calls": [call]},
            {"role": "tool", "content": "1:x", "tool_call_ids": ["c1"]},
            *more,
        ],
        "info": {"exit_status": "submitted", "model_stats": {"api_calls": 1, "note": "text"}},
        **fields,
    }


def write(path: Path, document: object, *, pretty: bool = True) -> Path:
    path.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2 if pretty else 0))
    return path


def read(path: Path) -> tuple[ImportedSession, list[ImportedEntry]]:
    events = list(read_transcript(path))
    assert isinstance(events[0], ImportedSession)
    return events[0], [event for event in events if isinstance(event, ImportedEntry)]


def test_a_session_is_named_by_its_task_and_its_directory(tmp_path: Path) -> None:
    session, _ = read(write(tmp_path / "x", trajectory()))
    assert session.session_id.startswith("swe-agent-cartograph-")
    assert session.workspace == "cartograph"
    assert session.title == "Tiles twice More."
    assert session.metadata == {
        "format": "swe-agent",
        "environment": "main",
        "exit_status": "submitted",
        "model_stats": {"api_calls": 1},
    }


@pytest.mark.parametrize("as_text", [True, False])
def test_the_configuration_gives_repository_and_model(tmp_path: Path, as_text: bool) -> None:
    configuration = {
        "env": {"repo": {"github_url": "https://example.org/atlas/globe/"}},
        "agent": {"model": {"name": "gpt-x"}},
    }
    written = orjson.dumps(configuration).decode() if as_text else configuration
    session, _ = read(write(tmp_path / "x", trajectory(replay_config=written)))
    assert (session.workspace, session.model) == ("globe", "gpt-x")


def test_calls_and_results_are_tied_together(tmp_path: Path) -> None:
    _, found = read(write(tmp_path / "x", trajectory()))
    assert [payload(entry)["role"] for entry in found] == ["custom", "user", "user", "assistant", "tool_result"]
    assert payload(found[0])["customType"] == "system"
    assert payload(found[3])["content"] == [
        {"type": "text", "text": "I open it."},
        {"type": "tool_call", "id": "c1", "name": "open", "arguments": {"path": "a.py"}},
    ]
    assert (payload(found[4])["toolCallId"], payload(found[4])["toolName"]) == ("c1", "open")


def test_arguments_that_the_model_got_wrong_stay_text(tmp_path: Path) -> None:
    call = {"id": "c2", "function": {"name": "edit", "arguments": '{"search": '}}
    _, found = read(write(tmp_path / "x", trajectory({"role": "assistant", "content": None, "tool_calls": [call]})))
    assert payload(found[-1])["content"][0]["arguments"] == '{"search": '


def test_a_trajectory_is_the_same_session_wherever_and_however_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    assert read(write(tmp_path / "x", trajectory())) == read(
        write(tmp_path / "elsewhere" / "y.json", trajectory(), pretty=False)
    )


def test_a_trajectory_that_grew_adds_only_what_is_new(tmp_path: Path) -> None:
    session, early = read(write(tmp_path / "x", trajectory(info={})))
    grown_session, grown = read(write(tmp_path / "x", trajectory({"role": "assistant", "content": "Done."})))
    assert grown_session.session_id == session.session_id
    assert grown[: len(early)] == early
    assert len(grown) == len(early) + 1


def test_two_runs_of_one_task_that_begin_alike_are_two_sessions(tmp_path: Path) -> None:
    one, _ = read(write(tmp_path / "x", trajectory(seconds=0.25)))
    other, _ = read(write(tmp_path / "y", trajectory(seconds=0.26)))
    assert one.session_id != other.session_id


def test_a_message_that_is_none_is_reported_by_its_place(tmp_path: Path) -> None:
    path = write(tmp_path / "x", trajectory("lost"))
    broken = [event for event in read_transcript(path) if isinstance(event, BrokenLine)]
    assert broken == [BrokenLine(path, 6, "the message is not a JSON object")]


@pytest.mark.parametrize("document", [{"history": []}, {"history": 5}, {"name": "x", "private": True}])
def test_another_json_document_is_refused(tmp_path: Path, document: object) -> None:
    with pytest.raises(UnreadableTranscript, match="without a `history` of messages"):
        list(read_transcript(write(tmp_path / "x", document)))


def test_a_document_that_was_cut_off_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = write(tmp_path / "x", trajectory())
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(UnreadableTranscript, match="as one document it is not JSON at character"):
        list(read_transcript(path))


def test_a_document_past_the_bound_is_refused_unread(tmp_path: Path) -> None:
    path = write(tmp_path / "x", trajectory())
    with path.open("r+b") as stream:
        stream.truncate((128 << 20) + 1)  # a hole: takes no room on the disk
    with pytest.raises(UnreadableTranscript, match=r"one JSON document of 134217729 bytes; at most 134217728"):
        list(read_transcript(path))
