"""Messages of the model providers' interfaces as payloads of `message` entries.

Both common shapes are understood, in any mixture: content blocks (text, thinking, tool_use, tool_result, image) and
chat completions (string content, `tool_calls`, the role `tool`). What is not known stays as it came.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from agent_core.transcripts.fields import mapping, string
from agent_core.transcripts.lines import is_within_depth

MAX_OPEN_TOOL_CALLS = 4096

Block = dict[str, object]


class MessagePayloads:
    """Makes payloads of the messages of one file, in order: a tool's result says only the call it belongs to.

    The names of the last `MAX_OPEN_TOOL_CALLS` calls are remembered until their results come.
    """

    def __init__(self) -> None:
        self._tool_names: dict[str, str] = {}

    def payload(self, message: Mapping[str, object], *, role: str = "") -> dict[str, object]:
        """The payload of one message, without the record itself.

        Args:
            message: The message as it came.
            role: The role, if the message names none.
        """
        role = string(message, "role") or role
        content = message.get("content")
        result = _only_tool_result(content)
        if result is not None and role == "user":
            return self._tool_result(string(result, "tool_use_id"), "", result)
        if role in ("tool", "function", "tool_result"):
            call = string(message, "tool_call_id", "toolCallId") or _first_string(message.get("tool_call_ids"))
            return self._tool_result(call, string(message, "name", "toolName"), message)
        if role == "user":
            return {"role": "user", "content": content_blocks(content)}
        if role == "assistant":
            return self._assistant(message)
        return {"role": "custom", "customType": role, "content": content_blocks(content)}

    def _assistant(self, message: Mapping[str, object]) -> dict[str, object]:
        blocks = content_blocks(message.get("content")) + _tool_calls(message.get("tool_calls"))
        for block in blocks:
            if block.get("type") == "tool_call":
                self._remember(string(block, "id"), string(block, "name"))
        payload: dict[str, object] = {
            "role": "assistant",
            "provider": string(message, "provider"),
            "model": string(message, "model"),
            "content": blocks,
        }
        if isinstance(message.get("usage"), dict):
            payload["usage"] = message["usage"]
        if stop_reason := string(message, "stop_reason", "stopReason", "finish_reason"):
            payload["stopReason"] = stop_reason
        return payload

    def _tool_result(self, call: str, name: str, source: Mapping[str, object]) -> dict[str, object]:
        return {
            "role": "tool_result",
            "toolCallId": call,
            "toolName": name or self._tool_names.pop(call, ""),
            "content": content_blocks(source.get("content")),
            "isError": source.get("is_error") is True or source.get("isError") is True,
        }

    def _remember(self, call: str, name: str) -> None:
        self._tool_names[call] = name
        if len(self._tool_names) > MAX_OPEN_TOOL_CALLS:
            del self._tool_names[next(iter(self._tool_names))]


def content_blocks(content: object) -> list[Block]:
    """Content, a string or a list of blocks, as blocks."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    if isinstance(content, list):
        return [_block(item) for item in content if isinstance(item, str | dict)]
    return []


def first_text(payload: Mapping[str, object]) -> str:
    """The first text of a payload's content, or an empty one."""
    content = payload.get("content")
    if isinstance(content, str):
        return content
    for block in content if isinstance(content, list) else []:
        if isinstance(block, dict) and block.get("type") == "text" and (text := string(block, "text").strip()):
            return text
    return ""


def _block(item: str | Block) -> Block:
    if isinstance(item, str):
        return {"type": "text", "text": item}
    match item.get("type"):
        case "text" | "input_text" | "output_text":
            return {"type": "text", "text": string(item, "text")}
        case "thinking":
            return {"type": "reasoning", "text": string(item, "thinking")}
        case "tool_use":
            return _tool_call(string(item, "id"), string(item, "name"), item.get("input"))
        case "image" | "document" as kind if isinstance(item.get("source"), dict):
            # The bytes stay in the record: one copy is enough.
            return {"type": kind, "mimeType": string(mapping(item, "source"), "media_type")}
        case _:
            return item


def _tool_calls(calls: object) -> list[Block]:
    if not isinstance(calls, list):
        return []
    blocks = []
    for call in calls:
        if isinstance(call, dict):
            function = mapping(call, "function")
            blocks.append(_tool_call(string(call, "id"), string(function, "name"), function.get("arguments")))
    return blocks


def _tool_call(call: str, name: str, arguments: object) -> Block:
    return {"type": "tool_call", "id": call, "name": name, "arguments": _parsed(arguments)}


def _parsed(arguments: object) -> object:
    """A call's arguments; chat completions carry them as JSON text, which a model may have got wrong."""
    if not isinstance(arguments, str):
        return arguments
    try:
        value = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return arguments
    return value if isinstance(value, dict) and is_within_depth(value) else arguments


def _only_tool_result(content: object) -> Block | None:
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
        return content[0] if content[0].get("type") == "tool_result" else None
    return None


def _first_string(values: object) -> str:
    if isinstance(values, list) and values and isinstance(values[0], str):
        return values[0]
    return ""
