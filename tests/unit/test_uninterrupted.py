from __future__ import annotations

import asyncio
import threading

import pytest

from agent_core.uninterrupted import to_its_end
from tests.waiting import until


class SlowWork:
    """Work in a thread that ends when it is let."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.ended = False

    def __call__(self) -> str:
        self.begun.set()
        assert self.may_end.wait(10)
        self.ended = True
        return "done"


async def test_what_the_work_came_to_is_returned_or_raised() -> None:
    assert await to_its_end(asyncio.to_thread(lambda: 7)) == 7
    with pytest.raises(ZeroDivisionError):
        await to_its_end(asyncio.to_thread(lambda: 1 / 0))


async def test_a_lock_is_held_until_the_thread_has_ended_however_often_its_holder_is_cancelled() -> None:
    lock, work = asyncio.Lock(), SlowWork()

    async def hold() -> None:
        async with lock:
            await to_its_end(asyncio.to_thread(work))

    holder = asyncio.create_task(hold())
    await until(work.begun.is_set)
    for _ in range(3):
        holder.cancel()
        await asyncio.sleep(0)
    assert lock.locked()
    assert not work.ended
    work.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await holder
    assert work.ended
    assert not lock.locked()


async def test_an_error_of_the_work_gives_way_to_a_cancellation() -> None:
    began, may_end = asyncio.Event(), asyncio.Event()

    async def fail() -> None:
        began.set()
        await may_end.wait()
        raise ValueError("too late to matter")

    waiting = asyncio.create_task(to_its_end(fail()))
    await began.wait()
    waiting.cancel()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
