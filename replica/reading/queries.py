"""What readers ask of one shard about one session: plain statements; no threads, no waiting."""

from __future__ import annotations

from typing import NamedTuple

from agent_core.database.build import Connection
from agent_core.errors import SessionNotFound

MAX_TRANSCRIPT_LIMIT = 10_000
DEFAULT_TRANSCRIPT_LIMIT = 1000
MAX_PAGE_BYTES = (4 << 20) - (64 << 10)
"""Of one answer, estimated; below gRPC's default limit on a message, 4 MiB. One item may be larger by itself."""
ITEM_OVERHEAD_BYTES = 64
"""Numbers, field tags and lengths of one item of an answer, at most."""


class SessionOverview(NamedTuple):
    """One session as lists show it; times in milliseconds since the epoch (1970)."""

    session_id: str
    workspace: str
    title: str
    status: str
    provider: str
    model: str
    parent_session_id: str
    created_at_ms: int
    updated_at_ms: int
    entry_count: int
    metadata_json: bytes


class TranscriptEntry(NamedTuple):
    """One entry of a transcript; the time in milliseconds since the epoch (1970)."""

    seq: int
    kind: str
    payload_json: bytes
    created_at_ms: int
    idempotency_key: str


class TranscriptPage(NamedTuple):
    """Entries in order; `more`: others follow."""

    entries: list[TranscriptEntry]
    more: bool


_SESSION_COLUMNS = (
    "session_id, workspace, title, status, provider, model, parent_session_id,"
    " created_at, updated_at, entry_count, CAST(metadata AS BLOB)"
)

_ENTRY_COLUMNS = "e.seq, e.kind, CAST(e.payload AS BLOB), e.created_at, e.idempotency_key"

_FOLDED_ENTRIES = (
    f"SELECT {_ENTRY_COLUMNS} FROM entry_index i CROSS JOIN entries e ON e.id = i.entry"  # noqa: S608 - our own constant
    " WHERE i.session = ? AND i.seq > ? ORDER BY i.seq LIMIT ?"
)

_TAIL_ENTRIES = (
    f"SELECT {_ENTRY_COLUMNS} FROM entries e"  # noqa: S608 - our own constant
    " WHERE e.id >= (SELECT first_entry FROM entry_tail) AND e.session = ? AND e.seq > ? ORDER BY e.id LIMIT ?"
)


def session(connection: Connection, session_id: str) -> SessionOverview:
    """One session.

    Raises:
        SessionNotFound: The shard holds no session of this id.
    """
    row = connection.execute(
        f"SELECT {_SESSION_COLUMNS} FROM session_overview WHERE session_id = ?",  # noqa: S608 - our own constant
        (session_id,),
    ).fetchone()
    if row is None:
        raise not_found(session_id)
    return SessionOverview._make(row)


def transcript(connection: Connection, session_id: str, after_seq: int, limit: int) -> TranscriptPage:
    """The entries of a session past `after_seq`: at most `limit`, at most `MAX_PAGE_BYTES`, at least one.

    Everything that is folded into the index comes before everything in the tail, so two plain statements read
    them in order.

    Raises:
        SessionNotFound: The shard holds no session of this id.
    """
    row = connection.execute("SELECT id FROM sessions WHERE session_id = ?", (session_id,)).fetchone()
    if row is None:
        raise not_found(session_id)
    entries: list[TranscriptEntry] = []
    size = 0
    for statement in (_FOLDED_ENTRIES, _TAIL_ENTRIES):
        for entry in connection.execute(statement, (row[0], after_seq, limit + 1 - len(entries))):
            _, kind, payload, _, key = entry
            size += len(payload) + len(kind.encode()) + len(key.encode()) + ITEM_OVERHEAD_BYTES
            if len(entries) == limit or (entries and size > MAX_PAGE_BYTES):
                return TranscriptPage(entries, more=True)
            entries.append(TranscriptEntry._make(entry))
    return TranscriptPage(entries, more=False)


def not_found(session_id: str) -> SessionNotFound:
    """The error for a session that no shard holds."""
    return SessionNotFound(f"there is no session {session_id!r}")
