from __future__ import annotations

import asyncio

import pytest

from primary.succession import Succession


async def test_who_asks_while_a_primary_changes_waits_until_that_is_over() -> None:
    succession = Succession()
    succession.begin(0)
    waiting = asyncio.ensure_future(succession.settled(0))
    await succession.settled(1)  # another group's callers do not wait
    assert not waiting.done()
    succession.end(0)
    await asyncio.wait_for(waiting, 1.0)
    await succession.settled(0)


async def test_who_stops_waiting_leaves_the_others_waiting() -> None:
    succession = Succession()
    succession.begin(0)
    gone, staying = (asyncio.ensure_future(succession.settled(0)) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert not staying.done()
    succession.end(0)
    await asyncio.wait_for(staying, 1.0)


async def test_callers_go_on_when_nobody_leads_in_time() -> None:
    succession = Succession(patience_seconds=0.01)
    succession.begin(0)
    await asyncio.wait_for(succession.settled(0), 1.0)
