"""The list of sessions: what one shard gives for a page of it, and how the shards' pages become one.

A page of 50 takes about three sessions from each of 16 shards. So each is asked for little more than its likely
share first, and only those that would have had more for the page are asked again, for all of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import orjson

from agent_core.database.build import Connection
from agent_core.errors import InvalidRequest
from replica.reading.paging import Direction, PageKey, SessionOrder, SessionSort
from replica.reading.queries import ITEM_OVERHEAD_BYTES, MAX_PAGE_BYTES, SessionOverview
from replica.reading.text_search import sessions_with

MAX_PAGE_SIZE = 1000
DEFAULT_PAGE_SIZE = 50
MAX_FILTER_CHARACTERS = 256
MAX_MOMENT = 2**63 - 1
"""In milliseconds since 1970."""

_MOMENTS = ("updated_after_ms", "updated_before_ms", "created_after_ms", "created_before_ms")


class SessionPage(NamedTuple):
    """Sessions in the order that was asked for; `more`: others follow."""

    sessions: list[SessionOverview]
    more: bool


NO_SESSIONS = SessionPage([], more=False)


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
        created_after_ms: Created after this moment.
        created_before_ms: Created before this moment.

    Raises:
        InvalidRequest: A field is longer than 256 characters, or a moment is out of range.
    """

    workspace: str = ""
    status: str = ""
    model: str = ""
    text: str = ""
    updated_after_ms: int = 0
    updated_before_ms: int = 0
    created_after_ms: int = 0
    created_before_ms: int = 0

    def __post_init__(self) -> None:
        for name in ("workspace", "status", "model", "text"):
            length = len(getattr(self, name))
            if length > MAX_FILTER_CHARACTERS:
                raise InvalidRequest(f"{name} has {length} characters; allowed are {MAX_FILTER_CHARACTERS}")
        for name in _MOMENTS:
            if not 0 <= getattr(self, name) <= MAX_MOMENT:
                raise InvalidRequest(f"{name} is {getattr(self, name)}; allowed are 0 to {MAX_MOMENT}")


_TAIL = "(SELECT first_entry FROM entry_tail)"
_COLUMNS = "session_id, workspace, title, status, provider, model, parent_session_id, created_at"


class _Source(NamedTuple):
    """Sessions of one shard, to which filters, an order and a limit are added.

    Attributes:
        select: The columns of a `SessionOverview`, and where they come from.
        updated_at: The expression for the last update.
        parameters: What `select` is given.
        condition: What holds for all of them; empty: nothing more than `select` says.
    """

    select: str
    updated_at: str
    parameters: tuple[object, ...] = ()
    condition: str = ""


_MOVING_UPDATE = "max(folded_updated_at, tail_updated_at)"
_MOVING = _Source(
    f"SELECT {_COLUMNS}, {_MOVING_UPDATE} AS updated_at, folded_entry_count + tail_entry_count,"  # noqa: S608 - constants
    " CAST(metadata AS BLOB)"
    " FROM (SELECT session, count(*) AS tail_entry_count, max(created_at) AS tail_updated_at FROM entries"
    f"       WHERE id >= {_TAIL} GROUP BY session) tail CROSS JOIN sessions s ON s.id = tail.session",
    _MOVING_UPDATE,
)
"""Sessions with entries in the tail: at most as many as the tail has entries, in no order."""

_SETTLED_COLUMNS = f"SELECT {_COLUMNS}, folded_updated_at AS updated_at, folded_entry_count, CAST(metadata AS BLOB)"
_SETTLED = _Source(
    f"{_SETTLED_COLUMNS} FROM sessions s",
    "folded_updated_at",
    condition=f"s.id NOT IN (SELECT session FROM entries WHERE id >= {_TAIL})",  # noqa: S608 - as above
)
"""All other sessions: what the indexes say of them is all there is, so that a page costs its own rows only."""


def _settled_among(rows: Sequence[int]) -> _Source:
    """Those of them that are among `rows`, whose number decides what that costs."""
    return _SETTLED._replace(
        select=f"{_SETTLED_COLUMNS} FROM json_each(?) CROSS JOIN sessions s ON s.id = value",
        parameters=(orjson.dumps(rows).decode(),),
    )


def likely_share(page_size: int, shards: int) -> int:
    """How many sessions of a page one shard hardly ever exceeds, when ids spread sessions evenly."""
    mean = page_size / shards
    return min(page_size, math.ceil(mean + 4 * math.sqrt(mean) + 4))


