"""Values spread over buckets."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_core.histogram import BATCH_SIZES, LATENCY_SECONDS, Histogram


def test_a_value_on_a_bound_belongs_to_that_bucket_as_prometheus_counts() -> None:
    histogram = Histogram([1, 2])
    for value in (0.5, 1, 1.5, 2, 3):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 1]
    assert histogram.sum == 8


def test_equal_values_are_counted_at_once() -> None:
    histogram = Histogram(LATENCY_SECONDS)
    histogram.observe(0.0015, 64)
    assert histogram.count == 64
    assert histogram.sum == pytest.approx(0.096)


@given(st.lists(st.integers(0, 10_000)))
def test_each_cumulative_count_is_the_number_of_values_up_to_its_bound(values: list[int]) -> None:
    histogram = Histogram(BATCH_SIZES)
    for value in values:
        histogram.observe(value)
    expected = [sum(value <= bound for value in values) for bound in BATCH_SIZES]
    assert list(accumulate(histogram.counts)) == [*expected, len(values)]


@pytest.mark.parametrize("bounds", [[], [2, 1], [1, 1]])
def test_bounds_must_ascend(bounds: list[float]) -> None:
    with pytest.raises(ValueError, match="bounds must ascend"):
        Histogram(bounds)
