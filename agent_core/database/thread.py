"""A thread that owns SQLite connections and runs whole functions on them.

aiosqlite gives each connection a thread and a queue, and hops between threads once per awaited call. A batch
must cost one hop, not one per statement, so this module asks aiosqlite's thread to run a function of ours;
aiosqlite offers that only under a private name, which is used here and nowhere else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar, cast

import aiosqlite

from agent_core.uninterrupted import to_its_end


class Closeable(Protocol):
    """What a thread can own."""

    def close(self) -> None:
        """Release it; called on the thread."""


Owned = TypeVar("Owned", bound=Closeable)
Result = TypeVar("Result")


class DatabaseThread(Generic[Owned]):
    """One thread, what it opened, and a queue of functions to run there in order."""

    def __init__(self, connection: aiosqlite.Connection, owned: Owned) -> None:
        self._connection = connection
        self.owned = owned

    @classmethod
    async def start(cls, open_owned: Callable[[], Owned], *, name: str) -> DatabaseThread[Owned]:
        """Start a thread called `name` that opens `open_owned()` and keeps it until `close`.

        Raises:
            Exception: Whatever `open_owned` raised; the thread is gone then.
        """
        connection = aiosqlite.Connection(cast("Callable[[], Any]", open_owned), iter_chunk_size=1)
        connection._thread.name = name  # noqa: SLF001 - aiosqlite offers no other way to name its thread
        try:
            await to_its_end(connection)
        except asyncio.CancelledError:
            # Whoever comes next must not find the files in use by a thread that nobody knows.
            await connection.close()
            raise
        return cls(connection, cast("Owned", connection._conn))  # noqa: SLF001 - what open_owned returned

    async def run(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Run `function(*arguments)` on the thread and return its result or raise its error.

        Raises:
            ValueError: The thread was closed.
        """
        execute: Any = self._connection._execute  # noqa: SLF001 - see the module's docstring
        return cast("Result", await execute(function, *arguments))

    async def close(self) -> None:
        """Let the queued functions finish, close what the thread owns, and end it."""
        await self._connection.close()
