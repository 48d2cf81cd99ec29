from __future__ import annotations

from primary.electing.tenure import Tenure

VOTERS = frozenset({"a", "b", "c"})


def tenure(voters: frozenset[str] = VOTERS) -> Tenure:
    return Tenure("a", voters, began_at=100.0, failure_timeout_seconds=1.0)


def test_a_new_primary_has_the_failure_timeout_to_be_heard() -> None:
    assert not tenure().is_over(100.9)
    assert tenure().is_over(101.0)


def test_a_primary_stays_while_a_majority_hears_it() -> None:
    office = tenure()
    office.heard("b", 104.5)
    assert not office.is_over(105.4)
    assert office.is_over(105.5)


def test_of_five_voters_two_others_must_be_heard() -> None:
    office = tenure(VOTERS | {"d", "e"})
    office.heard("b", 104.0)
    assert office.is_over(104.1)
    office.heard("c", 103.5)
    assert not office.is_over(104.1)


def test_old_news_readers_and_the_primary_itself_count_for_nothing() -> None:
    office = tenure()
    office.heard("b", 104.0)
    office.heard("b", 102.0)
    office.heard("reader", 109.0)
    office.heard("a", 109.0)
    assert not office.is_over(104.9)
    assert office.is_over(105.0)


def test_a_single_voter_needs_nobody() -> None:
    assert not tenure(frozenset({"a"})).is_over(1e9)
