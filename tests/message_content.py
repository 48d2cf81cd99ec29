"""A protobuf message as the JSON that tells the same."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import Message


def content_of(message: Message) -> dict[str, object]:
    """Every field of a message by its name, those of messages within likewise; None where one is unset."""
    return {
        field.name: content_of_value(getattr(message, field.name))
        if not field.has_presence or message.HasField(field.name)
        else None
        for field in message.DESCRIPTOR.fields
    }


def content_of_value(value: object) -> object:
    """A field's value, plain."""
    if isinstance(value, Message):
        return content_of(value)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [content_of_value(item) for item in value]
    return value
