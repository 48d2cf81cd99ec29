"""What both interfaces of the read side share: arguments are checked here, positions waited for and reported."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TypeVar

from agent_core.database.build import Connection
from agent_core.errors import InvalidRequest, Unavailable
from agent_core.position import START, Position
from agent_core.routing import ShardLayout, check_session_id
from replica.reading import queries
from replica.reading.answers import QueryAnswer, SessionAnswer, SessionsAnswer, ToolCallsAnswer, TranscriptAnswer
from replica.reading.freshness import NO_DEMAND, AgeOf, Demand, Freshness
from replica.reading.live_follow import LiveFollow
from replica.reading.paging import LAST_UPDATED_FIRST, SessionOrder, decode_page_token, encode_page_token
from replica.reading.pool import ReadPool
from replica.reading.positions import DEFAULT_WAIT_SECONDS, AppliedPositions, GroupPosition
from replica.reading.queries import TranscriptPage
from replica.reading.session_list import (
    DEFAULT_PAGE_SIZE,
    MAX_PAGE_SIZE,
    NO_SESSIONS,
    SessionFilter,
    SessionPage,
    exhausted,
    likely_share,
    merge_sessions,
    sessions_of_shard,
)
from replica.reading.sql.limits import SqlLimits
from replica.reading.sql.priority import processors
from replica.reading.sql.workers import DUCKDB_ENGINE, SqlWorkers
from replica.reading.tool_calls import tool_calls_of

MAX_SEQ = 2**63 - 1

Result = TypeVar("Result")


class Reading:
    """The reads of one node. Each meets a `Demand` on its freshness first, and says where the node was then.

    Every method may raise `InvalidRequest` naming the argument, `PositionNotReached`, `PositionLost`, `TooStale`,
    `Overloaded`, `Unavailable` and `ShardDamaged`, beside what it names itself.
    """

    def __init__(
        self,
        *,
        layout: ShardLayout,
        applied: AppliedPositions,
        pool: ReadPool,
        sql_workers: SqlWorkers,
        whole_workers: SqlWorkers,
        age_of: AgeOf = lambda _group: 0.0,
    ) -> None:
        self.layout = layout
        self.applied = applied
        self.pool = pool
        self.sql_workers = sql_workers
        self.whole_workers = whole_workers
        self.freshness = Freshness(applied, age_of)
        self.live_follow = LiveFollow(self.transcript, applied)

    @property
    def workers(self) -> tuple[SqlWorkers, ...]:
        """The worker processes of both engines."""
        return self.sql_workers, self.whole_workers

    @classmethod
    def open(
        cls,
        data_directory: Path,
        layout: ShardLayout,
        applied: AppliedPositions,
        *,
        sql_workers: int = 2,
        sql_limits: SqlLimits | None = None,
        age_of: AgeOf = lambda _group: 0.0,
    ) -> Reading:
        """The reads of the node whose data lies in `data_directory`; nothing is opened before the first read.

        `sql_workers` processes at most run SQL over one shard at once, and as many SQL over all shards, but these
        on no more than half of the processors: replication needs the rest; other queries wait, in order. Each
        statement runs within `sql_limits`. `age_of` tells how old what the node has of a group is, in seconds.
        """
        return cls(
            layout=layout,
            applied=applied,
            pool=ReadPool(data_directory, layout),
            sql_workers=SqlWorkers(sql_workers, sql_limits),
            whole_workers=SqlWorkers(min(sql_workers, max(1, processors() // 2)), sql_limits, engine=DUCKDB_ENGINE),
            age_of=age_of,
        )

    async def close(self) -> None:
        """Stop the workers for SQL, and let the reads that are under way end."""
        for workers in self.workers:
            await workers.close()
        await self.pool.close()

    async def sessions(
        self,
        wanted: SessionFilter,
        order: SessionOrder = LAST_UPDATED_FIRST,
        *,
        page_size: int = DEFAULT_PAGE_SIZE,
        page_token: str = "",
        demand: Demand = NO_DEMAND,
    ) -> SessionsAnswer:
        """One page of the sessions of all shards; a shard that has not arrived here yet counts as empty."""
        if not 1 <= page_size <= MAX_PAGE_SIZE:
            raise InvalidRequest(f"page_size is {page_size}; allowed are 1 to {MAX_PAGE_SIZE}")
        after = decode_page_token(page_token, order)
        positions = await self._meet(demand, range(self.layout.shard_group_count))

        async def read(shards: Sequence[int], page_size: int) -> dict[int, tuple[SessionPage, Position | None]]:
            function = partial(sessions_of_shard, wanted=wanted, order=order, after=after, page_size=page_size)
            return dict(zip(shards, await self.pool.read_each(shards, function, empty=NO_SESSIONS), strict=True))

        shards = range(self.layout.shard_count)
        reads = await read(shards, likely_share(page_size, self.layout.shard_count))
        again = exhausted([page for page, _ in reads.values()], order, page_size)
        if again:
            reads.update(await read(again, page_size))
        positions = await self._shown(positions, reads.keys(), reads.values(), demand)
        sessions, more = merge_sessions([page for page, _ in reads.values()], order, page_size)
        token = encode_page_token(order, order.key(sessions[-1])) if more else ""
        return SessionsAnswer(sessions, token, positions)

    async def session(self, session_id: str, *, demand: Demand = NO_DEMAND) -> SessionAnswer:
        """One session.

        Raises:
            SessionNotFound: There is no session of this id, as far as this node has applied.
        """
        shard = self.layout.shard_of(check_session_id(session_id))
        (position,) = await self._meet(demand, [self.layout.group_of(shard)])
        overview, position = await self._read(
            position, shard, partial(queries.session, session_id=session_id), demand
        )
        return SessionAnswer(overview, position)

    async def transcript(
        self,
        session_id: str,
        *,
        after_seq: int = 0,
        limit: int = queries.DEFAULT_TRANSCRIPT_LIMIT,
        demand: Demand = NO_DEMAND,
    ) -> TranscriptAnswer:
        """The entries of a session past `after_seq`, as many as `limit` and the bound on bytes allow.

        Raises:
            SessionNotFound: There is no session of this id, as far as this node has applied.
        """
        page, position = await self._entries(session_id, after_seq, limit, demand)
        return TranscriptAnswer(page.entries, page.more, position)

    async def tool_calls(
        self,
        session_id: str,
        *,
        after_seq: int = 0,
        limit: int = queries.DEFAULT_TRANSCRIPT_LIMIT,
        demand: Demand = NO_DEMAND,
    ) -> ToolCallsAnswer:
        """The tool calls that a session's entries past `after_seq` make, each with its outcome.

        Raises:
            SessionNotFound: There is no session of this id, as far as this node has applied.
        """
        page, position = await self._entries(session_id, after_seq, limit, demand)
        return ToolCallsAnswer(*tool_calls_of(page), position)

    def follow(
        self, session_id: str, *, after_seq: int = 0, after_position: Position = START
    ) -> AsyncGenerator[TranscriptAnswer, None]:
        """A session's entries past `after_seq`, then each further one as this node applies it, without end.

        An answer without entries says that nothing more is there yet; it comes after the backfill, and then at
        least every `live_follow.IDLE_SECONDS`. `after_position` came with the entry `after_seq`, from this node or
        another one.

        Raises:
            SessionNotFound: There is no session of this id, as far as this node has applied.
            PositionLost: A fail-over has undone something of what was shown at `after_position`, or answered here
                (after `local` acknowledgement); the transcript is to be read anew.
        """
        shard = self.layout.shard_of(check_session_id(session_id))
        return self.live_follow.answers(session_id, self.layout.group_of(shard), shard, after_seq, after_position)

    async def query(
        self,
        sql: str,
        shard: int | None = None,
        *,
        parameters_json: bytes = b"",
        max_rows: int | None = None,
        timeout_seconds: float | None = None,
        demand: Demand = NO_DEMAND,
    ) -> QueryAnswer:
        """Run one reading SQL statement in a process of its own; see `SqlWorkers.query`.

        Over one shard it is SQLite's SQL and sees the shard's own tables and views. Over all shards (None) it is
        DuckDB's, and sees the tables of `whole_tables`.

        Raises:
            QueryRefused: The statement is wrong, or does anything but read.
            QueryLimit: It needs more time, memory or size than it may have.
        """
        if shard is None:
            workers, shards = self.whole_workers, range(self.layout.workspace_shard + 1)
        else:
            workers, shards = self.sql_workers, range(self.checked_shard(shard), shard + 1)
        groups = sorted({self.layout.group_of(number) for number in shards})
        positions = await self._meet(demand, groups)
        paths = [self.pool.path(number) for number in shards]
        for number, path in zip(shards, paths, strict=True):
            if not path.exists():
                raise Unavailable(f"shard {number} has not arrived on this node yet")
        with ExitStack() as elsewhere:
            for number in shards:
                elsewhere.enter_context(self.pool.elsewhere(number))
            result = await workers.query(paths, sql, parameters_json, max_rows=max_rows, seconds=timeout_seconds)
        # The worker cannot say where its snapshots stood; the shards' rows now are at or past that.
        rows = await self.pool.read_each(shards, _nothing, empty=None)
        return QueryAnswer(result, shard, await self._shown(positions, shards, rows, demand))

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

    async def shard(
        self, shard: int, function: Callable[[Connection], Result], *, demand: Demand = NO_DEMAND
    ) -> tuple[Result, GroupPosition]:
        """What `function` finds within one snapshot of a shard, and the position that it was read at.

        Raises:
            HeadwaterError: Also what `function` raises itself.
        """
        (position,) = await self._meet(demand, [self.layout.group_of(shard)])
        return await self._read(position, shard, function, demand)

    async def _entries(
        self, session_id: str, after_seq: int, limit: int, demand: Demand
    ) -> tuple[TranscriptPage, GroupPosition]:
        shard = self.layout.shard_of(check_session_id(session_id))
        if not 1 <= limit <= queries.MAX_TRANSCRIPT_LIMIT:
            raise InvalidRequest(f"limit is {limit}; allowed are 1 to {queries.MAX_TRANSCRIPT_LIMIT}")
        if not 0 <= after_seq <= MAX_SEQ:
            raise InvalidRequest(f"after_seq is {after_seq}; allowed are 0 to {MAX_SEQ}")
        (position,) = await self._meet(demand, [self.layout.group_of(shard)])
        read = partial(queries.transcript, session_id=session_id, after_seq=after_seq, limit=limit)
        return await self._read(position, shard, read, demand)

    async def _meet(self, demand: Demand, groups: Iterable[int]) -> list[GroupPosition]:
        """Wait for what a read of these groups demands; the positions to report for a read that begins then."""
        for group in demand.min_positions:
            if not 0 <= group < self.layout.shard_group_count:
                raise InvalidRequest(
                    f"min_position names group {group}; this cluster has 0 to {self.layout.shard_group_count - 1}"
                )
        return await self.freshness.meet(demand, groups)

    async def _read(
        self, position: GroupPosition, shard: int, function: Callable[[Connection], Result], demand: Demand
    ) -> tuple[Result, GroupPosition]:
        # An error needs no wait: a session that is not there was not there before either.
        result, read_at = await self.pool.read(shard, function)
        (position,) = await self._shown([position], (shard,), [(result, read_at)], demand)
        return result, position

    async def _shown(
        self,
        positions: Iterable[GroupPosition],
        shards: Iterable[int],
        reads: Iterable[tuple[object, Position | None]],
        demand: Demand,
    ) -> list[GroupPosition]:
        """Wait until what was read of each shard may be seen; nearly always at once.

        Returns:
            The positions of the groups, raised to what the shards' rows told: a snapshot may show more than its
            group had applied before it, and who passes on the position must not see less of it elsewhere.
        """
        seconds = DEFAULT_WAIT_SECONDS if demand.wait_seconds is None else demand.wait_seconds
        shown = {at.group: at for at in positions}
        for shard, (_, read_at) in zip(shards, reads, strict=True):
            group = self.layout.group_of(shard)
            await self.applied.until_visible(group, read_at, seconds)
            if read_at is not None and read_at > shown[group].position:
                shown[group] = shown[group]._replace(position=read_at)
        return list(shown.values())


def _nothing(_: Connection) -> None:
    """Read no more than the shard's own row."""
