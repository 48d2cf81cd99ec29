"""How much of a log may be dropped."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent_core.log.retention import StandbyNeed, droppable_through

lsns = st.integers(0, 1000)
needs = st.builds(StandbyNeed, durable_lsn=lsns, bytes_behind=st.integers(0, 5000))
BOUND = 2000


def droppable(
    *,
    committed: int = 900,
    shards: list[int | None] | None = None,
    standbys: list[StandbyNeed] | None = None,
    holds: list[int] | None = None,
) -> int:
    return droppable_through(
        committed_lsn=committed,
        checkpointed_lsns=shards or [],
        standbys=standbys or [],
        holds=holds or [],
        standby_bytes=BOUND,
    )


def test_with_nobody_in_need_everything_committed_may_go() -> None:
    assert droppable(shards=[None, None]) == 900


def test_what_a_shard_would_replay_stays_however_large_the_log_is() -> None:
    assert droppable(shards=[None, 120, 400], standbys=[StandbyNeed(900, BOUND * 100)]) == 120


def test_what_a_standby_has_still_to_read_stays_up_to_the_bound() -> None:
    assert droppable(standbys=[StandbyNeed(300, BOUND)]) == 300


def test_a_straggler_past_the_bound_is_not_waited_for_but_the_others_are() -> None:
    assert droppable(standbys=[StandbyNeed(300, BOUND + 1), StandbyNeed(700, 500)]) == 700


def test_a_hold_outlasts_the_bound() -> None:
    assert droppable(standbys=[StandbyNeed(0, BOUND * 2)], holds=[50]) == 50


@given(
    lsns,
    st.lists(st.none() | lsns, max_size=5),
    st.lists(needs, max_size=4),
    st.lists(lsns, max_size=3),
)
def test_nothing_needed_is_dropped_and_nothing_more_is_kept(
    committed: int, shards: list[int | None], standbys: list[StandbyNeed], holds: list[int]
) -> None:
    through = droppable(committed=committed, shards=shards, standbys=standbys, holds=holds)
    waited_for = [need.durable_lsn for need in standbys if need.bytes_behind <= BOUND]
    needed_after = [committed, *holds, *waited_for, *(lsn for lsn in shards if lsn is not None)]
    assert all(through <= lsn for lsn in needed_after)
    assert any(through == lsn for lsn in needed_after)


@given(st.lists(st.none() | lsns, max_size=5), st.lists(needs, max_size=4), st.lists(lsns, max_size=3), needs)
def test_one_more_reader_never_lets_more_go(
    shards: list[int | None], standbys: list[StandbyNeed], holds: list[int], joining: StandbyNeed
) -> None:
    before = droppable(shards=shards, standbys=standbys, holds=holds)
    assert droppable(shards=shards, standbys=[*standbys, joining], holds=holds) <= before
