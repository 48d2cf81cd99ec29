"""What the dashboard says of how old its contents are, and what it makes of a page's address."""

from __future__ import annotations

import pytest

from ops.dashboard.freshness import STOPPED_SECONDS, Freshness, describe, duration
from ops.dashboard.node_client.failures import DashboardBusy, NoNodeAnswers
from ops.dashboard.session_filter import MAX_CHARACTERS, PAGE_SIZE, SessionSearch


def test_before_the_first_answer_it_reads_or_says_why_not() -> None:
    assert describe(Freshness(), 0)[:2] == ("warning", "reading …")
    assert describe(Freshness(failure=NoNodeAnswers({"node-1": "gone"})), 0) == (
        "bad",
        "no node answers",
        "node-1: gone",
    )


def test_a_fresh_answer_names_the_node() -> None:
    assert describe(Freshness("node-2", 0.1, 100.0), 101.0)[:2] == ("good", "node-2 · up to date")


def test_a_node_that_is_behind_is_a_warning() -> None:
    assert describe(Freshness("node-2", 12.0, 100.0), 100.0)[:2] == ("warning", "node-2 · 12 s behind")


def test_a_page_that_does_not_renew_itself_says_when_it_was_read() -> None:
    shown = Freshness("node-2", 0.0, 100.0, renewing=False)
    assert describe(shown, 220.0)[:2] == ("good", "node-2 · up to date · read 2 min ago")


def test_a_page_that_should_renew_itself_and_does_not_is_bad() -> None:
    level, text, why = describe(Freshness("node-2", 0.0, 100.0), 101.0 + STOPPED_SECONDS)
    assert (level, text) == ("bad", "as of 16 s ago")
    assert "No further answer came" in why


def test_a_failure_says_since_when_and_a_move_from_where() -> None:
    assert describe(Freshness("node-2", 0.0, 100.0, failure=NoNodeAnswers({})), 130.0)[1] == "as of 30 s ago"
    moved = Freshness("node-3", 0.0, 100.0, moved_from=("node-2", "it refuses connections"))
    assert "Before it node-2 was read: it refuses connections." in describe(moved, 100.0)[2]


def test_a_busy_dashboard_accuses_no_node() -> None:
    why = describe(Freshness("node-2", 0.0, 100.0, failure=DashboardBusy("too many viewers")), 130.0)[2]
    assert why == "The dashboard is busy: too many viewers (This was read from node-2.)"


def test_lengths_of_time_are_told_as_people_say_them() -> None:
    assert [duration(seconds) for seconds in (0.04, 9.5, 59, 120, 7200, 3 * 86400)] == [
        "0.0 s", "9.5 s", "59 s", "2 min", "2 h", "3 d"
    ]  # fmt: skip


def test_a_search_survives_the_way_through_an_address() -> None:
    search = SessionSearch.of({"text": " a&b=c ", "workspace": "w", "since": "2025-01-02", "page_token": "t/+="})
    assert search.address == "/sessions?text=a%26b%3Dc&workspace=w&since=2025-01-02&page_token=t%2F%2B%3D"
    assert not search.is_empty


def test_days_become_the_first_and_the_last_moment_that_they_name() -> None:
    asked = SessionSearch(since="1970-01-02", until="1970-01-02").parameters
    assert asked == {
        "updated_after_ms": 86_400_000 - 1,
        "updated_before_ms": 2 * 86_400_000,
        "page_size": PAGE_SIZE,
    }


@pytest.mark.parametrize("day", ["yesterday", "2025-13-01", "0001-01-01", "9999-12-31", "<script>"])
def test_what_is_not_a_day_is_left_out(day: str) -> None:
    assert SessionSearch.of({"since": day, "until": day}) == SessionSearch()


def test_what_is_too_long_or_not_known_is_cut_or_left_out() -> None:
    assert SessionSearch.of({"text": "x" * 999, "unknown": "y"}) == SessionSearch(text="x" * MAX_CHARACTERS)
