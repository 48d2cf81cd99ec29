"""Read-only connections to the shards of a node, and the threads that read through them."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from agent_core.database.build import Connection, DatabaseError, open_for_reading
from agent_core.database.schema import read_position, shard_path
from agent_core.errors import HeadwaterError, Overloaded, ShardDamaged, Unavailable
from agent_core.position import Position
from agent_core.routing import ShardLayout

MAX_IDLE_CONNECTIONS = 256
"""Connections kept open between reads, over all shards; each costs two file descriptors."""
MAX_WAITING_READS = 1024
"""Reads that may be under way or wait for a thread."""

DAMAGED = frozenset({"SQLITE_CORRUPT", "SQLITE_NOTADB"})

Result = TypeVar("Result")


class ReadPool:
    """Runs functions on read-only connections, each within one snapshot of its shard.

    Connections are kept per shard between reads. A snapshot ends with its function, whatever happens in it:
    a snapshot that stayed open would keep the shard's write-ahead log from being emptied.

    Attributes:
        reads: Reads of a shard since the start.
        failures: Those of them that SQLite could not serve.
    """

    def __init__(self, data_directory: Path, layout: ShardLayout, threads: int = 4) -> None:
        self._data_directory = data_directory
        self._layout = layout
        self._threads = threads
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="reading")
        self._running: dict[Future[Any], frozenset[int]] = {}
        self._away: Counter[int] = Counter()
        self.reads = 0
        self._lock = threading.Lock()  # guards everything below
        self._idle: defaultdict[int, list[Connection]] = defaultdict(list)
        self._idle_count = 0
        self._forgotten: Counter[int] = Counter()
        self.failures = 0

    def path(self, shard: int) -> Path:
        """Where this node keeps a shard."""
        return shard_path(self._data_directory, self._layout.shard_file_name(shard))

    async def read(
        self, shard: int, function: Callable[[Connection], Result], *, empty: Result | None = None
    ) -> tuple[Result, Position | None]:
        """Run `function` within one snapshot of a shard.

        Args:
            shard: The shard.
            function: Runs on another thread, only reads, and returns no cursor: that would keep the snapshot.
            empty: The result while the shard has not arrived on this node; None: that is an error.

        Returns:
            The function's result, and the shard's own row: the position of the last transaction that wrote this
            shard (None for a shard that has not arrived).

        Raises:
            Unavailable: The shard has not arrived, or SQLite could not read it now.
            ShardDamaged: The file contradicts itself.
            Overloaded: Too many reads wait.
        """
        return await self._submit((shard,), partial(self._read, shard, function, empty))

    async def read_each(
        self, shards: Sequence[int], function: Callable[[Connection], Result], *, empty: Result
    ) -> list[tuple[Result, Position | None]]:
        """Run `function` within one snapshot of each of many shards; what `read` returns, in the order of `shards`.

        Each thread takes a share of the shards in one go: a hop between threads costs as much as a short read.

        Raises:
            HeadwaterError: As `read`, but a shard that has not arrived counts as `empty`.
        """
        shares = [shards[start :: self._threads] for start in range(min(self._threads, len(shards)))]

        def read_share(share: Sequence[int]) -> dict[int, tuple[Result, Position | None]]:
            return {shard: self._read(shard, function, empty) for shard in share}

        by_shard: dict[int, tuple[Result, Position | None]] = {}
        for results in await asyncio.gather(*(self._submit(share, partial(read_share, share)) for share in shares)):
            by_shard.update(results)
        return [by_shard[shard] for shard in shards]

    async def forget(self, shard: int) -> None:
        """Close every connection that is open to a shard, after the reads on it have ended.

        Its file can be replaced then, together with its `-wal` and `-shm`. A read that begins later opens it
        anew; whoever replaces a file keeps readers away meanwhile.
        """
        with self._lock:
            self._forgotten[shard] += 1
            connections = self._idle.pop(shard, [])
            self._idle_count -= len(connections)
        for connection in connections:
            connection.close()
        running = [future for future, shards in tuple(self._running.items()) if shard in shards]
        if running:
            await asyncio.wait([asyncio.wrap_future(future) for future in running])

    @asynccontextmanager
    async def away(self, shard: int) -> AsyncIterator[None]:
        """Within it nothing is open to a shard and reads of it are refused: its file is being replaced."""
        self._away[shard] += 1
        try:
            await self.forget(shard)
            yield
        finally:
            self._away[shard] -= 1

    @contextmanager
    def elsewhere(self, shard: int) -> Iterator[None]:
        """Counts as a read of a shard that another process does; `forget` waits for its end.

        Raises:
            Unavailable: The shard's file is being replaced.
        """
        self._check_in_place((shard,))
        read: Future[None] = Future()
        self._running[read] = frozenset((shard,))
        try:
            yield
        finally:
            del self._running[read]
            read.set_result(None)

    def _check_in_place(self, shards: Sequence[int]) -> None:
        for shard in shards:
            if self._away[shard]:
                raise Unavailable(f"the file of shard {shard} was damaged and is being replaced; try again later")

    async def close(self) -> None:
        """Let the reads that are under way end, and close everything."""
        await asyncio.to_thread(self._executor.shutdown)
        for shard in tuple(self._idle):
            await self.forget(shard)

    async def _submit(self, shards: Sequence[int], work: Callable[[], Result]) -> Result:
        self._check_in_place(shards)
        if len(self._running) >= MAX_WAITING_READS:
            raise Overloaded(f"{MAX_WAITING_READS} reads wait on this node already; try again later")
        try:
            future = self._executor.submit(work)
        except RuntimeError as error:
            raise Unavailable("this node is stopping") from error
        self.reads += len(shards)
        self._running[future] = frozenset(shards)
        future.add_done_callback(lambda ended: self._running.pop(ended, None))
        return await asyncio.wrap_future(future)

    def _read(
        self, shard: int, function: Callable[[Connection], Result], empty: Result | None
    ) -> tuple[Result, Position | None]:
        if self.path(shard).exists():
            try:
                with self._snapshot(shard) as connection:
                    position = read_position(connection)
                    if position is not None:
                        return function(connection), position
            except DatabaseError as error:
                with self._lock:
                    self.failures += 1
                raise _translated(shard, error) from error
        if empty is None:
            raise Unavailable(f"shard {shard} has not arrived on this node yet")
        return empty, None

    @contextmanager
    def _snapshot(self, shard: int) -> Iterator[Connection]:
        with self._lock:
            forgotten = self._forgotten[shard]
            connections = self._idle[shard]
            connection = connections.pop() if connections else None
            self._idle_count -= connection is not None
        if connection is None:
            connection = open_for_reading(self.path(shard))
        kept = False
        try:
            connection.execute("BEGIN")
            yield connection
            connection.execute("ROLLBACK")
            kept = self._keep(shard, forgotten, connection)
        finally:
            if not kept:
                connection.close()

    def _keep(self, shard: int, forgotten: int, connection: Connection) -> bool:
        with self._lock:
            if self._forgotten[shard] != forgotten or self._idle_count >= MAX_IDLE_CONNECTIONS:
                return False
            self._idle[shard].append(connection)
            self._idle_count += 1
        return True


def _translated(shard: int, error: Exception) -> HeadwaterError:
    name = getattr(error, "sqlite_errorname", "") or ""
    if name in DAMAGED:
        return ShardDamaged(f"shard {shard}: {error}")
    return Unavailable(f"shard {shard} cannot be read now: {error}")
