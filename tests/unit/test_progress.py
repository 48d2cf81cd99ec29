import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_core.errors import InvalidRequest
from agent_core.lag import MAX_MARKS, CatchUpClock
from primary.progress import StandbyProgress, StandbyState


def streaming(shared_lsn: int = 0, window_bytes: int = 100) -> StandbyProgress:
    progress = StandbyProgress("b", 0.0, window_bytes)
    progress.become_probing(0.0)
    progress.become_streaming(shared_lsn, 0.0)
    return progress


def test_a_standby_is_gone_until_it_says_hello() -> None:
    progress = StandbyProgress("b", 5.0)
    assert progress.state is StandbyState.GONE
    assert not progress.may_send(1)
    progress.become_probing(6.0)
    assert (progress.state, progress.changed_at) == (StandbyState.PROBING, 6.0)
    assert not progress.may_send(1)


def test_records_are_sent_until_the_window_is_full() -> None:
    progress = streaming()
    progress.sent(1, 60)
    assert progress.may_send(40)
    assert not progress.may_send(41)
    progress.acknowledge(1, 0)
    assert progress.in_flight_bytes == 0
    assert progress.may_send(100)


def test_a_record_larger_than_the_window_travels_alone() -> None:
    progress = streaming()
    assert progress.may_send(5000)
    progress.sent(1, 5000)
    assert not progress.may_send(1)
    progress.acknowledge(1, 0)
    progress.sent(2, 1)
    assert not progress.may_send(5000)


def test_a_message_leaves_the_window_only_when_all_of_it_is_durable() -> None:
    progress = streaming()
    progress.sent(10, 50)
    progress.acknowledge(9, 0)
    assert progress.in_flight_bytes == 50


@pytest.mark.parametrize("claim", [(8, 0), (0, 8)])
def test_a_standby_cannot_claim_what_was_never_sent(claim: tuple[int, int]) -> None:
    progress = streaming(shared_lsn=7)
    with pytest.raises(InvalidRequest, match="at most 7"):
        progress.acknowledge(*claim)


def test_progress_before_streaming_is_refused() -> None:
    progress = streaming()
    progress.become_resyncing(50, 1.0)
    with pytest.raises(InvalidRequest, match="resyncing"):
        progress.acknowledge(0, 0)


def test_old_news_changes_nothing() -> None:
    progress = streaming()
    progress.sent(5, 10)
    progress.acknowledge(5, 4)
    progress.acknowledge(3, 2)
    assert (progress.durable_lsn, progress.applied_lsn) == (5, 4)


def test_a_new_stream_begins_with_an_empty_window_at_the_shared_point() -> None:
    progress = streaming()
    progress.sent(9, 90)
    progress.acknowledge(4, 4)
    progress.become_gone(1.0)
    progress.become_probing(2.0)
    progress.become_streaming(4, 2.0)
    assert (progress.sent_lsn, progress.durable_lsn, progress.in_flight_bytes) == (4, 4, 0)


def test_the_log_is_needed_after_what_is_durable_and_after_the_base_while_resyncing() -> None:
    progress = streaming(shared_lsn=3)
    assert progress.needed_after_lsn == 3
    progress.sent(6, 1)
    progress.acknowledge(5, 0)
    assert progress.needed_after_lsn == 5
    progress.become_resyncing(40, 1.0)
    assert progress.needed_after_lsn == 40


def test_lag_counts_what_is_not_applied_and_since_when() -> None:
    progress = streaming()
    progress.saw_log_end(10, 1.0)
    progress.sent(10, 1)
    progress.saw_log_end(20, 3.0)
    progress.sent(20, 1)
    assert progress.lag(20, 900, 4.0).seconds == 3.0
    progress.acknowledge(20, 10)
    lag = progress.lag(20, 450, 4.0)
    assert (lag.transactions, lag.bytes, lag.seconds) == (10, 450, 3.0)
    progress.acknowledge(20, 20)
    assert progress.lag(20, 0, 9.0).seconds == 0.0


def test_a_standby_that_keeps_up_under_steady_writes_has_a_small_lag() -> None:
    progress = streaming()
    for step in range(1, 2000):
        now = step / 100
        progress.saw_log_end(step, now)
        progress.sent(step, 1)
        progress.acknowledge(step, step - 1)
        assert progress.lag(step, 1, now).seconds <= 0.011


def test_the_lag_of_a_gone_standby_grows() -> None:
    progress = streaming()
    progress.saw_log_end(1, 1.0)
    progress.sent(1, 1)
    progress.acknowledge(1, 1)
    progress.saw_log_end(1, 2.0)
    progress.become_gone(2.5)
    assert progress.lag(1, 0, 100.0).seconds == 0.0
    assert progress.lag(2, 10, 100.0).seconds == 98.0


@given(st.lists(st.tuples(st.integers(1, 3000), st.integers(0, 3000)), max_size=60))
def test_the_window_is_never_passed_by_more_than_one_record(steps: list[tuple[int, int]]) -> None:
    progress = streaming(window_bytes=1000)
    lsn = 0
    for size, durable_lsn in steps:
        if progress.may_send(size):
            lsn += 1
            progress.sent(lsn, size)
        progress.acknowledge(min(durable_lsn, lsn), 0)
        assert progress.in_flight_bytes <= 1000 or len(progress._in_flight) == 1


def test_marks_are_bounded_and_stay_right_when_thinned() -> None:
    clock = CatchUpClock(0.0)
    for lsn in range(1, 10 * MAX_MARKS):
        clock.saw(lsn, float(lsn))
    assert len(clock._marks) <= MAX_MARKS
    clock.reached(10 * MAX_MARKS - 1)
    assert clock.seconds(float(10 * MAX_MARKS)) == 1.0
