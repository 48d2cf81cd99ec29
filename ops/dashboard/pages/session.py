"""One session: its transcript as a conversation that grows while it is looked at."""

from __future__ import annotations

import asyncio

from fastapi import FastAPI
from markupsafe import Markup
from nicegui import background_tasks, ui

from ops.dashboard.cluster.watch import ClusterWatch
from ops.dashboard.components import Way, empty_state, error_state, heading, loading_state
from ops.dashboard.layout import Key, Page, frame
from ops.dashboard.node_client.failures import NodeRefused, ReadFailed
from ops.dashboard.node_client.reader import CaughtUp, FollowedEntry, Interrupted, NodeReader
from ops.dashboard.paths import raw_entries, session_page, session_path
from ops.dashboard.transcript.conversation import Conversation, Item
from ops.dashboard.transcript.rendering import moment, render
from ops.dashboard.transcript.visible import one_line
from ops.dashboard.transcript.window import WINDOW, Window
from replica.reading.http_models import EntryModel, SessionModel, SessionResponse, TranscriptResponse

KEYS = (Key("j k", "next and previous entry"), Key("l", "latest"))
LOOK_AHEAD = 30
"""Entries past the page, read for the results of calls that it shows."""
MAX_READS = 4
"""Of a page whose entries are so large that a node gives them piece by piece."""
MAX_WAITING = 500
"""Entries that have come and are not shown yet; a stream that brings more waits."""
MAX_SHOWN = 3 * WINDOW
"""Items of a page that is followed; past it the first ones leave."""
NOT_FOUND = "session_not_found"
SHOW_SECONDS = 0.25
RETRY_SECONDS = 1.0


def register(_: FastAPI, reader: NodeReader, __: ClusterWatch) -> None:
    """Add the page."""

    @ui.page("/sessions/{session_id}")
    async def show_session(session_id: str, after: int | None = None) -> None:
        with frame(reader, "Session", "/sessions", renewing=True, keys=KEYS) as page:
            body = ui.element("div")
            with body:
                loading_state()
            view = _SessionView(reader, page, body, session_id, after)
            ui.timer(RETRY_SECONDS, view.open_again)
        await ui.context.client.connected()
        await view.open()


