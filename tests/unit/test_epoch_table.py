"""What a log's table of epochs tells of a position."""

from __future__ import annotations

import pytest

from agent_core.position import EpochStart, EpochTable, Position

HISTORY = EpochTable(Position(1, 10), (EpochStart(1, 11), EpochStart(2, 14), EpochStart(4, 20)), Position(4, 30))


@pytest.mark.parametrize("position", ["1:9", "1:10", "1:13", "2:14", "2:19", "4:20", "4:30"])
def test_a_position_of_this_history_is_contained(position: str) -> None:
    assert HISTORY.contains(Position.parse(position))
    assert not HISTORY.replaces(Position.parse(position))


@pytest.mark.parametrize("position", ["1:14", "1:25", "2:20", "3:20", "3:31", "2:12", "3:15"])
def test_a_position_that_the_history_went_past_without_it_is_replaced(position: str) -> None:
    assert HISTORY.replaces(Position.parse(position))
    assert not HISTORY.contains(Position.parse(position))


@pytest.mark.parametrize("position", ["4:31", "5:31", "3:0", "5:12"])
def test_a_position_that_may_come_or_tells_nothing_is_not_replaced(position: str) -> None:
    assert not HISTORY.replaces(Position.parse(position))
