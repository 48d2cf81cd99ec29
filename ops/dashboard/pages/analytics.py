"""Analytics: tokens and cost, tools, workspaces and active time, over a range of days."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from fastapi import FastAPI, Request
from nicegui import background_tasks, ui

from ops.dashboard.analytics import questions
from ops.dashboard.analytics.period import DAYS, Period
from ops.dashboard.cluster.watch import ClusterWatch
from ops.dashboard.components import Way, empty_state, error_state, heading, no_sessions
from ops.dashboard.layout import Page, frame
from ops.dashboard.node_client.failures import ReadFailed
from ops.dashboard.node_client.reader import NodeReader
from ops.dashboard.pages.analytics_cards import AnalyticsCards
from replica.reading.http_models import QueryResponse

HEAD = '<link rel="stylesheet" href="/static/analysis.css">'
ANSWER_SECONDS = 2 * questions.TIMEOUT_MS / 1000 + 5
"""For how long a node may wait for a worker, run, and answer."""

Row = TypeVar("Row")


def register(_: FastAPI, reader: NodeReader, __: ClusterWatch) -> None:
    """Add the page."""

    @ui.page("/analytics")
    async def analytics_page(request: Request) -> None:
        with frame(reader, "Analytics", "/analytics") as page:
            # Behind what the frame brings, whose rules it refines.
            ui.add_head_html(HEAD)
            heading("Analytics", "From the ready views over all sessions; days are UTC.")
            view = _AnalyticsView(reader, page, Period.of(dict(request.query_params)))
        ui.context.client.on_delete(view.cancel)
        await ui.context.client.connected()
        view.read()


class _AnalyticsView:
    """The range, and the cards of it."""

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
            until = ui.input("Until", value=str(self._period.until or "")).props(
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
            cards = AnalyticsCards(period.ends(today))
        failure: ReadFailed | None = None
        try:
            async with asyncio.TaskGroup() as group:
                tokens, workspaces, *_ = (
                    group.create_task(asked)
                    for asked in (
                        self._show(questions.tokens_sql(period, today), questions.tokens_of, cards.show_tokens),
                        self._show(
                            questions.workspaces_sql(period, today), questions.workspaces_of, cards.show_workspaces
                        ),
                        self._show(questions.tools_sql(period, today), questions.tools_of, cards.show_tools),
                        self._show(questions.active_sql(period, today), questions.active_of, cards.show_active),
                    )
                )
        except* ReadFailed as failures:
            failure = next(each for each in failures.exceptions if isinstance(each, ReadFailed))
        if failure is not None:
            self._draw_failure(failure)
        elif not tokens.result() and not workspaces.result():
            self._draw_nothing(period)

    async def _show(
        self, sql: str, rows: Callable[[QueryResponse], list[Row]], show: Callable[[list[Row]], None]
    ) -> int:
        """Ask, and show what came as soon as it has; returns how many rows that were."""
        answer = await self._reader.post(
            "/v1/query", QueryResponse, questions.body(sql), timeout_seconds=ANSWER_SECONDS
        )
        with self._results:
            self._page.showing(answer)
            show(rows(answer.content))
        return answer.content.row_count

    def _draw_failure(self, error: ReadFailed) -> None:
        self._results.clear()
        with self._results:
            self._page.failed(error)
            error_state(error, self.read)

    def _draw_nothing(self, period: Period) -> None:
        self._results.clear()
        with self._results:
            if period == Period():
                no_sessions("insights")
                return
            empty_state(
                "Nothing on these days",
                "No session was at work then.",
                icon="event_busy",
                way=Way("Show all time", Period().address),
            )