class _SessionView:
    """The page of one session."""

    def __init__(
        self, reader: NodeReader, page: Page, body: ui.element, session_id: str, after: int | None
    ) -> None:
        self._reader = reader
        self._page = page
        self._body = body
        self._session_id = session_id
        self._after = after
        self._path = session_path(session_id)
        self._raw = raw_entries(session_id)
        self._conversation = Conversation()
        self._drawn: dict[int, ui.html] = {}
        self._waiting: asyncio.Queue[EntryModel] = asyncio.Queue(MAX_WAITING)
        self._window = Window(0, 0, 0)
        self._read_at = ""
        self._failed = False

    async def open_again(self) -> None:
        """Open it where that failed: a node may answer by now, or the session may have reached it."""
        if self._failed:
            await self.open()

    async def open(self) -> None:
        """Read the session and draw it; follow it where the page reaches its end."""
        self._failed = False
        try:
            session, ahead = await self._read()
        except ReadFailed as error:
            self._failed = True
            self._body.clear()
            with self._body:
                heading("Session", one_line(self._session_id, 120))
                self._page.failed(error)
                if isinstance(error, NodeRefused) and error.code == NOT_FOUND:
                    empty_state(
                        "No such session",
                        "It may not have reached this standby yet; once it has, it is shown here.",
                        icon="search_off",
                        way=Way("All sessions", "/sessions"),
                    )
                else:
                    error_state(error)
            return
        self._conversation.settle(ahead)
        self._body.clear()
        with self._body:
            self._draw(session)
        if self._window.later is None:
            with self._body:
                ui.timer(SHOW_SECONDS, self._show_waiting)
            following = background_tasks.create(self._follow(), name=f"follow {self._session_id}")
            ui.context.client.on_delete(following.cancel)

    async def _read(self) -> tuple[SessionModel, list[EntryModel]]:
        """The session; its window's entries go into the conversation, those just past it are returned."""
        answer = self._page.showing(await self._reader.get(self._path, SessionResponse))
        session = answer.content.session
        start = Window.start(session.entry_count, self._after)
        entries: list[EntryModel] = []
        for _ in range(MAX_READS):
            part = await self._reader.get(
                f"{self._path}/transcript",
                TranscriptResponse,
                {
                    "after_seq": entries[-1].seq if entries else start,
                    "limit": WINDOW + LOOK_AHEAD - len(entries),
                },
            )
            entries += part.content.entries
            self._read_at = part.content.position.position
            if not part.content.more or len(entries) >= WINDOW + LOOK_AHEAD:
                break
        shown = entries[:WINDOW]
        last = shown[-1].seq if shown else start
        self._window = Window(start, last, max(session.entry_count, entries[-1].seq if entries else 0))
        self._conversation = Conversation()
        self._conversation.add(shown)
        return session, entries[WINDOW:]

    def _draw(self, session: SessionModel) -> None:
        ui.page_title(f"{one_line(session.title, 60) or session.session_id} · Headwater")
        heading(one_line(session.title, 200) or "(no title)")
        ui.html(_facts(session), sanitize=False)
        self._paging("top")
        with ui.element("div") as self._empty:
            empty_state("Nothing has been said yet", "Entries appear here as they come.", icon="chat_bubble")
        self._empty.set_visibility(not self._conversation.items)
        latest = self._window.later is None
        self._items = (
            ui.element("div")
            .classes("conversation")
            .props(
                f"role=log aria-live=off aria-label=Transcript data-live={'yes' if latest else 'no'}"
                f" data-start={'end' if latest and self._after is None and self._window.after else 'top'}"
            )
        )
        self._show(self._conversation.items)
        self._paging("bottom")
        button = ui.html(
            Markup('<a class="latest" href="{}" data-latest hidden>Jump to latest <b></b></a>').format(
                session_page(self._session_id)
            ),
            sanitize=False,
        )
        button.classes("latest-place")

    def _paging(self, place: str) -> None:
        window = self._window
        if place == "bottom" and window.earlier is None and window.later is None:
            return
        with ui.element("nav").classes("paging").props(f'aria-label="Parts of the transcript, {place}"'):
            if place == "top":
                self._count = ui.label(str(window)).classes("muted")
            if window.earlier is not None:
                ui.link("Start", session_page(self._session_id, 0))
                ui.link("Earlier", session_page(self._session_id, window.earlier))
            if window.later is not None:
                ui.link("Later", session_page(self._session_id, window.later))
                ui.link("Latest", session_page(self._session_id))
            elif place == "top":
                self._live = ui.element("span").classes("live")
                with self._live:
                    ui.label("live")

    def _show(self, items: list[Item]) -> None:
        for item in items:
            drawn = self._drawn.get(id(item))
            if drawn is not None:
                drawn.set_content(render(item, self._raw))
                continue
            with self._items:
                self._drawn[id(item)] = ui.html(render(item, self._raw), sanitize=False)

    def _show_waiting(self) -> None:
        entries = []
        while not self._waiting.empty():
            entries.append(self._waiting.get_nowait())
        if not entries:
            return
        self._empty.set_visibility(False)
        last = entries[-1].seq
        self._window = Window(self._window.after, last, max(last, self._window.count))
        self._show(self._conversation.add(entries))
        for item in self._conversation.drop_oldest(max(0, len(self._conversation.items) - MAX_SHOWN)):
            self._drawn.pop(id(item)).delete()
            self._window = Window(item.seq, last, self._window.count)
        self._count.set_text(str(self._window))

    async def _follow(self) -> None:
        seq, position, age = self._window.last, self._read_at, 0.0
        while True:
            try:
                async for followed in self._reader.follow(self._session_id, after_seq=seq, after_position=position):
                    match followed:
                        case FollowedEntry(entry, node):
                            seq, position = entry.seq, entry.position.position
                            await self._waiting.put(entry)
                        case CaughtUp(node, age):
                            pass
                        case Interrupted():
                            continue
                    with self._body:
                        self._live.set_visibility(True)
                        self._page.fresh(node, age)
            except ReadFailed as error:
                with self._body:
                    self._live.set_visibility(False)
                    self._page.failed(error)
                    if isinstance(error, NodeRefused) and error.code != NOT_FOUND:
                        error_state(error)
                        return
            # A session that is not found may not have reached the node that is read now.
            await asyncio.sleep(RETRY_SECONDS)


def _facts(session: SessionModel) -> Markup:
    facts = [
        ("Workspace", session.workspace),
        ("Status", session.status),
        ("Model", " ".join(filter(None, (session.provider, session.model)))),
        ("Id", session.session_id),
    ]
    shown = Markup("").join(
        Markup("<div><dt>{}</dt><dd><bdi>{}</bdi></dd></div>").format(name, one_line(value, 120))
        for name, value in facts
        if value
    )
    if session.parent_session_id:
        shown += Markup('<div><dt>Started by</dt><dd><a href="{}">{}</a></dd></div>').format(
            session_page(session.parent_session_id), session.parent_session_id
        )
    return Markup('<dl class="facts">{}<div><dt>Created</dt><dd>{} UTC</dd></div></dl>').format(
        shown, moment(session.created_at_ms)
    )
