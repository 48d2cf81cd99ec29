"""Analytics: tokens and cost, tools, workspaces and active time, over a range of days."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from typing import TypeVar

from fastapi import FastAPI, Request
from markupsafe import Markup
from nicegui import background_tasks, ui

from ops.dashboard.analytics import charts, questions
from ops.dashboard.analytics.period import DAYS, Period
from ops.dashboard.analytics.questions import ActiveTime, Tokens, ToolUse, WorkspaceUse
from ops.dashboard.cluster.watch import ClusterWatch
from ops.dashboard.components import empty_state, error_state, heading, loading_state, section
from ops.dashboard.freshness import duration
from ops.dashboard.layout import Page, frame
from ops.dashboard.node_client.failures import ReadFailed
from ops.dashboard.node_client.reader import NodeReader
from ops.dashboard.transcript.visible import one_line
from replica.reading.http_models import QueryResponse

HEAD = '<link rel="stylesheet" href="/static/analysis.css">'
ANSWER_SECONDS = 2 * questions.TIMEOUT_MS / 1000 + 5
"""For how long a node may wait for a worker, run, and answer."""

Row = TypeVar("Row")


def register(_: FastAPI, reader: NodeReader, __: ClusterWatch) -> None:
    """Add the page."""

    @ui.page("/analytics")
    async def analytics_page(request: Request) -> None:
        ui.add_head_html(HEAD)
        with frame(reader, "Analytics", "/analytics") as page:
            heading("Analytics", "From the ready views over all sessions; days are UTC.")
            view = _AnalyticsView(reader, page, Period.of(dict(request.query_params)))
        ui.context.client.on_delete(view.cancel)
        await ui.context.client.connected()
        view.read()


class _AnalyticsView:
    """The range, and the charts of it."""

    def __init__(self, reader: NodeReader, page: Page, period: Period) -> None:
        self._reader = reader
        self._page = page
        self._period = period
        self._reading: asyncio.Task[None] | None = None
        self._draw_range()
        self._results = ui.element("div").props("aria-live=polite")

    def read(self) -> None:
        """Ask for everything anew."""
        self.cancel()
        self._reading = background_tasks.create(self._read(self._period), name="analytics of a viewer")

    def cancel(self) -> None:
        """Give up what is being asked."""
        if self._reading is not None and not self._reading.done():
            self._reading.cancel()

    def _draw_range(self) -> None:
        presets = {**{str(days): f"{days} days" for days in DAYS}, "all": "All time"}
        chosen = str(self._period.days) if self._period.days else None
        if self._period == Period():
            chosen = "all"
        with ui.element("div").classes("range").props('role=group aria-label="Range of days"'):
            toggle = ui.toggle(presets, value=chosen).props("no-caps dense unelevated")
            since = ui.input("From", value=str(self._period.since or "")).props(
                "outlined dense type=date stack-label"
            )
            until = ui.input("to", value=str(self._period.until or "")).props(
                "outlined dense type=date stack-label"
            )

        def preset() -> None:
            if toggle.value is not None:
                self._choose(Period.of({"days": str(toggle.value)}))
                since.set_value("")
                until.set_value("")

        def ends() -> None:
            chosen = Period.of({"since": since.value or "", "until": until.value or ""})
            if chosen != Period():
                toggle.set_value(None)
                self._choose(chosen)

        toggle.on_value_change(preset)
        since.on_value_change(ends)
        until.on_value_change(ends)

    def _choose(self, period: Period) -> None:
        if period != self._period:
            self._period = period
            ui.navigate.history.replace(period.address)
            self.read()

    async def _read(self, period: Period) -> None:
        today = datetime.now(UTC).date()
        self._results.clear()
        with self._results:
            loading_state()
        try:
            tokens, tools, workspaces, active = await asyncio.gather(
                self._rows(questions.tokens_sql, questions.tokens_of, today),
                self._rows(questions.tools_sql, questions.tools_of, today),
                self._rows(questions.workspaces_sql, questions.workspaces_of, today),
                self._rows(questions.active_sql, questions.active_of, today),
            )
        except ReadFailed as error:
            self._results.clear()
            with self._results:
                self._page.failed(error)
                error_state(error, self.read)
            return
        self._results.clear()
        with self._results:
            if not workspaces and not tokens:
                self._draw_nothing(period)
                return
            _draw_numbers(tokens, tools, workspaces, active)
            with ui.element("div").classes("charts"):
                _draw_charts(tokens, tools, workspaces, active)

    async def _rows(
        self, sql: Callable[[Period, date], str], rows: Callable[[QueryResponse], list[Row]], today: date
    ) -> list[Row]:
        body = questions.body(sql(self._period, today))
        answer = await self._reader.post("/v1/query", QueryResponse, body, timeout_seconds=ANSWER_SECONDS)
        with self._results:
            self._page.showing(answer)
        return rows(answer.content)

    def _draw_nothing(self, period: Period) -> None:
        if period == Period():
            empty_state("No sessions yet", "Bring some in: headwater import PATH", icon="insights")
            return
        empty_state("Nothing on these days", "No session was at work then.", icon="event_busy")
        ui.link("Show all time", Period().address).classes("state-link")


def _draw_numbers(
    tokens: Sequence[Tokens],
    tools: Sequence[ToolUse],
    workspaces: Sequence[WorkspaceUse],
    active: Sequence[ActiveTime],
) -> None:
    costs = [each.cost for each in tokens if each.cost is not None]
    ended = sum(tool.calls - tool.pending for tool in tools)
    errors = sum(tool.errors for tool in tools)
    told = [
        ("Sessions", f"{sum(each.sessions for each in workspaces):,}"),
        ("Input tokens", _short(sum(each.input_tokens for each in tokens))),
        ("Output tokens", _short(sum(each.output_tokens for each in tokens))),
        ("Cost", f"${sum(costs):,.2f}" if costs else "not told"),
        ("Tool calls", f"{sum(tool.calls for tool in tools):,}"),
        ("Of them failed", f"{errors / ended:.1%}" if ended else "–"),
        ("Active time", f"{sum(each.hours for each in active):,.1f} h"),
    ]
    with ui.element("dl").classes("numbers"):
        for name, value in told:
            with ui.element("div").classes("number-card"):
                with ui.element("dt").classes("muted small"):
                    ui.label(name)
                with ui.element("dd").classes("number-value").style("margin: 0"):
                    ui.label(value)


def _draw_charts(
    tokens: Sequence[Tokens],
    tools: Sequence[ToolUse],
    workspaces: Sequence[WorkspaceUse],
    active: Sequence[ActiveTime],
) -> None:
    used = [(each.day, each.model, float(each.input_tokens + each.output_tokens)) for each in tokens]
    costs = [(each.day, each.model, each.cost) for each in tokens if each.cost is not None]
    with section("Tokens by day and model, input and output"):
        _chart(charts.by_day(used), bool(used), "No answer of a model on these days.")
    with section("Cost by day and model, in dollars"):
        _chart(charts.by_day(costs), bool(costs), "The transcripts of these days tell no cost.")
    with section("Tool calls by name"):
        _chart(charts.tool_calls(tools), bool(tools), "No tool was called.")
    durations = charts.tool_durations(tools)
    with section("Duration of tool calls, in seconds"):
        _chart(durations, bool(durations["yAxis"]["data"]), "No call has ended.")
    with section("Active hours by day and workspace"):
        _chart(
            charts.by_day([(each.day, each.workspace or "(none)", each.hours) for each in active]),
            any(each.hours for each in active),
            "No session was at work.",
        )
    with section("Sessions by workspace"):
        _chart(charts.workspaces(workspaces), bool(workspaces), "No session was updated.")
    if tools:
        with section("Tools").classes("wide"):
            ui.html(_tools_table(tools), sanitize=False).classes("scrolled")


def _chart(options: dict[str, object], drawable: bool, otherwise: str) -> None:
    if drawable:
        ui.echart(options).classes("chart")
    else:
        empty_state("Nothing to draw", otherwise, icon="insights")


def _tools_table(tools: Sequence[ToolUse]) -> Markup:
    number = Markup('<td class="number">{}</td>')
    row = Markup("<tr><td><bdi>{}</bdi></td>") + 5 * number + Markup("</tr>")
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
    heads = ("Calls", "Failed", "Error rate", "Half within", "95 of 100 within")
    return Markup('<table class="table"><thead><tr><th>Tool</th>{}</tr></thead><tbody>{}</tbody></table>').format(
        Markup("").join(Markup('<th class="number">{}</th>').format(head) for head in heads), rows
    )


def _short(count: int) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if count >= limit:
            return f"{count / (1e3 if unit == 'k' else limit):,.1f} {unit}"
    return f"{count:,}"
