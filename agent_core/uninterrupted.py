"""Waiting for work that goes on although nobody waits for it any more.

What runs in a thread cannot be cancelled: a task that is cancelled while it waits for one leaves at once, and gives
back its locks, while the thread still works. Whoever holds something for the thread's sake waits with this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

Result = TypeVar("Result")


async def to_its_end(work: Awaitable[Result]) -> Result:
    """Wait until `work` has ended, also when this task is told to end meanwhile; what it came to.

    Raises:
        asyncio.CancelledError: This task was told to end; the work has ended by now, with whatever outcome.
        Exception: Whatever the work raised.
    """
    working = asyncio.ensure_future(work)
    told_to_end: asyncio.CancelledError | None = None
    while not working.done():
        try:
            await asyncio.wait({working})  # Unlike `await working`, this does not pass a cancellation on.
        except asyncio.CancelledError as cancelled:
            told_to_end = cancelled
    if told_to_end is not None:
        if not working.cancelled():
            working.exception()  # looked at, so that it is not reported as forgotten
        raise told_to_end
    return working.result()
