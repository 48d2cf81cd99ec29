"""A session's entries as server-sent events (the `text/event-stream` of HTML), as this node applies them.

Events: `entry` (its `id` is a `Cursor`, so a browser's EventSource resumes by itself), `caught_up` (the backfill is
complete, or nothing came for a while; carries the seq), `error` (the last event; carries the error). The first two
carry the position that they were read at, and its age.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, NamedTuple, Self

import orjson

from agent_core.errors import HeadwaterError, InvalidRequest
from agent_core.position import START, Position
from replica.reading.answers import TranscriptAnswer
from replica.reading.http_freshness import position_fields
from replica.reading.queries import TranscriptEntry

_CURSOR = re.compile(r"([0-9]{1,19})(?:@([0-9]{1,20}:[0-9]{1,20}))?")


class Cursor(NamedTuple):
    """The entry after which a follower goes on, and the position that it was shown at; START: unknown."""

    seq: int
    position: Position = START

    def __str__(self) -> str:
        """`seq@epoch:lsn`, as the `id` of an event."""
        return f"{self.seq}@{self.position}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the `id` of an event, or a seq alone.

        Raises:
            InvalidRequest: It is neither.
        """
        parts = _CURSOR.fullmatch(text)
        if parts is None:
            raise InvalidRequest(
                f"Last-Event-ID is the id of an event, for example 12@3:1204, or a seq; got {text[:80]!r}"
            )
        return cls(int(parts[1]), Position.parse(parts[2]) if parts[2] else START)


async def entry_events(
    first: TranscriptAnswer | None,
    answers: AsyncGenerator[TranscriptAnswer, None],
    entry_fields: Callable[[TranscriptEntry], dict[str, Any]],
    after_seq: int,
) -> AsyncIterator[bytes]:
    """The stream's text, event by event; it ends when the client goes or a read fails."""
    seq = after_seq
    async with aclosing(answers):
        try:
            answer = first
            while answer is not None:
                position = {"position": position_fields(answer.position)}
                for entry in answer.entries:
                    seq = entry.seq
                    cursor = Cursor(seq, answer.position.position)
                    yield _event("entry", {**entry_fields(entry), **position}, cursor)
                if not answer.entries:
                    yield _event("caught_up", {"seq": seq, **position})
                answer = await anext(answers, None)
        except HeadwaterError as error:
            yield _event("error", {"code": error.code, "message": str(error), "retry": error.retry})


def _event(name: str, data: dict[str, Any], cursor: Cursor | None = None) -> bytes:
    # orjson writes line breaks within texts as escapes; a payload as it was stored may have them between its parts.
    lines = orjson.dumps(data).splitlines()
    head = f"event: {name}\n" if cursor is None else f"id: {cursor}\nevent: {name}\n"
    return head.encode() + b"".join(b"data: " + line + b"\n" for line in lines) + b"\n"
