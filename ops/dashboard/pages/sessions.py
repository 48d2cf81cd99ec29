"""Sessions: search, filter, and one page after the other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from urllib.parse import quote

from fastapi import FastAPI, Request
from markupsafe import Markup
from nicegui import ui

from ops.dashboard.cluster.watch import ClusterWatch
from ops.dashboard.components import Way, empty_state, error_state, heading, loading_state, no_sessions
from ops.dashboard.layout import Key, Page, frame
from ops.dashboard.node_client.failures import NodeRefused, ReadFailed
from ops.dashboard.node_client.reader import NodeReader
from ops.dashboard.session_filter import MAX_CHARACTERS, SessionSearch
from ops.dashboard.transcript.rendering import moment
from ops.dashboard.transcript.visible import one_line
from replica.reading.http_models import SessionModel, SessionsResponse

KEYS = (Key("/", "search"),)
RETRY_SECONDS = 2.0
TYPING_MILLISECONDS = 350
"""A search begins when nothing was typed for so long."""


def register(_: FastAPI, reader: NodeReader, __: ClusterWatch) -> None:
    """Add the page."""

    @ui.page("/sessions")
    async def sessions_page(request: Request) -> None:
        with frame(reader, "Sessions", "/sessions", keys=KEYS) as page:
            heading("Sessions", "The most recently updated first; days and times are UTC.")
            view = _SessionSearchView(reader, page, SessionSearch.of(dict(request.query_params)))
            ui.timer(RETRY_SECONDS, view.read_again)
        await ui.context.client.connected()
        await view.read()


class _SessionSearchView:
    """The filters, and the sessions that match them."""

    def __init__(self, reader: NodeReader, page: Page, search: SessionSearch) -> None:
        self._reader = reader
        self._page = page
        self._search = search
        self._failed = False
        self._draw_filters()
        self._results = ui.element("div").props("aria-live=polite")
        with self._results:
            loading_state()

    def _draw_filters(self) -> None:
        with ui.element("form").classes("filters").props("role=search").on("submit.prevent", self.read):
            self._field("text", "Title or id", "search").classes("filter-wide")
            self._field("workspace", "Workspace")
            self._field("status", "Status")
            self._field("model", "Model")
            self._field("since", "Updated from", "date")
            self._field("until", "Updated until", "date")

    def _field(self, name: str, label: str, kind: str = "text") -> ui.input:
        field = ui.input(label, value=getattr(self._search, name))
        field.props(f"outlined dense type={kind} maxlength={MAX_CHARACTERS} debounce={TYPING_MILLISECONDS}")
        if kind == "date":
            field.props("stack-label").classes("filter-date")

        async def changed() -> None:
            # Another search begins with its first page.
            query = {known: str(getattr(self._search, known)) for known in SessionSearch.__dataclass_fields__}
            self._search = SessionSearch.of(query | {name: field.value or "", "page_token": ""})
            ui.navigate.history.replace(self._search.address)
            await self.read()

        field.on_value_change(changed)
        return field

    async def read_again(self) -> None:
        """Read where that failed: a node may answer by now."""
        if self._failed:
            await self.read()

    async def read(self) -> None:
        """Read and show what the search asks for."""
        search = self._search
        try:
            answer = await self._reader.get("/v1/sessions", SessionsResponse, search.parameters)
        except ReadFailed as error:
            self._failed = not isinstance(error, NodeRefused)
            self._page.failed(error)
            self._results.clear()
            with self._results:
                error_state(error)
            return
        self._failed = False
        if search != self._search:
            return
        self._page.showing(answer)
        self._results.clear()
        with self._results:
            self._draw(answer.content)

    def _draw(self, found: SessionsResponse) -> None:
        if not found.sessions:
            if self._search.is_empty:
                no_sessions("forum")
            else:
                empty_state(
                    "No session matches",
                    "Filters match whole names; the search finds parts of titles and ids.",
                    icon="search_off",
                    way=Way("Show all sessions", "/sessions"),
                )
            return
        ui.html(_table(found.sessions, self._search), sanitize=False)
        with ui.element("nav").classes("paging").props('aria-label="Pages of sessions"'):
            if self._search.page_token:
                ui.link("First page", replace(self._search, page_token="").address)
            if found.next_page_token:
                ui.link("Next page", replace(self._search, page_token=found.next_page_token).address)


def _table(sessions: Iterable[SessionModel], search: SessionSearch) -> Markup:
    rows = Markup("").join(_row(session, search) for session in sessions)
    return Markup(
        '<table class="table stacked sessions"><thead><tr><th>Session</th><th>Workspace</th><th>Status</th>'
        '<th>Model</th><th class="number">Entries</th><th>Updated</th></tr></thead><tbody>{}</tbody></table>'
    ).format(rows)


def _row(session: SessionModel, search: SessionSearch) -> Markup:
    def narrowed(name: str, shown: str) -> Markup:
        if not shown:
            return Markup("")
        address = replace(search, **{name: shown, "page_token": ""}).address
        return Markup('<a class="chip chip-{}" href="{}" title="Only this {}"><bdi>{}</bdi></a>').format(
            name, address, name, one_line(shown, 40)
        )

    return Markup(
        '<tr><td class="session-title whole-line"><a href="/sessions/{}"><bdi>{}</bdi></a>'
        '<div class="muted mono">{}</div></td>'
        '<td>{}</td><td>{}</td><td>{}</td><td class="number below" data-label="Entries">{}</td>'
        '<td class="below">{}</td></tr>'
    ).format(
        quote(session.session_id, safe=""),
        one_line(session.title, 120) or "(no title)",
        session.session_id,
        narrowed("workspace", session.workspace),
        narrowed("status", session.status),
        narrowed("model", session.model),
        f"{session.entry_count:,}",
        moment(session.updated_at_ms),
    )
