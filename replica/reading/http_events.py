"""A session's entries as server-sent events (the `text/event-stream` of HTML), as this node applies them.

Events: `entry` (its `id` is the seq, so a browser's EventSource resumes by itself), `caught_up` (the backfill is
complete, or nothing came for a while; carries the seq), `error` (the last event; carries the error). The first two
carry the position that they were read at, and its age.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import orjson

from agent_core.errors import HeadwaterError
from replica.reading.answers import TranscriptAnswer
from replica.reading.http_freshness import position_fields
from replica.reading.queries import TranscriptEntry


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
                    yield _event("entry", {**entry_fields(entry), **position}, seq)
                if not answer.entries:
                    yield _event("caught_up", {"seq": seq, **position})
                answer = await anext(answers, None)
        except HeadwaterError as error:
            yield _event("error", {"code": error.code, "message": str(error), "retry": error.retry})


def _event(name: str, data: dict[str, Any], number: int | None = None) -> bytes:
    # orjson writes line breaks within texts as escapes; a payload as it was stored may have them between its parts.
    lines = orjson.dumps(data).splitlines()
    head = f"event: {name}\n" if number is None else f"id: {number}\nevent: {name}\n"
    return head.encode() + b"".join(b"data: " + line + b"\n" for line in lines) + b"\n"
