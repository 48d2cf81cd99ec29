"""Entries fold into a conversation, whichever way they come."""

from __future__ import annotations

import orjson

from agent_core.transcripts import ImportedEntry, read_transcript
from ops.dashboard.transcript.conversation import Call, Conversation, Message, Note
from ops.dashboard.transcript.window import WINDOW, Window
from ops.sample_transcripts import sample_paths
from replica.reading.http_models import EntryModel


def entry(seq: int, payload: object, kind: str = "message") -> EntryModel:
    return EntryModel(seq=seq, kind=kind, payload=payload, created_at_ms=seq * 1000, idempotency_key="")


def called(seq: int, call_id: str) -> EntryModel:
    block = {"type": "tool_call", "id": call_id, "name": "bash", "arguments": {"command": "ls"}}
    return entry(seq, {"role": "assistant", "content": [{"type": "text", "text": "look"}, block]})


def answered(seq: int, call_id: str, *, failed: bool = False) -> EntryModel:
    return entry(seq, {"role": "tool_result", "toolCallId": call_id, "content": "out", "isError": failed})


def test_a_call_is_folded_with_its_result() -> None:
    conversation = Conversation()
    conversation.add([called(1, "a"), called(2, "b"), answered(3, "b", failed=True), answered(4, "a")])
    said, first, _, second = conversation.items
    assert isinstance(said, Message)
    assert isinstance(first, Call)
    assert isinstance(second, Call)
    assert (first.result_seq, first.failed, first.ended_at_ms) == (4, False, 4000)
    assert (second.result_seq, second.failed) == (3, True)


def test_a_result_that_comes_later_changes_the_item_of_its_call_alone() -> None:
    conversation = Conversation()
    _, call = conversation.add([called(1, "a")])
    assert conversation.add([answered(2, "a")]) == [call]


def test_a_result_whose_call_is_not_shown_stands_for_itself() -> None:
    (item,) = Conversation().add([answered(9, "gone")])
    assert isinstance(item, Call)
    assert item.arguments is None


def test_of_entries_past_the_page_only_results_of_its_calls_are_taken() -> None:
    conversation = Conversation()
    conversation.add([called(1, "a")])
    conversation.settle([called(2, "b"), answered(3, "b"), answered(4, "a")])
    assert [type(item) for item in conversation.items] == [Message, Call]
    call = conversation.items[1]
    assert isinstance(call, Call)
    assert call.result_seq == 4


def test_a_call_that_the_model_asked_for_and_the_tool_began_is_one() -> None:
    conversation = Conversation()
    started = {"phase": "start", "toolCallId": "a", "toolName": "bash", "arguments": {}}
    ended = {"phase": "end", "toolCallId": "a", "result": "out"}
    conversation.add([called(1, "a"), entry(2, started, "tool_execution"), entry(3, ended, "tool_execution")])
    assert [type(item) for item in conversation.items] == [Message, Call]


def test_a_kind_that_is_not_known_becomes_a_note() -> None:
    (item,) = Conversation().add([entry(1, [1, 2], "something_new")])
    assert item == Note(1, 1000, "something_new", [1, 2])


def test_in_the_sample_every_call_finds_its_result_but_those_without_one() -> None:
    for path in sample_paths():
        found = [item for item in read_transcript(path) if isinstance(item, ImportedEntry)]
        conversation = Conversation()
        conversation.add(
            entry(seq, orjson.loads(item.payload), item.kind) for seq, item in enumerate(found, start=1)
        )
        calls = [item for item in conversation.items if isinstance(item, Call)]
        assert calls, path
        assert all(call.arguments is not None for call in calls), path


def test_the_oldest_items_of_a_page_that_is_followed_are_forgotten() -> None:
    conversation = Conversation()
    conversation.add([called(1, "a"), called(2, "b")])
    assert len(conversation.drop_oldest(2)) == 2
    assert conversation.items[0].seq == 2


def test_a_page_ends_with_the_latest_entries_unless_it_was_asked_to_begin_elsewhere() -> None:
    assert Window.start(5 * WINDOW, None) == 4 * WINDOW
    assert Window.start(3, None) == 0
    assert Window.start(5 * WINDOW, 7) == 7
    assert Window.start(10, 99) == 10
    assert Window.start(10, -5) == 0


def test_parts_of_a_transcript_follow_one_another() -> None:
    window = Window(WINDOW, 2 * WINDOW, 5 * WINDOW)
    assert (window.earlier, window.later) == (0, 2 * WINDOW)
    assert str(window) == "entries 201 to 400 of 1,000"
    assert (Window(0, 5, 5).earlier, Window(0, 5, 5).later, str(Window(0, 5, 5))) == (None, None, "5 entries")
