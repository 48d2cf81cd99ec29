"""The numbers and charts of the analytics page: each says that it waits until its answer has come."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from markupsafe import Markup
from nicegui import ui

from ops.dashboard.analytics import charts
from ops.dashboard.analytics.questions import ActiveTime, Tokens, ToolUse, WorkspaceUse
from ops.dashboard.components import draw_chart, empty_state, loading_state, section
from ops.dashboard.freshness import duration
from ops.dashboard.transcript.visible import one_line

NUMBERS = ("Sessions", "Input tokens", "Output tokens", "Cost", "Tool calls", "Failed calls", "Active time")
WAITING = "…"

TOKENS = "Tokens by model, input and output"
COST = "Cost by model, in dollars"
CALLS = "Tool calls by name"
DURATIONS = "Duration of tool calls, in seconds"
ACTIVE = "Active time by workspace, in hours"
WORKSPACES = "Sessions by workspace"
CHARTS = (TOKENS, COST, CALLS, DURATIONS, ACTIVE, WORKSPACES)


class AnalyticsCards:
    """Draws every card at once, and fills those that an answer is for when it comes."""

    def __init__(self, ends: tuple[date | None, date | None]) -> None:
        """Draw them; `ends` are the first and the last day of charts over time, None where an end is open."""
        self._ends = ends
        self._numbers: dict[str, ui.label] = {}
        self._charts: dict[str, ui.element] = {}
        with ui.element("dl").classes("numbers"):
            for name in NUMBERS:
                self._draw_number(name)
        with ui.element("div").classes("charts"):
            for title in CHARTS:
                with section(title), ui.element("div") as self._charts[title]:
                    loading_state()
            self._tools = section("Tools").classes("wide")
            self._tools.set_visibility(False)

    def _draw_number(self, name: str) -> None:
        with ui.element("div").classes("number-card"):
            with ui.element("dt").classes("muted small"):
                ui.label(name)
            with ui.element("dd").classes("number-value"):
                self._numbers[name] = ui.label(WAITING)

    def show_tokens(self, tokens: Sequence[Tokens]) -> None:
        """What models used."""
        used = [(each.day, each.model, float(each.input_tokens + each.output_tokens)) for each in tokens]
        drawable = any(amount for _, _, amount in used)
        costs = [(each.day, each.model, each.cost) for each in tokens if each.cost is not None]
        self._tell("Input tokens", _short(sum(each.input_tokens for each in tokens)))
        self._tell("Output tokens", _short(sum(each.output_tokens for each in tokens)))
        self._tell("Cost", f"${sum(cost for _, _, cost in costs):,.2f}" if costs else "–")
        models = charts.largest_names(used)
        tokens_chart = charts.over_time(used, self._ends, "tokens", models)
        cost_chart = charts.over_time(costs, self._ends, "dollars", models)
        self._draw(TOKENS, tokens_chart, drawable, "The transcripts of these days tell no tokens.")
        self._draw(COST, cost_chart, bool(costs), "The transcripts of these days tell no cost.")

    def show_tools(self, tools: Sequence[ToolUse]) -> None:
        """What became of tool calls."""
        ended = sum(tool.calls - tool.pending for tool in tools)
        errors = sum(tool.errors for tool in tools)
        durations = charts.tool_durations(tools)
        self._tell("Tool calls", f"{sum(tool.calls for tool in tools):,}")
        self._tell("Failed calls", f"{errors / ended:.1%}" if ended else "–")
        self._draw(CALLS, charts.tool_calls(tools), bool(tools), "No tool was called.")
        self._draw(DURATIONS, durations, bool(durations["yAxis"]["data"]), "No call has ended.")
        self._tools.set_visibility(bool(tools))
        with self._tools:
            ui.html(_tools_table(tools), sanitize=False).classes("scrolled")

    def show_workspaces(self, workspaces: Sequence[WorkspaceUse]) -> None:
        """Where sessions were at work."""
        self._tell("Sessions", f"{sum(each.sessions for each in workspaces):,}")
        self._draw(WORKSPACES, charts.workspaces(workspaces), bool(workspaces), "No session was updated.")

    def show_active(self, active: Sequence[ActiveTime]) -> None:
        """For how long."""
        hours = [(each.day, each.workspace or "(none)", each.hours) for each in active]
        self._tell("Active time", f"{sum(each.hours for each in active):,.1f} h")
        chart = charts.over_time(hours, self._ends, "hours", charts.largest_names(hours))
        self._draw(ACTIVE, chart, any(each.hours for each in active), "No session was at work.")

    def _tell(self, name: str, value: str) -> None:
        self._numbers[name].set_text(value)

    def _draw(self, title: str, options: dict[str, object], drawable: bool, otherwise: str) -> None:
        self._charts[title].clear()
        with self._charts[title]:
            if drawable:
                draw_chart(options)
            else:
                empty_state("Nothing to draw", otherwise, icon="insights")


def _tools_table(tools: Sequence[ToolUse]) -> Markup:
    heads = ("Calls", "Failed", "Error rate", "Median", "95th percentile")
    number = Markup('<td class="number" data-label="{}">{{}}</td>')
    numbers = Markup("").join(map(number.format, heads))
    row = Markup('<tr><td class="whole-line"><bdi>{}</bdi></td>') + numbers + Markup("</tr>")
    rows = Markup("").join(
        row.format(
            one_line(tool.name, 60) or "(unnamed)",
            f"{tool.calls:,}",
            f"{tool.errors:,}",
            "–" if tool.error_rate is None else f"{tool.error_rate:.1%}",
            "–" if tool.p50_seconds is None else duration(tool.p50_seconds),
            "–" if tool.p95_seconds is None else duration(tool.p95_seconds),
        )
        for tool in tools
    )
    return Markup(
        '<table class="table stacked"><thead><tr><th>Tool</th>{}</tr></thead><tbody>{}</tbody></table>'
    ).format(Markup("").join(Markup('<th class="number">{}</th>').format(head) for head in heads), rows)


def _short(count: int) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if count >= limit:
            return f"{count / (1e3 if unit == 'k' else limit):,.1f} {unit}"
    return f"{count:,}"
