"""SQL: an editor, and the result as a table, a chart or a file."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from fastapi import FastAPI, Request
from nicegui import background_tasks, ui

from ops.dashboard.cluster.watch import ClusterWatch
from ops.dashboard.components import draw_chart, empty_state, error_state, heading, loading_state
from ops.dashboard.layout import Key, Page, frame
from ops.dashboard.node_client.failures import NodeRefused, ReadFailed
from ops.dashboard.node_client.reader import NodeReader
from ops.dashboard.sql import export
from ops.dashboard.sql.catalogue import TABLES, Table
from ops.dashboard.sql.chart import MAX_POINTS, chosen_columns, result_chart
from ops.dashboard.sql.request import KINDS, ROWS, SECONDS, SqlRequest
from ops.dashboard.sql.result import SHOWN_ROWS, numeric_columns, result_table
from replica.reading.http_models import QueryResponse

HEAD = '<link rel="stylesheet" href="/static/analysis.css">'
KEYS = (Key("Ctrl-Enter", "run"),)
ANSWER_SECONDS = 10
"""That a node may take past the time limit: it waits for a worker first, and then says itself that time is up."""
ERROR_TITLES = {"query_refused": "The node refused this query", "query_limit": "The query passed a limit"}
FILES: dict[str, tuple[Callable[[Sequence[str], Sequence[Sequence[Any]]], bytes], str]] = {
    "csv": (export.to_csv, "text/csv"),
    "json": (export.to_json, "application/json"),
    "parquet": (export.to_parquet, "application/vnd.apache.parquet"),
}
FOLLOW_THEME = """
    const dark = () => document.body.classList.contains('body--dark');
    const nameEditor = () => {
        const text = document.querySelector('.sql-editor .cm-content');
        text ? text.setAttribute('aria-label', 'SQL') : requestAnimationFrame(nameEditor);
    };
    nameEditor();
    new MutationObserver(() => emitEvent('theme', dark()))
        .observe(document.body, {attributes: true, attributeFilter: ['class']});
    return dark();
