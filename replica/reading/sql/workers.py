"""The node's side of SQL from outside: starts worker processes, hands them queries, stops those that overrun."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from agent_core.errors import Overloaded, QueryLimit, Unavailable, from_code
from replica.reading.sql.limits import SqlLimits
from replica.reading.sql.process import WorkerGone, WorkerProcess
from replica.reading.sql.request import encode_request

START_SECONDS = 20.0
"""How long a new process may take to say that it is ready."""
GRACE_SECONDS = 0.5
"""How long past its deadline a query may take to stop by itself, before its process is killed."""
MAX_WAITING_QUERIES = 32
SQLITE_ENGINE = "replica.reading.sql.sqlite_engine"
"""Reads one shard."""
DUCKDB_ENGINE = "replica.reading.sql.duckdb_engine"
"""Reads all shards as whole tables."""


class QueryResult(NamedTuple):
    """What a query returned.

    Attributes:
        rows_json: A JSON array of arrays; blobs as `{"base64": "…"}`, infinities as null.
        truncated: The limit on rows or on bytes cut the result.
    """

    columns: list[str]
    rows_json: bytes
    row_count: int
    truncated: bool


class SqlWorkers:
    """At most `count` worker processes, started when they are needed; every query obeys `limits`.

    Attributes:
        at_once: How many queries run at once; others wait for their turn.
        queries: Queries that were handed to a worker, since the start.
        killed: Workers that had to be stopped: their query overran, was cancelled, or took them down.
    """

    def __init__(self, count: int = 2, limits: SqlLimits | None = None, *, engine: str = SQLITE_ENGINE) -> None:
        self._engine = engine
        self._limits = limits or SqlLimits()
        self.at_once = count
        self._slots = asyncio.Semaphore(count)
        self._waiting = 0
        self._idle: list[WorkerProcess] = []
        self._all: set[WorkerProcess] = set()
        self._left_starts: list[asyncio.Task[WorkerProcess]] = []
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False
        self.queries = 0
        self.killed = 0

    @property
    def running(self) -> int:
        """Worker processes that live now."""
        return len(self._all)

    async def query(
        self,
        paths: Sequence[Path],
        sql: str,
        parameters_json: bytes = b"",
        *,
        max_rows: int | None = None,
        seconds: float | None = None,
    ) -> QueryResult:
        """Run one reading statement over shard files.

        Args:
            paths: The shard file; with DuckDB, all of them, the workspace shard's last.
            sql: One statement, at most 100,000 bytes.
            parameters_json: A JSON array (positional) or object (named) of null, booleans, numbers, texts and
                blobs as `{"base64": "…"}`; empty: none.
            max_rows: Rows to return, 1 to `limits.rows`; None: `limits.default_rows`.
            seconds: How long the query may run, more than 0 and at most `limits.seconds`; as long it may wait for
                a worker. None: `limits.default_seconds`.

        Raises:
            InvalidRequest: An argument is out of range.
            QueryRefused: The statement is wrong, or does anything but read.
            QueryLimit: It needs more time, memory or size than it may have.
            Overloaded: All workers are busy for too long, or too many queries wait.
            Unavailable: The shard cannot be read now, or the node is stopping.
            ShardDamaged: The shard contradicts itself.
        """
        seconds = self._limits.default_seconds if seconds is None else seconds
        request = encode_request(
            paths,
            sql,
            parameters_json,
            max_rows=self._limits.default_rows if max_rows is None else max_rows,
            seconds=seconds,
            limits=self._limits,
        )
        async with self._worker(seconds) as worker:
            self.queries += 1
            try:
                async with asyncio.timeout(seconds + GRACE_SECONDS):
                    head, rows = await worker.ask(request)
            except TimeoutError:
                raise QueryLimit(
                    f"the query ran longer than its limit of {seconds:g} s, and its process was stopped"
                ) from None
            except WorkerGone as error:
                self._check_open()
                raise QueryLimit(f"the query used up its process's memory or processor time: {error}") from error
            worker.reusable = not head.get("exiting", False)
        if "code" in head:
            raise from_code(head["code"], head["message"])
        return QueryResult(head["columns"], rows, head["row_count"], head["truncated"])

    async def close(self) -> None:
        """Stop every worker; queries that run end as errors."""
        self._closed = True
        for start in self._left_starts:
            start.cancel()
        await asyncio.gather(*self._left_starts, return_exceptions=True)
        for worker in tuple(self._all):
            self._stop(worker)
        await asyncio.gather(*self._ending)

    @asynccontextmanager
    async def _worker(self, seconds: float) -> AsyncIterator[WorkerProcess]:
        """A worker for one query; it is kept for the next only if it says so at the end."""
        await self._wait_for_slot(seconds)
        try:
            worker = self._living() or await self._started()
            worker.reusable = False
            try:
                yield worker
            finally:
                if worker.reusable and not self._closed:
                    self._idle.append(worker)
                else:
                    self._stop(worker)
        finally:
            self._slots.release()

    def _living(self) -> WorkerProcess | None:
        """An idle worker that did not end meanwhile."""
        while self._idle:
            worker = self._idle.pop()
            if worker.alive:
                return worker
            self._stop(worker)
        return None

    async def _started(self) -> WorkerProcess:
        """A new worker.

        A start whose query was given up goes on, for the next query that needs a worker: else impatient callers
        would keep a busy node from ever having one.
        """
        start = self._left_starts.pop() if self._left_starts else asyncio.create_task(self._start())
        try:
            return await asyncio.shield(start)
        except asyncio.CancelledError:
            self._left_starts.append(start)
            raise

    async def _wait_for_slot(self, seconds: float) -> None:
        if self._waiting >= MAX_WAITING_QUERIES:
            raise Overloaded(f"{MAX_WAITING_QUERIES} queries wait on this node already; try again later")
        self._waiting += 1
        try:
            async with asyncio.timeout(seconds):
                await self._slots.acquire()
        except TimeoutError:
            raise Overloaded(f"other queries kept all workers of this node busy for {seconds:g} s") from None
        finally:
            self._waiting -= 1

    async def _start(self) -> WorkerProcess:
        self._check_open()
        worker = await WorkerProcess.start(self._engine, self._limits)
        self._all.add(worker)
        ready = False
        try:
            self._check_open()
            async with asyncio.timeout(START_SECONDS):
                await worker.receive()
            ready = True
        except (TimeoutError, WorkerGone) as error:
            self._check_open()
            raise Unavailable(f"a worker process for SQL did not start within {START_SECONDS:g} s") from error
        finally:
            if not ready:
                self._stop(worker)
        return worker

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("this node is stopping")

    def _stop(self, worker: WorkerProcess) -> None:
        if worker in self._all:
            self._all.discard(worker)
            self.killed += worker.kill()
            task = asyncio.create_task(worker.ended())
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
