"""A node that breaks in three ways when it is told to, as no test can do to a process from outside."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from agent_core.database.thread import Closeable, DatabaseThread
from agent_core.log.segment import Segment
from ops.cli.main import main as run_command
from primary.capture import WalCapture

LOSE_WAL = signal.SIGUSR1
"""From now on the WAL never holds what was committed."""
LOSE_THREAD = signal.SIGUSR2
"""The threads that write the groups end."""
LOSE_SYNC = signal.SIGRTMIN
"""From now on nothing written to a log becomes durable."""


def breakable() -> None:
    """Wait for the signals; what breaks is what the signal's description says, and nothing else."""
    start = DatabaseThread.start
    writing: list[tuple[asyncio.AbstractEventLoop, DatabaseThread[Any]]] = []

    async def noted(open_owned: Callable[[], Closeable], *, name: str) -> DatabaseThread[Any]:
        thread = await start(open_owned, name=name)
        if name.startswith("writer "):
            writing.append((asyncio.get_running_loop(), thread))
        return thread

    def lose_wal(*_: object) -> None:
        WalCapture.capture = lambda _: None  # type: ignore[assignment,method-assign] # that is the fault

    def lose_thread(*_: object) -> None:
        for loop, thread in writing:
            asyncio.run_coroutine_threadsafe(thread.close(), loop)

    def lose_sync(*_: object) -> None:
        def fails(_: Segment) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        Segment.sync = fails  # type: ignore[assignment,method-assign] # that is the fault

    DatabaseThread.start = noted  # type: ignore[method-assign] # to know the threads
    signal.signal(LOSE_WAL, lose_wal)
    signal.signal(LOSE_THREAD, lose_thread)
    signal.signal(LOSE_SYNC, lose_sync)


if __name__ == "__main__":
    breakable()
    run_command(args=["node", *sys.argv[1:]])
