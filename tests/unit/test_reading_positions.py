"""Waiting for positions."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_core.errors import InvalidRequest, PositionLost, PositionNotReached, Unavailable
from agent_core.position import START, Position
from replica.reading.positions import AppliedPositions, PositionWaiters

POSITIONS = st.builds(Position, st.integers(0, 3), st.integers(0, 10))


@given(st.lists(st.one_of(POSITIONS.map(lambda p: ("add", p)), POSITIONS.map(lambda p: ("advance", p)))))
def test_a_waiter_is_released_by_the_first_position_that_reaches_it_and_only_once(
    steps: list[tuple[str, Position]],
) -> None:
    waiters = PositionWaiters()
    waiting: dict[int, Position] = {}
    highest = START
    for number, (step, position) in enumerate(steps):
        if step == "add":
            assert waiters.add(position, number) == (position > highest)
            if position > highest:
                waiting[number] = position
        else:
            highest = max(highest, position)
            released = waiters.advance(position)
            assert sorted(released) == sorted(n for n, wanted in waiting.items() if wanted <= highest)
            for number_released in released:
                del waiting[number_released]
        assert waiters.applied == highest


def test_a_waiter_that_gave_up_is_not_released() -> None:
    waiters = PositionWaiters()
    for number in range(5):
        waiters.add(Position(1, number + 1), number)
    waiters.discard(Position(1, 2), 1)
    assert waiters.advance(Position(1, 4)) == [0, 2, 3]


async def test_an_applied_position_is_not_waited_for() -> None:
    applied = AppliedPositions(1)
    applied.advance(0, Position(2, 5))
    assert await applied.wait(0, Position(1, 900), deadline_seconds=0) == Position(2, 5)


async def test_a_reader_waits_until_its_group_gets_there() -> None:
    applied = AppliedPositions(2)
    waiting = asyncio.create_task(applied.wait(1, Position(1, 3)))
    await asyncio.sleep(0)
    applied.advance(0, Position(1, 3))
    applied.advance(1, Position(1, 2))
    await asyncio.sleep(0)
    assert not waiting.done()
    applied.advance(1, Position(1, 4))
    assert await waiting == Position(1, 4)
    assert applied.waiting == 0


async def test_a_position_never_goes_back() -> None:
    applied = AppliedPositions(1)
    applied.advance(0, Position(2, 5))
    applied.advance(0, Position(1, 9))
    assert applied.applied(0) == Position(2, 5)


async def test_a_wait_that_ends_in_vain_names_both_positions() -> None:
    applied = AppliedPositions(1)
    applied.advance(0, Position(1, 7))
    with pytest.raises(PositionNotReached, match=r"applied 1:7 .* reach 1:8 within 0.01 s"):
        await applied.wait(0, Position(1, 8), deadline_seconds=0.01)
    assert (applied.waiting, applied.timeouts) == (0, 1)
    applied.advance(0, Position(1, 8))


async def test_a_cancelled_reader_leaves_nothing_behind() -> None:
    applied = AppliedPositions(1)
    waiting = asyncio.create_task(applied.wait(0, Position(1, 8)))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert applied.waiting == 0
    applied.advance(0, Position(1, 8))


@pytest.mark.parametrize("seconds", [-1, 30.5])
async def test_the_wait_is_bounded(seconds: float) -> None:
    with pytest.raises(InvalidRequest, match="0 to 30 s"):
        await AppliedPositions(1).wait(0, Position(1, 1), deadline_seconds=seconds)


async def test_a_read_of_what_another_history_undid_is_not_handed_out_by_a_later_epochs_commit() -> None:
    positions = AppliedPositions(1)
    positions.advance(0, Position(1, 7))
    reading = asyncio.ensure_future(positions.until_visible(0, Position(1, 8), 5))
    await asyncio.sleep(0)
    positions.judge_by(0, Replaced(Position(1, 8)))
    positions.reveal(0, Position(3, 9))
    with pytest.raises(Unavailable, match="undone"):
        await reading
    with pytest.raises(Unavailable, match="undone"):
        await positions.until_visible(0, Position(1, 8), 5)
    await positions.until_visible(0, Position(1, 7), 5)
    await positions.until_visible(0, Position(3, 9), 5)


async def test_a_position_that_another_history_replaced_is_refused_at_once_and_not_waited_for() -> None:
    positions = AppliedPositions(1)
    positions.judge_by(0, Replaced(Position(1, 8)))
    with pytest.raises(PositionLost, match="never reach 1:8"):
        await positions.wait(0, Position(1, 8), 30)


async def test_a_position_that_is_replaced_while_it_is_waited_for_is_not_taken_for_reached() -> None:
    positions = AppliedPositions(1)
    waiting = asyncio.ensure_future(positions.wait(0, Position(1, 8), 5))
    await asyncio.sleep(0)
    positions.judge_by(0, Replaced(Position(1, 8)))
    positions.advance(0, Position(3, 8))
    with pytest.raises(PositionLost):
        await waiting


async def test_a_follower_waits_for_its_own_shard_and_not_for_another_one_of_its_group() -> None:
    positions = AppliedPositions(1)
    rows = {4: Position(1, 6), 5: Position(1, 7)}
    positions.written_by(0, rows.get)
    positions.advance(0, Position(1, 7))
    since = positions.moved_at(0, 4)
    waiting = asyncio.ensure_future(positions.until_moved(0, 4, since, 5))
    await asyncio.sleep(0)
    rows[5] = Position(1, 8)
    positions.advance(0, Position(1, 8))
    await asyncio.sleep(0)
    assert not waiting.done()
    rows[4] = Position(1, 9)
    positions.advance(0, Position(1, 9))
    await waiting
    await positions.until_moved(0, 4, since, 5)
    assert positions.waiting == 0


async def test_a_shard_that_is_written_is_no_news_before_more_of_its_group_may_be_seen() -> None:
    positions = AppliedPositions(1)
    rows = {4: Position(1, 6)}
    positions.written_by(0, rows.get)
    positions.advance(0, Position(1, 7))
    waiting = asyncio.ensure_future(positions.until_moved(0, 4, positions.moved_at(0, 4), 5))
    await asyncio.sleep(0)
    rows[4] = Position(1, 8)
    positions.advance(0, Position(1, 7))
    await asyncio.sleep(0)
    assert not waiting.done()
    positions.reveal(0, Position(1, 8))
    await waiting


async def test_a_new_epoch_is_a_move_of_every_shard_and_it_is_one_only_once() -> None:
    positions = AppliedPositions(1)
    positions.written_by(0, {4: Position(1, 6)}.get)
    positions.advance(0, Position(1, 7))
    waiting = asyncio.ensure_future(positions.until_moved(0, 4, positions.moved_at(0, 4), 5))
    await asyncio.sleep(0)
    positions.advance(0, Position(2, 8))
    await waiting
    again = asyncio.ensure_future(positions.until_moved(0, 4, positions.moved_at(0, 4), 5))
    await asyncio.sleep(0)
    positions.advance(0, Position(2, 9))
    await asyncio.sleep(0)
    assert not again.done()
    again.cancel()


async def test_a_wait_for_news_that_do_not_come_is_no_position_that_was_missed() -> None:
    positions = AppliedPositions(1)
    await positions.until_moved(0, 4, positions.moved_at(0, 4), 0.01)
    assert (positions.waiting, positions.timeouts) == (0, 0)


def test_what_was_shown_is_kept_where_a_later_epoch_stands_next_to_it_and_lost_where_it_stands_in_its_place() -> (
    None
):
    positions = AppliedPositions(1)
    positions.judge_by(0, Replaced(Position(1, 8)))
    positions.check_kept(0, Position(1, 7))
    with pytest.raises(PositionLost, match=r"up to 1:8 .* undone"):
        positions.check_kept(0, Position(1, 8))


class Replaced:
    """A history that another one replaced at one position."""

    def __init__(self, position: Position) -> None:
        self._position = position

    def is_lost(self, position: Position) -> bool:
        return position == self._position

    def never_comes(self, position: Position) -> bool:
        return position == self._position
