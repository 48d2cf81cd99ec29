"""`headwater top` without a terminal: what was heard, and the rows that are made of it."""

from __future__ import annotations

import pytest

from ops.top import cells
from ops.top.history import LAG_SAMPLES, ClusterHistory
from ops.top.rows import Order, group_rows, in_order, node_facts, session_rows, summary
from tests.top_answers import ADDRESSES, answer, following, leading, session

ONE, TWO, THREE = ADDRESSES


def heard_all(at: float = 100.0) -> ClusterHistory:
    history = ClusterHistory(ADDRESSES)
    history.heard(ONE, answer(1, leading(appends=5000, lags={"node-2": 0.002, "node-3": 0.5})), at)
    history.heard(TWO, answer(2, following(lag=0.002)), at)
    history.heard(THREE, answer(3, following(lag=0.5)), at)
    return history


def test_a_row_shows_role_position_lag_and_the_age_of_its_answer() -> None:
    primary, standby, _ = group_rows(heard_all(), 100.5)
    assert (primary.node_id, primary.role, primary.epoch, primary.applied_lsn) == ("node-1", "primary", 3, 1200)
    assert (primary.lag_seconds, primary.heard_seconds, primary.stale) == (None, 0.5, False)
    assert (standby.role, standby.lag_seconds, standby.lags) == ("standby", 0.002, (0.002,))


def test_a_rate_is_what_a_counter_grew_over_the_last_ten_seconds() -> None:
    history = ClusterHistory(ADDRESSES)
    for second in range(30):
        appends = 100 * second if second < 15 else 1500 + 900 * (second - 15)
        history.heard(ONE, answer(1, leading(appends=appends)), float(second))
    assert group_rows(history, 29.0)[0].appends_per_second == pytest.approx(900)
    assert summary(history, 29.0).appends_per_second == pytest.approx(900)


def test_a_counter_that_began_anew_makes_no_negative_rate() -> None:
    history = heard_all()
    history.heard(ONE, answer(1, leading(appends=10)), 101)
    assert group_rows(history, 101)[0].appends_per_second is None
    history.heard(ONE, answer(1, leading(appends=60)), 102)
    assert group_rows(history, 102)[0].appends_per_second == pytest.approx(50)


def test_a_node_that_stepped_down_and_leads_again_is_not_measured_over_both_terms() -> None:
    history = heard_all()
    history.heard(ONE, answer(1, following()), 101)
    history.heard(ONE, answer(1, leading(appends=90_000)), 102)
    assert group_rows(history, 102)[0].appends_per_second is None


def test_a_dead_node_keeps_its_row_says_how_old_it_is_and_is_as_far_behind_as_its_primary_says() -> None:
    history = heard_all(at=100)
    history.heard(ONE, answer(1, leading(appends=5100, lags={"node-3": 7.0})), 107)
    history.missed(THREE, "connection refused", 107)
    row = group_rows(history, 108)[2]
    assert (row.node_id, row.state, row.stale, row.troubled) == ("node-3", "not reached", True, True)
    assert (row.heard_seconds, row.lag_seconds, row.lag_transactions) == (8.0, 7.0, 700)
    assert row.lags == (0.5, 7.0)
    assert summary(history, 108).silent == ["node-2", "node-3"]


def test_what_a_silent_primary_said_tells_no_lag() -> None:
    history = heard_all(at=100)
    history.missed(THREE, "connection refused", 130)
    row = group_rows(history, 130)[2]
    assert (row.lag_seconds, row.lags) == (None, (0.5, None))


def test_an_answer_grows_old_without_any_failure() -> None:
    history = ClusterHistory(ADDRESSES, fresh_seconds=20)
    history.heard(TWO, answer(2, following()), 100)
    assert [row.stale for row in group_rows(history, 119) if row.address == TWO] == [False]
    assert [row.stale for row in group_rows(history, 121) if row.address == TWO] == [True]


def test_a_node_that_never_answered_has_a_row_too() -> None:
    history = ClusterHistory([ONE, TWO])
    history.missed(TWO, "connection refused", 100)
    asked, refused = group_rows(history, 100)
    assert (asked.state, asked.troubled, asked.group) == ("asking", False, None)
    assert (refused.node_id, refused.state, refused.heard_seconds) == (TWO, "not reached", None)
    assert node_facts(history.nodes[TWO]) == [("address", TWO), ("not reached", "connection refused")]
    assert "it never answered" in cells.details([refused], node_facts(history.nodes[TWO])).plain


def test_groups_of_a_node_stand_in_their_order() -> None:
    history = ClusterHistory([ONE])
    history.heard(ONE, answer(1, leading(group=2), following(group=0), following(group=1)), 100)
    assert [row.group for row in group_rows(history, 100)] == [0, 1, 2]