def sessions_of_shard(
    connection: Connection, wanted: SessionFilter, order: SessionOrder, after: PageKey | None, page_size: int
) -> SessionPage:
    """The first sessions of one shard after a key, at most `page_size`."""
    found = sessions_with(connection, wanted.text)
    if found == []:
        return NO_SESSIONS
    sessions: list[SessionOverview] = []
    for source in (_MOVING, _SETTLED if found is None else _settled_among(found)):
        conditions, parameters = _conditions(wanted, order, after, source.updated_at)
        where = " AND ".join(filter(None, [*conditions, source.condition])) or "true"
        rows = connection.execute(
            f"{source.select} WHERE {where} ORDER BY {_ordering(order, source.updated_at)} LIMIT ?",
            (*source.parameters, *parameters, page_size + 1),
        )
        sessions.extend(map(SessionOverview._make, rows))
    return session_page(order.sorted(sessions), page_size)


def exhausted(pages: Sequence[SessionPage], order: SessionOrder, page_size: int) -> list[int]:
    """Which shards' cut pages lie within the merged page altogether, so that more of theirs may belong to it."""
    merged = order.sorted([session for page in pages for session in page.sessions])
    within = {session.session_id for session in merged[:page_size]}
    return [number for number, page in enumerate(pages) if page.more and page.sessions[-1].session_id in within]


def merge_sessions(pages: Sequence[SessionPage], order: SessionOrder, page_size: int) -> SessionPage:
    """One page out of the pages of all shards.

    Nothing past the end of a shard's cut page is taken: what that shard left out may belong before it.
    """
    merged = order.sorted([session for page in pages for session in page.sessions])
    ends = {page.sessions[-1].session_id for page in pages if page.more}
    for number, session in enumerate(merged, start=1):
        if session.session_id in ends:
            return session_page(merged[:number], page_size)._replace(more=True)
    return session_page(merged, page_size)


def session_page(sessions: Iterable[SessionOverview], page_size: int) -> SessionPage:
    """As many of these sessions as a page takes, by number and by bytes; at least one."""
    page: list[SessionOverview] = []
    size = 0
    for session in sessions:
        size += ITEM_OVERHEAD_BYTES + len(session.metadata_json) + len("".join(session[:7]).encode())
        if len(page) == page_size or (page and size > MAX_PAGE_BYTES):
            return SessionPage(page, more=True)
        page.append(session)
    return SessionPage(page, more=False)


def _conditions(
    wanted: SessionFilter, order: SessionOrder, after: PageKey | None, updated_at: str
) -> tuple[list[str], list[object]]:
    """Conditions on sessions, `updated_at` being the expression for their last update, and their parameters."""
    conditions: list[str] = []
    parameters: list[object] = []
    # A unary plus keeps SQLite from an index that is not in this order: without statistics it would take any.
    chosen = order.sort is not SessionSort.UPDATED
    for column in ("workspace", "status", "model"):
        value = getattr(wanted, column)
        if value:
            conditions.append(f"{'+' if chosen else ''}{column} = ?")
            parameters.append(value)
            chosen = True
    for column, moments in (
        (updated_at, (wanted.updated_after_ms, wanted.updated_before_ms)),
        ("created_at", (wanted.created_after_ms, wanted.created_before_ms)),
    ):
        for comparison, moment in zip((">", "<"), moments, strict=True):
            if moment:
                conditions.append(f"{column} {comparison} ?")
                parameters.append(moment)
    if after is not None:
        value = _value(order, updated_at)
        past = "<" if order.direction is Direction.DESCENDING else ">"
        later = "<" if order.backwards else ">"
        # The first condition is the one that an index can begin at.
        conditions.append(f"{value} {past}= ? AND ({value} {past} ? OR session_id {later} ?)")
        parameters += [after.value, after.value, after.session_id]
    if wanted.text:
        pattern = f"%{_escaped(wanted.text)}%"
        conditions.append(r"(title LIKE ? ESCAPE '\' OR session_id LIKE ? ESCAPE '\')")
        parameters += [pattern, pattern]
    return conditions, parameters


def _ordering(order: SessionOrder, updated_at: str) -> str:
    ties = " DESC" if order.backwards else ""
    return f"{_value(order, updated_at)} {order.direction}, session_id{ties}"


def _value(order: SessionOrder, updated_at: str) -> str:
    match order.sort:
        case SessionSort.UPDATED:
            return updated_at
        case SessionSort.CREATED:
            return "created_at"
        case SessionSort.TITLE:
            return "title COLLATE NOCASE"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
