"""What both interfaces of the read side share: arguments are checked here, positions waited for and reported."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from agent_core.database.build import Connection
from agent_core.errors import InvalidRequest, Unavailable
from agent_core.position import START, Position
from agent_core.routing import ShardLayout, check_session_id
from replica.reading import queries
from replica.reading.paging import PageKey, decode_page_token, encode_page_token
from replica.reading.pool import ReadPool
from replica.reading.positions import DEFAULT_WAIT_SECONDS, AppliedPositions, GroupPosition
from replica.reading.queries import SessionFilter, SessionOverview, SessionPage, TranscriptEntry
from replica.reading.sql.limits import SqlLimits
from replica.reading.sql.workers import QueryResult, SqlWorkers

MAX_SEQ = 2**63 - 1

Result = TypeVar("Result")


class SessionList(NamedTuple):
    """One page of sessions, most recently updated first.

    Attributes:
        next_page_token: Continues the list; empty: no further page. A session that is updated between two pages
            moves to the front and may be on neither.
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


class QueryAnswer(NamedTuple):
    """The result of SQL over one shard, and the position of its group that it was read at."""

    result: QueryResult
    shard: int
    position: GroupPosition


class Reading:
    """The reads of one node. `min_position` and `wait_seconds` mean the same everywhere.

    `min_position`: wait until the group has applied this (read your writes); None: read what is there.
    `wait_seconds`: for how long, 0 to 30; None: 2.

    Every method may raise `InvalidRequest` naming the argument, `PositionNotReached`, `Overloaded`,
    `Unavailable` and `ShardDamaged`, beside what it names itself.
    """

    def __init__(
        self, *, layout: ShardLayout, applied: AppliedPositions, pool: ReadPool, sql_workers: SqlWorkers
    ) -> None:
        self.layout = layout
        self.applied = applied
        self.pool = pool
        self.sql_workers = sql_workers

    @classmethod
    def open(
        cls,
        data_directory: Path,
        layout: ShardLayout,
        applied: AppliedPositions,
        *,
        sql_workers: int = 2,
        sql_limits: SqlLimits | None = None,
    ) -> Reading:
        """The reads of the node whose data lies in `data_directory`; nothing is opened before the first read.

        `sql_workers` processes at most run SQL at once, each statement within `sql_limits`.
        """
        pool = ReadPool(data_directory, layout)
        return cls(layout=layout, applied=applied, pool=pool, sql_workers=SqlWorkers(sql_workers, sql_limits))

    async def close(self) -> None:
        """Stop the workers for SQL, and let the reads that are under way end."""
        await self.sql_workers.close()
        await self.pool.close()

    async def sessions(
        self,
        wanted: SessionFilter,
        *,
        page_size: int = queries.DEFAULT_PAGE_SIZE,
        page_token: str = "",
        min_positions: Mapping[int, Position] | None = None,
        wait_seconds: float | None = None,
    ) -> SessionList:
        """One page of the sessions of all shards; a shard that has not arrived here yet counts as empty."""
        if not 1 <= page_size <= queries.MAX_PAGE_SIZE:
            raise InvalidRequest(f"page_size is {page_size}; allowed are 1 to {queries.MAX_PAGE_SIZE}")
        after = decode_page_token(page_token)
        groups = range(self.layout.shard_group_count)
        for group in min_positions or ():
            if group not in groups:
                raise InvalidRequest(f"min_position names group {group}; this cluster has 0 to {groups[-1]}")
        deadline = _Deadline.after(wait_seconds)
        await self._wait(min_positions or {}, deadline)
        positions = [GroupPosition(group, self.applied.applied(group)) for group in groups]
        reads = await self.pool.read_each(
            range(self.layout.shard_count),
            partial(queries.sessions_of_shard, wanted=wanted, after=after, page_size=page_size),
            empty=SessionPage([], more=False),
        )
        for shard, (_, read_at) in enumerate(reads):
            await self._until_visible(shard, read_at, deadline)
        sessions, more = queries.merge_sessions([page for page, _ in reads], page_size)
        token = encode_page_token(PageKey(sessions[-1].updated_at_ms, sessions[-1].session_id)) if more else ""
        return SessionList(sessions, token, positions)

    async def session(
        self, session_id: str, *, min_position: Position | None = None, wait_seconds: float | None = None
    ) -> SessionAnswer:
        """One session.

        Raises:
            SessionNotFound: There is no session of this id, as far as this node has applied.
        """
        shard = self.layout.shard_of(check_session_id(session_id))
        deadline = _Deadline.after(wait_seconds)
        position = await self._position(shard, min_position, deadline)
        overview = await self._read(shard, partial(queries.session, session_id=session_id), deadline)
        return SessionAnswer(overview, position)

    async def transcript(
        self,
        session_id: str,
        *,
        after_seq: int = 0,
        limit: int = queries.DEFAULT_TRANSCRIPT_LIMIT,
        min_position: Position | None = None,
        wait_seconds: float | None = None,
    ) -> TranscriptAnswer:
        """The entries of a session past `after_seq`, as many as `limit` and the bound on bytes allow.

        Raises:
            SessionNotFound: There is no session of this id, as far as this node has applied.
        """
        shard = self.layout.shard_of(check_session_id(session_id))
        if not 1 <= limit <= queries.MAX_TRANSCRIPT_LIMIT:
            raise InvalidRequest(f"limit is {limit}; allowed are 1 to {queries.MAX_TRANSCRIPT_LIMIT}")
        if not 0 <= after_seq <= MAX_SEQ:
            raise InvalidRequest(f"after_seq is {after_seq}; allowed are 0 to {MAX_SEQ}")
        deadline = _Deadline.after(wait_seconds)
        position = await self._position(shard, min_position, deadline)
        page = await self._read(
            shard, partial(queries.transcript, session_id=session_id, after_seq=after_seq, limit=limit), deadline
        )
        return TranscriptAnswer(page.entries, page.more, position)

    async def query(
        self,
        sql: str,
        shard: int,
        *,
        parameters_json: bytes = b"",
        max_rows: int | None = None,
        timeout_seconds: float | None = None,
        min_position: Position | None = None,
        wait_seconds: float | None = None,
    ) -> QueryAnswer:
        """Run one reading SQL statement over a shard, in a process of its own; see `SqlWorkers.query`.

        Raises:
            QueryRefused: The statement is wrong, or does anything but read.
            QueryLimit: It needs more time, memory or size than it may have.
        """
        position = await self._position(self.checked_shard(shard), min_position, _Deadline.after(wait_seconds))
        path = self.pool.path(shard)
        if not path.exists():
            raise Unavailable(f"shard {shard} has not arrived on this node yet")
        with self.pool.elsewhere(shard):
            result = await self.sql_workers.query(
                path, sql, parameters_json, max_rows=max_rows, seconds=timeout_seconds
            )
        # The worker cannot say where its snapshot stood; the shard's row now is at or past that.
        await self._read(shard, _nothing, _Deadline.after(wait_seconds))
        return QueryAnswer(result, shard, position)

    def checked_shard(self, shard: int) -> int:
        """Return a shard number that came from outside.

        Raises:
            InvalidRequest: The cluster has no such shard.
        """
        if not 0 <= shard <= self.layout.workspace_shard:
            raise InvalidRequest(
                f"shard is {shard}; this cluster has 0 to {self.layout.shard_count - 1}, "
                f"and {self.layout.workspace_shard} for the workspace"
            )
        return shard

    async def _position(self, shard: int, min_position: Position | None, deadline: _Deadline) -> GroupPosition:
        """The position to report for a read that begins after this returns."""
        group = self.layout.group_of(shard)
        await self._wait({group: min_position or START}, deadline)
        return GroupPosition(group, self.applied.applied(group))

    async def _wait(self, min_positions: Mapping[int, Position], deadline: _Deadline) -> None:
        """Wait for the positions of all groups."""
        for group, min_position in min_positions.items():
            await self.applied.wait(group, min_position, deadline.seconds_left)

    async def _read(self, shard: int, function: Callable[[Connection], Result], deadline: _Deadline) -> Result:
        # An error needs no wait: a session that is not there was not there before either.
        result, read_at = await self.pool.read(shard, function)
        await self._until_visible(shard, read_at, deadline)
        return result

    async def _until_visible(self, shard: int, read_at: Position | None, deadline: _Deadline) -> None:
        await self.applied.until_visible(self.layout.group_of(shard), read_at, deadline.seconds_left)


class _Deadline(NamedTuple):
    """When a read stops waiting for positions.

    Attributes:
        seconds: For how long it waits in all.
        at: When that is over, on the monotonic clock.
    """

    seconds: float
    at: float

    @classmethod
    def after(cls, wait_seconds: float | None) -> _Deadline:
        seconds = DEFAULT_WAIT_SECONDS if wait_seconds is None else wait_seconds
        return cls(seconds, time.monotonic() + seconds)

    @property
    def seconds_left(self) -> float:
        """What is left of it; all of it where it is out of range, for whoever waits to refuse."""
        return self.seconds if self.seconds < 0 else max(0.0, self.at - time.monotonic())


def _nothing(_: Connection) -> None:
    """Read no more than the shard's own row."""