"""


def register(_: FastAPI, reader: NodeReader, __: ClusterWatch) -> None:
    """Add the page."""

    @ui.page("/sql")
    async def sql_page(request: Request) -> None:
        with frame(reader, "SQL", "/sql", reads_at_once=False, keys=KEYS) as page:
            # Behind what the frame brings, whose rules it refines.
            ui.add_head_html(HEAD)
            heading(
                "SQL", "Reads all shards of one standby as one database (DuckDB's SQL); nothing can be changed."
            )
            view = _SqlView(reader, page, SqlRequest.of(dict(request.query_params)))
        ui.context.client.on_delete(view.cancel)
        await ui.context.client.connected()
        await view.begin()


class _SqlView:
    """The editor, the query that runs, and what the last one brought."""

    def __init__(self, reader: NodeReader, page: Page, request: SqlRequest) -> None:
        self._reader = reader
        self._page = page
        self._request = request
        self._query: asyncio.Task[None] | None = None
        self._began_at = 0.0
        self._answer: QueryResponse | None = None
        with ui.element("div").classes("sql-grid"):
            with ui.element("div").classes("sql-work"):
                self._draw_editor()
                self._results = ui.element("div").classes("sql-results").props("aria-live=polite")
            self._draw_tables()
        self._show_nothing()

    async def begin(self) -> None:
        """Run the query of the address, if there is one."""
        ui.on("theme", lambda event: self._set_theme(bool(event.args)))
        self._set_theme(bool(await ui.run_javascript(FOLLOW_THEME, timeout=5)))
        if self._request.sql:
            self.run()

    def run(self) -> None:
        """Ask what the editor holds; a query that still runs is given up."""
        self.cancel()
        self._request = replace(self._request, sql=self._editor.value or "")
        self._remember()
        if self._request.sql.strip():
            if self._answer is None:
                self._show(loading_state)
            self._query = background_tasks.create(self._ask(self._request), name="SQL of a viewer")

    def cancel(self) -> None:
        """Give up the query that runs; its node hears of it by the connection that ends."""
        if self._query is not None and not self._query.done():
            self._query.cancel()

    def _stop(self) -> None:
        self.cancel()
        if self._answer is None:
            self._show_nothing()

    def _draw_editor(self) -> None:
        with ui.element("section").classes("card sql-card"):
            self._editor = ui.codemirror(
                self._request.sql, language="SQL", line_wrapping=True, keymap={"Mod-Enter": self.run}
            ).classes("sql-editor")
            with ui.element("div").classes("sql-bar"):
                self._run = ui.button("Run", icon="play_arrow", on_click=self.run).props("no-caps unelevated")
                self._cancel = ui.button("Cancel", icon="stop", on_click=self._stop).props("no-caps outline")
                self._cancel.set_visibility(False)
                rows = {rows: f"{rows:,} rows" for rows in ROWS}
                seconds = {seconds: f"{seconds} s" for seconds in SECONDS}
                self._select("rows", "At most", rows)
                self._select("seconds", "Time limit", seconds)
                self._progress = ui.label().classes("muted sql-progress").props("role=status")
        self._clock = ui.timer(0.2, self._tick, active=False)

    def _select(self, name: str, label: str, options: dict[int, str]) -> None:
        field = ui.select(options, label=label, value=getattr(self._request, name)).props("outlined dense")

        def changed() -> None:
            self._request = replace(self._request, **{name: field.value})

        field.classes("sql-select").on_value_change(changed)

    def _draw_tables(self) -> None:
        with ui.element("section").classes("card sql-tables").props('aria-label="Tables and views"'):
            ui.label("Tables and views").classes("card-title").props("role=heading aria-level=2")
            for table in TABLES:
                self._draw_table(table)
            ui.label("Where a workspace was indexed, also documents, properties and links.").classes("muted small")

    def _draw_table(self, table: Table) -> None:
        with ui.element("details").classes("sql-table"):
            with ui.element("summary"):
                ui.label(table.name).classes("mono")
            ui.label(table.explanation).classes("muted small")
            ui.label(", ".join(table.columns)).classes("mono small")

            def look() -> None:
                self._editor.set_value(table.example)
                self.run()

            ui.button("Look", on_click=look).props(f'flat dense no-caps aria-label="Look at {table.name}"')

    def _set_theme(self, dark: bool) -> None:
        self._editor.set_theme("oneDark" if dark else "vscodeLight")

    def _remember(self) -> None:
        ui.navigate.history.replace(self._request.address)

    async def _ask(self, request: SqlRequest) -> None:
        self._began_at = time.monotonic()
        self._running(on=True)
        try:
            answer = await self._reader.post(
                "/v1/query", QueryResponse, request.body, timeout_seconds=2 * request.seconds + ANSWER_SECONDS
            )
        except asyncio.CancelledError:
            self._say(f"cancelled after {self._took()}")
            if self._query is asyncio.current_task():
                self._running(on=False)
            raise
        except ReadFailed as error:
            self._say(f"failed after {self._took()}")
            self._show_error(error)
        else:
            self._answer = answer.content
            with self._results:
                self._page.showing(answer)
            cut = ", cut at the limit" if answer.content.truncated else ""
            self._say(f"{answer.content.row_count:,} rows{cut} in {self._took()}")
            self._show_answer()
        self._running(on=False)

    def _took(self) -> str:
        return f"{time.monotonic() - self._began_at:.1f} s"

    def _running(self, *, on: bool) -> None:
        self._cancel.set_visibility(on)
        self._clock.active = on

    def _tick(self) -> None:
        if self._query is not None and not self._query.done():
            self._say(f"running, {self._took()}")

    def _say(self, text: str) -> None:
        self._progress.set_text(text)

    def _show(self, draw: Callable[[], None]) -> None:
        self._results.clear()
        with self._results:
            draw()

    def _show_nothing(self) -> None:
        self._show(lambda: empty_state("No query yet", "Write one, or look at a table.", icon="terminal"))

    def _show_error(self, error: ReadFailed) -> None:
        self._answer = None
        self._results.clear()
        with self._results:
            self._page.failed(error)
            if not isinstance(error, NodeRefused):
                error_state(error, self.run)
                return
            with ui.element("section").classes("card sql-error").props("role=alert"):
                ui.label(ERROR_TITLES.get(error.code, "The query failed")).classes("card-title")
                with ui.element("pre").classes("mono sql-said"):
                    ui.label(str(error))

    def _show_answer(self) -> None:
        assert self._answer is not None, "there is an answer"
        answer = self._answer
        self._results.clear()
        with self._results:
            if not answer.rows:
                empty_state("No rows", f"The query ran and found nothing in {', '.join(answer.columns)}.")
                return
            with ui.element("section").classes("card"):
                with ui.element("div").classes("sql-bar"):
                    view = ui.toggle({"table": "Table", "chart": "Chart"}, value=self._request.view)
                    view.props("no-caps dense unelevated").on_value_change(lambda: self._choose(view=view.value))
                    ui.element("div").classes("bar-space")
                    for ending in FILES:
                        ui.button(ending.upper() if ending != "parquet" else "Parquet", icon="download").props(
                            f'flat dense no-caps aria-label="Download as {ending}"'
                        ).on_click(lambda _, ending=ending: self._download(ending))
                if self._request.view == "chart":
                    self._draw_chart(answer)
                else:
                    ui.html(result_table(answer.columns, answer.rows), sanitize=False).classes("scrolled sql-rows")
                    if len(answer.rows) > SHOWN_ROWS:
                        ui.label(
                            f"The first {SHOWN_ROWS} of {len(answer.rows):,} rows; downloads have all."
                        ).classes("muted small")

    def _choose(self, **chosen: Any) -> None:  # noqa: ANN401 - fields of the request
        self._request = replace(self._request, **chosen)
        self._remember()
        self._show_answer()

    def _draw_chart(self, answer: QueryResponse) -> None:
        columns = export.distinct(answer.columns)
        chosen = chosen_columns(columns, answer.rows, self._request.x, self._request.y)
        if chosen is None:
            empty_state("Nothing to draw", "A chart needs a column of numbers.", icon="insights")
            return
        x, y = chosen
        with ui.element("div").classes("sql-bar"):
            kind = ui.select(list(KINDS), label="Chart", value=self._request.kind).props("outlined dense")
            kind.classes("sql-select").on_value_change(lambda: self._choose(kind=kind.value))
            along = ui.select(columns, label="x", value=x).props("outlined dense")
            along.classes("sql-select").on_value_change(lambda: self._choose(x=along.value))
            upwards = ui.select(numeric_columns(columns, answer.rows), label="y", value=y).props("outlined dense")
            upwards.classes("sql-select").on_value_change(lambda: self._choose(y=upwards.value))
        options = result_chart(columns, answer.rows, kind=self._request.kind, x=x, y=y)
        draw_chart(options).classes("chart-tall")
        if len(answer.rows) > MAX_POINTS:
            ui.label(f"The first {MAX_POINTS:,} of {len(answer.rows):,} rows.").classes("muted small")

    async def _download(self, ending: str) -> None:
        if self._answer is None:
            return
        encode, media_type = FILES[ending]
        content = await asyncio.to_thread(encode, self._answer.columns, self._answer.rows)
        ui.download.content(content, f"headwater.{ending}", media_type)
