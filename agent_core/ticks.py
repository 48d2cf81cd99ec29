"""Waits that end together: whatever looks after something at intervals wakes the process once, not each by itself.

A node has such looks for each of its groups. Where each kept its own time, an idle one would wake hundreds of times
a second, and most of what that costs is the waking.
"""

from __future__ import annotations

import asyncio
import random

_PHASE = random.random()  # noqa: S311 - so that nodes on one machine do not all wake at the same moment
_EARLY = 0.1
"""The part of an interval by which a tick is as good as here: timers may fire a little early."""


async def next_tick(seconds: float) -> None:
    """Wait for a tick; whoever waits for ticks of the same interval is woken by the same one."""
    await asyncio.sleep(seconds_to_tick(asyncio.get_running_loop().time(), seconds))


def seconds_to_tick(now: float, interval: float) -> float:
    """How long it is to the next tick, or to the one after it where that one is as good as here."""
    past = now / interval - _PHASE + _EARLY
    return (1 - past % 1 + _EARLY) * interval
