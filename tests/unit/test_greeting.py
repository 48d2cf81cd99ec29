from __future__ import annotations

from agent_core.position import START, EpochStart, EpochTable, Position
from primary.greeting import Greeting, greet

OURS = EpochTable(Position(1, 12), (EpochStart(1, 13), EpochStart(3, 18)), Position(3, 18))


def test_a_standby_goes_on_from_the_last_point_that_both_logs_hold() -> None:
    theirs = EpochTable(START, (EpochStart(1, 1), EpochStart(2, 16)), Position(2, 20))
    assert greet(OURS, theirs, 0) == Greeting(Position(1, 15), resync_required=False)


def test_without_a_shared_point_every_shard_is_resynced() -> None:
    theirs = EpochTable(START, (EpochStart(1, 1),), Position(1, 4))
    assert greet(OURS, theirs, 17) == Greeting(Position(1, 17), resync_required=True)


def test_the_base_of_a_log_is_shared_though_what_follows_it_is_not() -> None:
    """Else the standby would be told to begin below what it knows to be committed, and would refuse for ever."""
    theirs = EpochTable(Position(1, 17), (EpochStart(2, 18),), Position(2, 18))
    assert greet(OURS, theirs, 0) == Greeting(Position(1, 17), resync_required=False)
