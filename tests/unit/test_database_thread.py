from __future__ import annotations

import asyncio
import threading

import pytest

from agent_core.database.thread import DatabaseThread
from tests.waiting import until


class Owned:
    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


async def test_a_start_that_is_cancelled_leaves_nothing_open() -> None:
    begun, may_end, owned = threading.Event(), threading.Event(), Owned()

    def open_slowly() -> Owned:
        begun.set()
        assert may_end.wait(10)
        return owned

    starting = asyncio.create_task(DatabaseThread.start(open_slowly, name="slow to open"))
    await until(begun.is_set)
    starting.cancel()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert owned.closed
    # It has done its last work, and ends.
    await until(lambda: "slow to open" not in {thread.name for thread in threading.enumerate()})
