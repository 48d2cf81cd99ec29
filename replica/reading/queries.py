"""What readers ask of shards: plain statements and the merging of their results; no threads, no waiting."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple

from agent_core.database.build import Connection
from agent_core.errors import InvalidRequest, SessionNotFound
from replica.reading.paging import PageKey

MAX_PAGE_SIZE = 1000
DEFAULT_PAGE_SIZE = 50
MAX_TRANSCRIPT_LIMIT = 10_000
DEFAULT_TRANSCRIPT_LIMIT = 1000
MAX_FILTER_CHARACTERS = 256
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


class SessionPage(NamedTuple):
    """Sessions, most recently updated first; `more`: others follow."""

    sessions: list[SessionOverview]
    more: bool


class TranscriptPage(NamedTuple):
    """Entries in order; `more`: others follow."""

    entries: list[TranscriptEntry]
    more: bool


@dataclass(frozen=True, slots=True)
class SessionFilter:
    """Which sessions a list holds; an empty field filters nothing.

    Attributes:
        workspace: Exactly this workspace.
        status: Exactly this status.
        model: Exactly this model.
        text: Substring of the title or of the session id; letters of ASCII match in either case.
        updated_after_ms: Updated after this moment.
        updated_before_ms: Updated before this moment.

    Raises:
        InvalidRequest: A field is longer than 256 characters, or a moment is out of range.
    """

    workspace: str = ""
    status: str = ""
    model: str = ""
    text: str = ""
    updated_after_ms: int = 0
    updated_before_ms: int = 0

    def __post_init__(self) -> None:
        for name in ("workspace", "status", "model", "text"):
            length = len(getattr(self, name))
            if length > MAX_FILTER_CHARACTERS:
                raise InvalidRequest(f"{name} has {length} characters; allowed are {MAX_FILTER_CHARACTERS}")
        for name in ("updated_after_ms", "updated_before_ms"):
            if not 0 <= getattr(self, name) < 2**63:
                raise InvalidRequest(f"{name} is {getattr(self, name)}; allowed are 0 to {2**63 - 1}")


_SESSION_COLUMNS = (
    "session_id, workspace, title, status, provider, model, parent_session_id,"
    " created_at, updated_at, entry_count, CAST(metadata AS BLOB)"
)

_TAIL = "(SELECT first_entry FROM entry_tail)"

_MOVING_SESSIONS = (
    "SELECT session_id, workspace, title, status, provider, model, parent_session_id, created_at,"  # noqa: S608 - constants
    " max(folded_updated_at, tail_updated_at) AS updated_at, folded_entry_count + tail_entry_count,"
    " CAST(metadata AS BLOB)"
    " FROM (SELECT session, count(*) AS tail_entry_count, max(created_at) AS tail_updated_at FROM entries"
    f"       WHERE id >= {_TAIL} GROUP BY session) tail CROSS JOIN sessions s ON s.id = tail.session"
)
"""Sessions with entries in the tail: at most as many as the tail has entries, in no order."""

_SETTLED_SESSIONS = (
    "SELECT session_id, workspace, title, status, provider, model, parent_session_id, created_at,"  # noqa: S608 - constants
    " folded_updated_at AS updated_at, folded_entry_count, CAST(metadata AS BLOB)"
    f" FROM sessions s WHERE s.id NOT IN (SELECT session FROM entries WHERE id >= {_TAIL})"
)
"""All other sessions: what the indexes say of them is all there is, so that a page costs its own rows only."""

_ENTRY_COLUMNS = "e.seq, e.kind, CAST(e.payload AS BLOB), e.created_at, e.idempotency_key"

_FOLDED_ENTRIES = (
    f"SELECT {_ENTRY_COLUMNS} FROM entry_index i CROSS JOIN entries e ON e.id = i.entry"  # noqa: S608 - our own constant
    " WHERE i.session = ? AND i.seq > ? ORDER BY i.seq LIMIT ?"
)

_TAIL_ENTRIES = (
    f"SELECT {_ENTRY_COLUMNS} FROM entries e"  # noqa: S608 - our own constant
    " WHERE e.id >= (SELECT first_entry FROM entry_tail) AND e.session = ? AND e.seq > ? ORDER BY e.id LIMIT ?"
)


def sessions_of_shard(
    connection: Connection, wanted: SessionFilter, after: PageKey | None, page_size: int
) -> SessionPage:
    """The first sessions of one shard after a key, as many as a page over all shards can need."""
    moving_conditions, parameters = _conditions(wanted, after, "max(folded_updated_at, tail_updated_at)")
    settled_conditions, _ = _conditions(wanted, after, "folded_updated_at")
    moving = connection.execute(f"{_MOVING_SESSIONS} WHERE {' AND '.join(['1', *moving_conditions])}", parameters)
    settled = connection.execute(
        f"{_SETTLED_SESSIONS}{''.join(f' AND {condition}' for condition in settled_conditions)}"
        " ORDER BY folded_updated_at DESC, session_id LIMIT ?",
        (*parameters, page_size + 1),
    )
    merged = heapq.merge(
        sorted(map(SessionOverview._make, moving), key=_order), map(SessionOverview._make, settled), key=_order
    )
    return _session_page(merged, page_size)


def merge_sessions(pages: Sequence[SessionPage], page_size: int) -> SessionPage:
    """One page out of the pages of all shards.

    Nothing past the end of a shard's cut page is taken: what that shard left out may belong before it.
    """
    ends = [_order(page.sessions[-1]) for page in pages if page.more]
    merged = heapq.merge(*(page.sessions for page in pages), key=_order)
    if not ends:
        return _session_page(merged, page_size)
    end = min(ends)
    page = _session_page(takewhile(lambda overview: _order(overview) <= end, merged), page_size)
    return SessionPage(page.sessions, more=True)


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


def _conditions(wanted: SessionFilter, after: PageKey | None, updated_at: str) -> tuple[list[str], list[object]]:
    """Conditions on sessions, `updated_at` being the expression for their last update, and their parameters."""
    conditions: list[str] = []
    parameters: list[object] = []
    for column in ("workspace", "status", "model"):
        value = getattr(wanted, column)
        if value:
            conditions.append(f"{column} = ?")
            parameters.append(value)
    if wanted.text:
        pattern = f"%{_escaped(wanted.text)}%"
        conditions.append(r"(title LIKE ? ESCAPE '\' OR session_id LIKE ? ESCAPE '\')")
        parameters += [pattern, pattern]
    if wanted.updated_after_ms:
        conditions.append(f"{updated_at} > ?")
        parameters.append(wanted.updated_after_ms)
    if wanted.updated_before_ms:
        conditions.append(f"{updated_at} < ?")
        parameters.append(wanted.updated_before_ms)
    if after is not None:
        # The first condition is the one that an index can begin at.
        conditions.append(f"{updated_at} <= ? AND ({updated_at} < ? OR session_id > ?)")
        parameters += [after.updated_at_ms, after.updated_at_ms, after.session_id]
    return conditions, parameters


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _order(overview: SessionOverview) -> tuple[int, str]:
    return -overview.updated_at_ms, overview.session_id


def _session_page(sessions: Iterable[SessionOverview], page_size: int) -> SessionPage:
    page: list[SessionOverview] = []
    size = 0
    for overview in sessions:
        size += _size(overview)
        if len(page) == page_size or (page and size > MAX_PAGE_BYTES):
            return SessionPage(page, more=True)
        page.append(overview)
    return SessionPage(page, more=False)


def _size(overview: SessionOverview) -> int:
    texts = overview[:7]
    return ITEM_OVERHEAD_BYTES + len(overview.metadata_json) + sum(len(text.encode()) for text in texts)
