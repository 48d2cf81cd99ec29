"""What an import consists of, and its bounds."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from agent_core.errors import InvalidRequest

MAX_LINE_BYTES = 16 << 20
"""A longer line is reported and passed over, without being held in memory."""

MAX_PAYLOAD_BYTES = 16 << 20
"""A record whose payload would be larger is reported and passed over."""

MAX_DOCUMENT_BYTES = 128 << 20
"""A trajectory is one JSON document, so it is read whole: this is the largest that is."""

MAX_DEPTH = 200
"""Levels of nesting in one record; what is deeper could be read but not written again."""

MAX_SESSIONS = 100_000
"""Sessions in one file: what is known of each is held in memory until the file ends."""


class UnreadableTranscript(InvalidRequest):
    """The file as a whole cannot be read: it is missing, no transcript, or past a bound; the message says which."""


@dataclass(frozen=True, slots=True)
class ImportedSession:
    """A session to be created, unless it exists; comes before its first entry.

    Attributes:
        session_id: Valid for `agent_core.routing.check_session_id`.
        workspace: The project that was worked on; empty when the file does not say.
        title: At most 80 characters; empty when the file does not say.
        provider: Of the model, for example `anthropic`; empty when the file does not say.
        model: The first that answered; empty when the file does not say.
        parent_session_id: The session that started this one as a sub-agent, or empty.
        created_at_ms: Unix time in milliseconds; 0 when the file does not say.
        metadata: A JSON object of what else is known: `format`, and what the format adds.
    """

    session_id: str
    workspace: str = ""
    title: str = ""
    provider: str = ""
    model: str = ""
    parent_session_id: str = ""
    created_at_ms: int = 0
    metadata: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ImportedEntry:
    """An entry to be appended.

    Attributes:
        session_id: Of a session that came before.
        kind: `message`, `compaction`, `custom`, or whatever kind the file names.
        payload: A JSON object, at most `MAX_PAYLOAD_BYTES`. Under `record` it holds the record as it came, except
            where the file itself names kind and payload: then it is that payload.
        created_at_ms: Unix time in milliseconds; 0, for the primary's clock, when the file does not say.
        idempotency_key: The same whenever this record of this session is read again.
        line: From 1: where it stands in the file; in a trajectory, the message's place in `history`.
    """

    session_id: str
    kind: str
    payload: bytes
    created_at_ms: int
    idempotency_key: str
    line: int


@dataclass(frozen=True, slots=True)
class BrokenLine:
    """A record that is passed over; the rest of the file goes on.

    Attributes:
        path: The file.
        line: From 1: the line, or in a trajectory the message's place in `history`.
        reason: What is wrong with it.
    """

    path: Path
    line: int
    reason: str
