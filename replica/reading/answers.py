"""What the reads of a node answer: the result, and the positions of the groups that it was read at."""

from __future__ import annotations

from typing import NamedTuple

from replica.reading.positions import GroupPosition
from replica.reading.queries import SessionOverview, TranscriptEntry
from replica.reading.sql.workers import QueryResult
from replica.reading.tool_calls import ToolCall


class SessionsAnswer(NamedTuple):
    """One page of sessions.

    Attributes:
        next_page_token: Continues the list; empty: no further page. In a list by last update, a session that is
            updated between two pages moves and may be on both or on neither; all others are on one.
        positions: Every group's position, at or before which nothing is missing.
    """

    sessions: list[SessionOverview]
    next_page_token: str
    positions: list[GroupPosition]


class SessionAnswer(NamedTuple):
    """One session, and the position of its group that it was read at."""

    session: SessionOverview
    position: GroupPosition


class TranscriptAnswer(NamedTuple):
    """Entries of one session in order, whether others follow, and the position of its group."""

    entries: list[TranscriptEntry]
    more: bool
    position: GroupPosition


class ToolCallsAnswer(NamedTuple):
    """Tool calls of one session in order, whether others follow, and the position of its group."""

    tool_calls: list[ToolCall]
    more: bool
    position: GroupPosition


class QueryAnswer(NamedTuple):
    """The result of SQL.

    Attributes:
        result: Columns and rows.
        shard: The shard that was read; None: all of them.
        positions: Of the groups that were read.
    """

    result: QueryResult
    shard: int | None
    positions: list[GroupPosition]
