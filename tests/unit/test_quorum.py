"""When a write counts as committed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent_core.quorum import Acknowledgement, CommitTracker, majority, quorum_needs

VOTERS = frozenset({"a", "b", "c"})


def test_a_majority_of_the_voters_commits() -> None:
    tracker = CommitTracker("a", VOTERS, opening_lsn=1)
    assert not tracker.durable("a", 5)
    assert tracker.durable("b", 3)
    assert tracker.committed_lsn == 3
    assert tracker.durable("c", 4)
    assert tracker.committed_lsn == 4


def test_nothing_counts_before_the_record_that_opens_the_epoch() -> None:
    tracker = CommitTracker("a", VOTERS, opening_lsn=10)
    tracker.durable("a", 12)
    assert not tracker.durable("b", 9)
    assert tracker.durable("b", 10)
    assert tracker.committed_lsn == 10


def test_a_reader_counts_for_nothing() -> None:
    tracker = CommitTracker("a", VOTERS, opening_lsn=1)
    tracker.durable("a", 5)
    assert not tracker.durable("reader", 5)


def test_each_mode_has_its_own_measure() -> None:
    tracker = CommitTracker("a", VOTERS, opening_lsn=1)
    for node, lsn in (("a", 9), ("b", 7), ("c", 2)):
        tracker.durable(node, lsn)
    assert [tracker.safe_lsn(mode) for mode in Acknowledgement] == [9, 7, 2]


def test_what_a_voter_turns_out_not_to_hold_any_more_counts_no_longer_and_what_is_committed_stays() -> None:
    """Its disk was replaced; a record that it alone held with the primary would be lost with the primary."""
    tracker = CommitTracker("a", VOTERS, opening_lsn=1)
    for node, lsn in (("a", 5), ("b", 9), ("c", 6)):
        tracker.durable(node, lsn)
    assert (tracker.committed_lsn, tracker.safe_lsn(Acknowledgement.ALL)) == (6, 5)
    tracker.goes_on_from("b", 3)
    assert not tracker.durable("a", 9)
    assert (tracker.committed_lsn, tracker.safe_lsn(Acknowledgement.ALL)) == (6, 3)


def test_where_a_voters_log_goes_on_claims_nothing_for_it() -> None:
    """Behind a reset it acknowledges less than its log holds."""
    tracker = CommitTracker("a", VOTERS, opening_lsn=1)
    tracker.durable("b", 2)
    tracker.goes_on_from("b", 9)
    tracker.goes_on_from("c", 9)
    assert tracker.durable("a", 9)
    assert (tracker.committed_lsn, tracker.safe_lsn(Acknowledgement.ALL)) == (2, 0)


@given(st.lists(st.tuples(st.sampled_from(sorted(VOTERS)), st.integers(0, 100)), max_size=40))
def test_what_is_committed_was_held_by_a_majority_at_once_and_never_goes_back(
    reports: list[tuple[str, int]],
) -> None:
    tracker = CommitTracker("a", VOTERS, opening_lsn=1)
    reported: dict[str, int] = {}
    for node, lsn in reports:
        before = tracker.committed_lsn
        rose = tracker.durable(node, lsn)
        assert tracker.committed_lsn >= before
        reported[node] = lsn
        if rose:
            holders = [voter for voter, held in reported.items() if held >= tracker.committed_lsn]
            assert len(holders) >= majority(len(VOTERS))


def test_a_quorum_needs_a_voter_when_the_others_that_hold_it_make_no_majority() -> None:
    voters, nobody = frozenset("abc"), frozenset[str]()
    assert quorum_needs("b", voters, {"a", "b"}, nobody)
    assert quorum_needs("b", voters, {"a"}, {"b"})
    assert not quorum_needs("b", voters, {"a", "c"}, {"b"})
    assert quorum_needs("b", voters, {"a", "reader"}, nobody)
    assert not quorum_needs("reader", voters, {"a"}, nobody)
    assert not quorum_needs("b", frozenset("abcde"), {"a", "b"}, nobody)


def test_a_quorum_may_need_several_voters_that_wait_for_each_other() -> None:
    voters = frozenset("abcde")
    assert quorum_needs("b", voters, {"a"}, {"b", "c"})
    assert quorum_needs("c", voters, {"a"}, {"b", "c"})
    assert not quorum_needs("b", voters, {"a"}, {"b", "reader"})
    assert quorum_needs("b", frozenset("abc"), {"a"}, {"b", "c"})
