"""When a standby begins its next round of applying."""

from __future__ import annotations

import pytest

from replica.pace import LONGEST_REST_SECONDS, PRESSING_BYTES, ROUND_SHARE, ApplyPace


@pytest.fixture
def pace() -> ApplyPace:
    """A standby whose last round began at 10 s and took 2 ms of a processor."""
    pace = ApplyPace()
    pace.worked(10.0, 0.002)
    return pace


def test_the_first_round_of_all_begins_at_once() -> None:
    assert ApplyPace().rest_seconds(1, 0.0) <= 0


def test_rounds_take_no_more_than_their_share_of_a_processor(pace: ApplyPace) -> None:
    next_round = 10.0 + 0.002 / ROUND_SHARE
    assert pace.rest_seconds(100, 10.004) == pytest.approx(next_round - 10.004)
    assert pace.rest_seconds(100, next_round) <= 0


def test_what_comes_later_than_that_is_applied_at_once(pace: ApplyPace) -> None:
    assert pace.rest_seconds(100, 10.1) <= 0


def test_a_slow_round_is_not_followed_by_a_long_rest(pace: ApplyPace) -> None:
    pace.worked(20.0, 3.0)
    assert pace.rest_seconds(100, 20.0) == pytest.approx(LONGEST_REST_SECONDS)


def test_a_standby_that_has_fallen_behind_does_not_rest(pace: ApplyPace) -> None:
    assert pace.rest_seconds(PRESSING_BYTES - 1, 10.0) > 0
    assert pace.rest_seconds(PRESSING_BYTES, 10.0) <= 0
