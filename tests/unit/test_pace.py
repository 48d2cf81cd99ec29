"""When the group writer begins its next batch."""

from __future__ import annotations

import pytest

from primary.pace import BATCH_MUTATIONS, BATCH_SPACING_SECONDS, BatchPace


@pytest.fixture
def pace() -> BatchPace:
    """A group that began a batch at 10 s."""
    pace = BatchPace()
    pace.began(10.0)
    return pace


def test_an_append_to_an_idle_group_begins_at_once(pace: BatchPace) -> None:
    pace.first_queued(idle=True)
    assert pace.wait_seconds(1, 10.001) <= 0


def test_an_append_to_a_busy_group_waits_until_the_last_batch_is_a_spacing_old(pace: BatchPace) -> None:
    pace.first_queued(idle=False)
    assert pace.wait_seconds(1, 10.002) == pytest.approx(BATCH_SPACING_SECONDS - 0.002)
    assert pace.wait_seconds(1, 10.0 + BATCH_SPACING_SECONDS) <= 0


def test_a_batch_that_is_large_enough_does_not_wait(pace: BatchPace) -> None:
    pace.first_queued(idle=False)
    assert pace.wait_seconds(BATCH_MUTATIONS - 1, 10.0) > 0
    assert pace.wait_seconds(BATCH_MUTATIONS, 10.0) <= 0


def test_the_first_batch_of_all_does_not_wait() -> None:
    pace = BatchPace()
    pace.first_queued(idle=False)
    assert pace.wait_seconds(1, 0.0) <= 0
