"""The analytics page without a browser: the range of days, and the charts."""

from __future__ import annotations

from datetime import date
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.dashboard.analytics import charts
from ops.dashboard.analytics.period import Period
from ops.dashboard.analytics.questions import ToolUse, WorkspaceUse, largest
from ops.dashboard.analytics.timeline import MAX_COLUMNS, timeline

TODAY = date(2026, 11, 24)
OPEN = (None, None)


@pytest.mark.parametrize(
    ("query", "since", "until", "address"),
    [
        ({}, None, None, "/analytics"),
        ({"days": "7"}, date(2026, 11, 18), TODAY, "/analytics?days=7"),
        ({"days": "8", "since": "x"}, None, None, "/analytics"),
        ({"since": "2026-01-05"}, date(2026, 1, 5), None, "/analytics?since=2026-01-05"),
        (
            {"since": "2026-01-05", "until": "2026-01-05"},
            date(2026, 1, 5),
            date(2026, 1, 5),
            "/analytics?since=2026-01-05&until=2026-01-05",
        ),
        ({"since": "2026-01-05", "until": "2025-01-05"}, date(2026, 1, 5), None, "/analytics?since=2026-01-05"),
        ({"since": "0001-01-01", "until": "9999-12-31"}, None, None, "/analytics"),
    ],
)
def test_a_range_is_read_from_an_address(
    query: dict[str, str], since: date | None, until: date | None, address: str
) -> None:
    period = Period.of(query)
    assert period.ends(TODAY) == (since, until)
    assert period.address == address


def test_conditions_take_both_ends_as_whole_days() -> None:
    period = Period.of({"since": "2026-01-05", "until": "2026-01-06"})
    assert period.days_condition("day", TODAY) == "day >= DATE '2026-01-05' AND day <= DATE '2026-01-06'"
    assert period.times_condition("at", TODAY) == "at >= 1767571200000 AND at < 1767744000000"
    assert Period().days_condition("day", TODAY) == Period().times_condition("at", TODAY) == "true"


@given(st.dictionaries(st.sampled_from(["days", "since", "until"]), st.text()))
def test_no_address_gets_anything_but_numbers_and_days_into_sql(query: dict[str, str]) -> None:
    period = Period.of(query)
    conditions = period.days_condition("day", TODAY) + period.times_condition("at", TODAY)
    assert set(conditions) <= set("0123456789-<>=' ADNTEdayttrue")
    assert Period.of(dict(parse_qsl(urlsplit(period.address).query))) == period


def test_bars_of_a_day_are_stacked_and_small_parts_are_summed_up() -> None:
    amounts = [("2026-01-01", f"model-{number}", float(number)) for number in range(8)]
    amounts += [("2026-01-03", "model-7", 1.0), ("2031-01-01", "model-7", 0.0)]
    drawn = charts.over_time(amounts, OPEN, "tokens", charts.largest_names(amounts))
    assert drawn["xAxis"]["data"] == ["2026-01-01", "2026-01-02", "2026-01-03"]
    assert drawn["yAxis"]["name"] == "tokens a day"
    assert [(part["name"], part["data"]) for part in drawn["series"]] == [
        ("model-7", [7.0, 0.0, 1.0]),
        ("model-6", [6.0, 0.0, 0.0]),
        ("model-5", [5.0, 0.0, 0.0]),
        ("model-4", [4.0, 0.0, 0.0]),
        ("model-3", [3.0, 0.0, 0.0]),
        ("others", [3.0, 0.0, 0.0]),
    ]


def test_a_model_has_one_colour_in_every_chart() -> None:
    tokens = [("2026-01-01", "large", 9.0), ("2026-01-01", "small", 1.0)]
    models = charts.largest_names(tokens)
    drawn = charts.over_time([("2026-01-01", "small", 5.0)], OPEN, "dollars", models)
    (small,) = drawn["series"]
    assert small["itemStyle"] == charts.over_time(tokens, OPEN, "tokens", models)["series"][1]["itemStyle"]


def test_days_without_anything_have_their_place_in_a_range() -> None:
    line = timeline(["2026-01-02"], date(2025, 12, 31), date(2026, 1, 3))
    assert line.columns == ("2025-12-31", "2026-01-01", "2026-01-02", "2026-01-03")
    assert timeline([]).columns == ()


@pytest.mark.parametrize(
    ("first", "last", "unit", "count", "column"),
    [
        (date(2026, 1, 1), date(2026, 4, 10), "day", 100, "2026-03-04"),
        (date(2026, 1, 1), date(2026, 4, 11), "week", 15, "2026-03-02"),
        (date(2024, 5, 31), date(2026, 4, 30), "month", 24, "2026-03"),
    ],
)
def test_where_days_would_be_too_many_they_are_weeks_or_months(
    first: date, last: date, unit: str, count: int, column: str
) -> None:
    line = timeline(["2026-03-04"], first, last)
    assert (line.unit, len(line.columns), len(set(line.columns))) == (unit, count, count)
    assert line.column("2026-03-04") == column
    assert column in line.columns


@given(st.lists(st.dates().map(str) | st.text()))
def test_every_day_has_a_column_and_columns_stay_few(days: list[str]) -> None:
    line = timeline(days)
    assert {line.column(day) for day in days} <= set(line.columns)
    assert len(line.columns) <= MAX_COLUMNS + len(days)


def test_tools_are_drawn_by_how_their_calls_ended_and_how_long_they_took() -> None:
    tools = [ToolUse("Bash", 10, 2, 1, 0.5, 4.0), ToolUse("Task", 1, 0, 1, None, None)]
    drawn = charts.tool_calls(tools)
    assert [part["data"] for part in drawn["series"]] == [[7, 0], [2, 0], [1, 1]]
    assert charts.tool_durations(tools)["yAxis"]["data"] == ["Bash"]
    assert [tool.error_rate for tool in tools] == [2 / 9, None]


def test_names_are_made_visible_and_empty_ones_are_named() -> None:
    drawn = charts.workspaces([WorkspaceUse("\u202eevil\x1b[0m", 2, 3), WorkspaceUse("", 1, 1)])
    assert drawn["yAxis"]["data"] == ["⟨U+202E⟩evil", "(none)"]
    assert largest([("a", 1), ("b", 5), ("a", 3), ("c", 0)], 2) == ["b", "a"]
