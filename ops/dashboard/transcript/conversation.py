"""Folds a transcript's entries into a conversation: messages, tool calls with their results, and notes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from replica.reading.http_models import EntryModel

Speaker = Literal["user", "assistant", "system"]
PartKind = Literal["text", "reasoning", "other"]


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a message or of a result: Markdown text, reasoning, or something else as it came."""

    kind: PartKind
    text: str = ""
    content: Any = None


@dataclass(slots=True)
class Message:
    """What somebody said, in the entry `seq`; the time in milliseconds since 1970."""

    seq: int
    at_ms: int
    speaker: Speaker
    title: str
    parts: list[Part]
    output_tokens: int | None = None


@dataclass(slots=True)
class Call:
    """A tool call and what came of it.

    Attributes:
        seq: Of the entry that made it, or of the result where the call lies before what is shown.
        at_ms: When it was made.
        call_id: As the model named it.
        name: Of the tool.
        arguments: What it was called with.
        result: What it answered; None while it has not.
        failed: Whether the result is an error.
        ended_at_ms: When it answered.
        result_seq: Of the entry that holds the result.
    """

    seq: int
    at_ms: int
    call_id: str
    name: str
    arguments: Any
    result: list[Part] | None = None
    failed: bool = False
    ended_at_ms: int | None = None
    result_seq: int | None = None


@dataclass(slots=True)
class Note:
    """An entry that nobody said: settings, a compaction, a kind that is not known."""

    seq: int
    at_ms: int
    title: str
    content: Any


Item = Message | Call | Note


@dataclass(slots=True)
class Conversation:
    """The items of the entries that were added, in order."""

    items: list[Item] = field(default_factory=list)
    _open: dict[str, Call] = field(default_factory=dict)

    def add(self, entries: Iterable[EntryModel]) -> list[Item]:
        """Add further entries; returns the items that are new or have changed."""
        touched: list[Item] = []
        for entry in entries:
            for item in self._fold(entry):
                if not any(item is other for other in touched):
                    touched.append(item)
        return touched

    def settle(self, entries: Iterable[EntryModel]) -> None:
        """Take from entries that follow only the results of calls that are open."""
        for entry in entries:
            payload = _mapping(entry.payload)
            if _is_result(entry, payload) and _string(payload, "toolCallId") in self._open:
                self._fold(entry)

    def drop_oldest(self, count: int) -> list[Item]:
        """Forget the first items, and return them."""
        dropped, self.items = self.items[:count], self.items[count:]
        for item in dropped:
            if isinstance(item, Call):
                self._open.pop(item.call_id, None)
        return dropped

    def _fold(self, entry: EntryModel) -> list[Item]:
        payload = _mapping(entry.payload)
        if _is_result(entry, payload):
            return [self._end(entry, payload)]
        if entry.kind == "tool_execution" and payload.get("phase") == "start":
            return self._begin(
                entry, _string(payload, "toolCallId"), payload.get("toolName"), payload.get("arguments")
            )
        if entry.kind == "message" and "content" in payload:
            return self._message(entry, payload)
        title = _string(payload, "customType") or entry.kind
        return [self._append(Note(entry.seq, entry.created_at_ms, title, entry.payload))]

    def _message(self, entry: EntryModel, payload: Mapping[str, Any]) -> list[Item]:
        role, items, parts = _string(payload, "role"), list[Item](), list[Part]()
        content = payload["content"]
        for block in content if isinstance(content, list) else [content]:
            if isinstance(block, dict) and block.get("type") == "tool_call":
                self._say(entry, payload, role, parts, items)
                parts = []
                items += self._begin(entry, _string(block, "id"), block.get("name"), block.get("arguments"))
            else:
                parts.append(_part(block))
        self._say(entry, payload, role, parts, items)
        return items

    def _say(
        self, entry: EntryModel, payload: Mapping[str, Any], role: str, parts: list[Part], items: list[Item]
    ) -> None:
        if not parts:
            return
        speaker: Speaker = "user" if role == "user" else "assistant" if role == "assistant" else "system"
        title = _string(payload, "model") if speaker == "assistant" else _string(payload, "customType")
        tokens = _mapping(payload.get("usage")).get("output_tokens")
        message = Message(entry.seq, entry.created_at_ms, speaker, title or role or "message", parts)
        message.output_tokens = tokens if isinstance(tokens, int) else None
        items.append(self._append(message))

    def _begin(self, entry: EntryModel, call_id: str, name: object, arguments: object) -> list[Item]:
        known = self._open.get(call_id)
        if known is not None and call_id:
            # An agent may note both that the model asked for the call and that the tool began.
            return [known]
        call = Call(entry.seq, entry.created_at_ms, call_id, str(name or "tool"), arguments)
        self._open[call_id] = call
        return [self._append(call)]

    def _end(self, entry: EntryModel, payload: Mapping[str, Any]) -> Item:
        call_id = _string(payload, "toolCallId")
        call = self._open.pop(call_id, None)
        if call is None:
            name = _string(payload, "toolName") or "tool"
            call = Call(entry.seq, entry.created_at_ms, call_id, name, None)
            self._append(call)
        content = payload.get("content", payload.get("result"))
        call.result = [_part(block) for block in (content if isinstance(content, list) else [content])]
        call.failed = payload.get("isError") is True
        call.ended_at_ms, call.result_seq = entry.created_at_ms, entry.seq
        return call

    def _append(self, item: Item) -> Item:
        self.items.append(item)
        return item


def _is_result(entry: EntryModel, payload: Mapping[str, Any]) -> bool:
    return (entry.kind == "message" and payload.get("role") == "tool_result") or (
        entry.kind == "tool_execution" and payload.get("phase") == "end"
    )


def _part(block: object) -> Part:
    if isinstance(block, str):
        return Part("text", block)
    if isinstance(block, dict) and isinstance(block.get("text"), str):
        if block.get("type") == "text":
            return Part("text", block["text"])
        if block.get("type") == "reasoning":
            return Part("reasoning", block["text"])
    return Part("other", content=block)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _string(payload: Mapping[str, Any], name: str) -> str:
    value = payload.get(name)
    return value if isinstance(value, str) else ""