def test_rows_sort_by_each_order_and_the_last_leads_back_to_the_first() -> None:
    history = ClusterHistory(ADDRESSES)
    history.heard(ONE, answer(1, following(group=0, lag=3.0), leading(group=1)), 100)
    history.heard(TWO, answer(2, leading(group=0, appends=5), following(group=1)), 97)
    history.heard(TWO, answer(2, leading(group=0, appends=50), following(group=1)), 99)
    rows = group_rows(history, 100)
    orders = {order: [row.key for row in in_order(rows, order)] for order in Order}
    assert orders[Order.NODE] == [f"{ONE}/0", f"{ONE}/1", f"{TWO}/0", f"{TWO}/1", THREE]
    assert orders[Order.GROUP] == [f"{TWO}/0", f"{ONE}/0", f"{ONE}/1", f"{TWO}/1", THREE]
    assert orders[Order.LAG][0] == f"{ONE}/0"
    assert orders[Order.APPENDS][0] == f"{TWO}/0"
    assert orders[Order.HEARD][0] == THREE
    order = Order.NODE
    for _ in Order:
        order = order.next()
    assert order is Order.NODE


def test_the_summary_takes_the_newest_map_and_names_what_is_wrong() -> None:
    history = heard_all()
    waiting = answer(2, following(), map_version=9, draining=["node-3"], not_ready=["group 0: waits"])
    waiting.raft_leader = "node-2"
    history.heard(TWO, waiting, 100)
    told = summary(history, 100)
    assert (told.cluster, told.raft_leader) == ("oak, acknowledgement quorum", "node-2")
    assert (told.draining, told.problems) == (("node-3",), ["node-2 is not ready: group 0: waits"])
    stranger = answer(3)
    stranger.cluster_id = "ash"
    history.heard(THREE, stranger, 100)
    assert summary(history, 100).problems[0] == "these nodes belong to different clusters: ash, oak"
    assert [row.state for row in group_rows(history, 100)] == ["leading", "not ready", "no group"]


def test_the_busiest_session_comes_first_and_one_that_left_the_page_is_forgotten() -> None:
    history = heard_all()
    history.read_sessions([session(1, 10), session(2, 10), session(3, 10)], 100)
    assert [row.session_id for row in session_rows(history)] == ["session-1", "session-2", "session-3"]
    history.read_sessions([session(1, 12), session(3, 50)], 102)
    assert [(row.session_id, row.entries_per_second) for row in session_rows(history)] == [
        ("session-3", 20.0),
        ("session-1", 1.0),
    ]
    history.read_sessions([session(2, 90)], 104)
    assert session_rows(history)[0].entries_per_second is None


def test_sessions_are_read_from_the_node_that_leads_least_and_answers() -> None:
    history = heard_all()
    assert history.reading_address(100) == TWO
    history.missed(TWO, "gone", 100)
    assert history.reading_address(100) == THREE
    assert history.reading_address(200) is None


def test_lag_is_kept_for_a_bounded_number_of_answers() -> None:
    history = ClusterHistory([TWO])
    for second in range(2 * LAG_SAMPLES):
        history.heard(TWO, answer(2, following(lag=float(second))), float(second))
    assert len(history.lags(TWO, 0)) == LAG_SAMPLES


def test_bars_grow_with_the_lag_and_a_gap_stays_a_gap() -> None:
    bars = cells.sparkline([0.0, 0.02, None, 0.2, 2.0, 100.0], 8)
    assert bars.plain == "  ▁▂ ▄▆█"
    assert cells.sparkline([100.0, 0.0], 1).plain == "▁"


@pytest.mark.parametrize("width", [60, 80, 100, 126, 140, 155, 200, 400])
def test_the_columns_fit_the_screen(width: int) -> None:
    columns = cells.columns(width, 30)
    assert {"node", "role", "position", "lag", "lag history", "state", "heard"} <= {
        column.name for column in columns
    }
    if width >= 80:
        assert sum(column.width + cells.GAP for column in columns) <= width
    for row in group_rows(heard_all(), 100.0):
        for cell, column in zip(cells.group_cells(row, columns), columns, strict=True):
            assert cell.cell_len <= column.width


def test_names_and_titles_cannot_steer_the_terminal() -> None:
    history = ClusterHistory([ONE])
    hostile = "\x1b[2Jgone\u202e\nnext"
    answered = answer(1, leading(), not_ready=[hostile], draining=[hostile])
    answered.node_id = answered.raft_leader = hostile
    history.heard(ONE, answered, 100)
    history.read_sessions([session(1, 1, title=hostile)], 100)
    rows = group_rows(history, 100)
    told = [
        cells.summary_lines(summary(history, 100), paused_seconds=None, width=200),
        cells.details(rows, node_facts(history.nodes[ONE])),
        *cells.group_cells(rows[0], cells.columns(140, 20)),
        *cells.session_cells(session_rows(history)[0], cells.session_columns(140)),
    ]
    assert not any(character in text.plain for text in told for character in "\x1b\u202e")
    assert not any("\n" in text.plain for text in told[2:])
