"""When a standby begins its next round of applying."""

from __future__ import annotations

import pytest

from replica.pace import LONGEST_REST_SECONDS, PRESSING_BYTES, TRANSACTIONS_PER_SECOND, ApplyPace


@pytest.fixture
def pace() -> ApplyPace:
    """A standby whose last round began at 10 s and applied ten transactions."""
    pace = ApplyPace()
    pace.worked(10.0, 10)
    return pace


def test_the_first_round_of_all_begins_at_once() -> None:
    assert ApplyPace().rest_seconds(1, 0.0) <= 0


def test_a_round_rests_for_what_it_brought(pace: ApplyPace) -> None:
    next_round = 10.0 + 10 / TRANSACTIONS_PER_SECOND
    assert pace.rest_seconds(100, 10.004) == pytest.approx(next_round - 10.004)
    assert pace.rest_seconds(100, next_round) <= 0


def test_what_comes_later_than_that_is_applied_at_once(pace: ApplyPace) -> None:
    assert pace.rest_seconds(100, 10.1) <= 0


@pytest.mark.parametrize("batch", [1, 8, 100])
def test_where_transactions_come_slowly_every_batch_has_a_round_of_its_own(batch: int) -> None:
    assert set(_rounds(batch, per_second=TRANSACTIONS_PER_SECOND * 0.8)) == {batch}


def test_where_they_come_fast_rounds_grow_until_the_longest_rest() -> None:
    rounds = _rounds(15, per_second=TRANSACTIONS_PER_SECOND * 1.5)
    assert rounds[0] == 15
    assert rounds[-1] == pytest.approx(LONGEST_REST_SECONDS * TRANSACTIONS_PER_SECOND * 1.5, rel=0.2)


def test_a_backlog_that_was_caught_up_with_leaves_no_rests_behind() -> None:
    pace = ApplyPace()
    pace.worked(0.0, 100_000)
    rounds = _rounds(8, per_second=TRANSACTIONS_PER_SECOND * 0.8, pace=pace)
    assert rounds[-1] == 8


def test_a_large_round_is_not_followed_by_a_long_rest(pace: ApplyPace) -> None:
    pace.worked(20.0, 100_000)
    assert pace.rest_seconds(100, 20.0) == pytest.approx(LONGEST_REST_SECONDS)


def test_a_standby_that_has_fallen_behind_does_not_rest(pace: ApplyPace) -> None:
    assert pace.rest_seconds(PRESSING_BYTES - 1, 10.0) > 0
    assert pace.rest_seconds(PRESSING_BYTES, 10.0) <= 0


def _rounds(batch: int, *, per_second: float, pace: ApplyPace | None = None) -> list[int]:
    """How many transactions each round brings while batches of so many come at an even rate, for two seconds."""
    pace = pace or ApplyPace()
    rounds: list[int] = []
    waiting, ready_at = 0, 0.0
    for number in range(int(2 * per_second / batch)):
        committed_at = number * batch / per_second
        if waiting and ready_at <= committed_at:
            pace.worked(ready_at, waiting)
            rounds.append(waiting)
            waiting = 0
        if not waiting:
            ready_at = committed_at + max(0.0, pace.rest_seconds(1, committed_at))
        waiting += batch
    return rounds
