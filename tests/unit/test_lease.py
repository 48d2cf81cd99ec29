from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from primary.electing.lease import DRIFT, Lease

VOTERS = frozenset({"a", "b", "c"})


def test_a_primary_that_nobody_heard_has_no_lease() -> None:
    assert not Lease("a", VOTERS, 1.0).valid(0.0)


def test_one_of_two_standbys_makes_a_majority() -> None:
    lease = Lease("a", VOTERS, 1.0)
    lease.echoed("b", 10.0)
    assert lease.valid(10.0 + 0.9)
    assert not lease.valid(10.0 + 1.0 - DRIFT)


def test_of_five_voters_the_second_newest_echo_counts() -> None:
    lease = Lease("a", frozenset("abcde"), 1.0)
    lease.echoed("b", 10.0)
    assert not lease.valid(10.0)
    lease.echoed("c", 9.5)
    assert lease.valid(10.0)
    assert not lease.valid(10.6)


def test_an_old_echo_that_comes_late_takes_nothing_away() -> None:
    lease = Lease("a", VOTERS, 1.0)
    lease.echoed("b", 10.0)
    lease.echoed("b", 3.0)
    assert lease.valid(10.5)


def test_a_reader_gives_no_lease() -> None:
    lease = Lease("a", VOTERS, 1.0)
    lease.echoed("reader", 10.0)
    assert not lease.valid(10.0)


def test_a_single_voter_needs_nobody() -> None:
    assert Lease("a", frozenset({"a"}), 1.0).valid(1e9)


def test_what_remains_of_a_lease_shrinks_to_nothing_and_never_passes_the_lease_time() -> None:
    lease = Lease("a", VOTERS, 1.0)
    assert lease.remaining_seconds(10.0) == 0.0
    lease.echoed("b", 10.0)
    assert lease.remaining_seconds(10.5) == pytest.approx(1.0 - DRIFT - 0.5)
    assert lease.remaining_seconds(12.0) == 0.0
    assert Lease("a", frozenset({"a"}), 1.0).remaining_seconds(10.0) == 1.0


@given(st.dictionaries(st.sampled_from("bcde"), st.floats(0, 100)), st.floats(0, 200))
def test_while_the_lease_is_valid_a_majority_is_bound_by_it(echoed: dict[str, float], now: float) -> None:
    """Each voter heard a heartbeat no earlier than it was sent, and is bound for the whole lease time from then."""
    lease = Lease("a", frozenset("abcde"), 1.0)
    for node, sent_at in echoed.items():
        lease.echoed(node, sent_at)
    bound = 1 + sum(now < sent_at + 1.0 for sent_at in echoed.values())
    assert not lease.valid(now) or bound >= 3
