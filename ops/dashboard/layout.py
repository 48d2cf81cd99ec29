"""The frame around every page: navigation, theme, and how old what is shown is."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple, TypeVar

from nicegui import ui
from pydantic import BaseModel

from ops.dashboard.freshness import Freshness, describe
from ops.dashboard.node_client.failures import NodeRefused, ReadFailed
from ops.dashboard.node_client.reader import Answer, NodeReader
from ops.dashboard.theme import Theme, chosen_theme

Content = TypeVar("Content", bound=BaseModel)

HEAD = """
<link rel="stylesheet" href="/static/dashboard.css">
<script defer src="/static/dashboard.js"></script>
"""


class Destination(NamedTuple):
    """One entry of the navigation; `key` goes there after a `g`."""

    label: str
    path: str
    icon: str
    key: str


NAVIGATION = (
    Destination("Cluster", "/", "hub", "c"),
    Destination("Sessions", "/sessions", "forum", "s"),
    Destination("Analytics", "/analytics", "insights", "a"),
    Destination("SQL", "/sql", "terminal", "q"),
)


class Key(NamedTuple):
    """Keys that are pressed one after the other, or either of which does something, and what they do."""

    pressed: str
    does: str


class Page:
    """A page that is being shown: keeps and displays how old its contents are."""

    def __init__(self, reader: NodeReader, *, renewing: bool, reads_at_once: bool) -> None:
        self._reader = reader
        self._reads_at_once = reads_at_once
        self._shown = Freshness(renewing=renewing)
        # No live region: its text counts seconds, and each would be read out. Pages announce failures themselves.
        self._chip = ui.element("div").classes("freshness").props('tabindex=0 role=group aria-label="Freshness"')
        with self._chip:
            ui.element("span").classes("freshness-dot")
            self._text = ui.label()
            self._explanation = ui.tooltip("")
        self._draw()
        ui.timer(1.0, self._draw)

    def showing(self, answer: Answer[Content]) -> Answer[Content]:
        """The page now shows this answer, which is returned."""
        self.fresh(answer.node, answer.age_seconds)
        return answer

    def fresh(self, node: str, age_seconds: float, *, read_at: float | None = None) -> None:
        """What the page shows is what `node` has now, or had at `read_at`, `age_seconds` behind the primary."""
        moved = self._shown.moved_from
        if self._shown.node not in {"", node}:
            moved = next(
                (
                    (known.name, known.failure)
                    for known in self._reader.choice.nodes
                    if known.name == self._shown.node and known.failure
                ),
                moved,
            )
            if moved is not None and moved[0] == self._shown.node:
                ui.notify(f"{moved[0]} stopped answering; reading from {node}", type="warning", position="top")
        self._shown = replace(
            self._shown,
            node=node,
            age_seconds=age_seconds,
            read_at=read_at or time.time(),
            moved_from=moved,
            failure=None,
        )
        self._draw()

    def failed(self, error: ReadFailed) -> None:
        """What the page shows could not be renewed; a refusal is what a node says now, as good as an answer."""
        if isinstance(error, NodeRefused) and error.node:
            self.fresh(error.node, error.age_seconds)
            return
        self._shown = replace(self._shown, failure=error)
        self._draw()

    def _draw(self) -> None:
        level, text, explanation = describe(self._shown, time.time())
        self._chip.props(f"data-level={level}")
        self._chip.set_visibility(bool(self._reads_at_once or self._shown.node or self._shown.failure))
        self._text.set_text(text)
        self._explanation.set_text(explanation or text)


@contextmanager
def frame(
    reader: NodeReader,
    title: str,
    path: str,
    *,
    renewing: bool = False,
    reads_at_once: bool = True,
    keys: Sequence[Key] = (),
) -> Iterator[Page]:
    """Draw the frame; what is made within it is the page.

    Args:
        reader: What the page reads from.
        title: The browser's title.
        path: The navigation's entry that the page belongs to.
        renewing: Whether the page renews its contents by itself.
        reads_at_once: Whether it reads as it opens; else it says nothing of any node before it has read.
        keys: What else keys do on this page, besides going to another one.
    """
    ui.page_title(f"{title} · Headwater")
    ui.add_head_html(HEAD)
    theme = chosen_theme()
    dark = ui.dark_mode(theme.dark)
    with ui.element("header").classes("bar"):
        ui.link("Skip to the content", "#main").classes("skip")
        with ui.element("a").props("href=/ aria-label=Headwater").classes("brand"):
            ui.icon("water").props("aria-hidden=true")
            ui.label("Headwater").classes("brand-name")
        with ui.element("nav").classes("navigation").props('aria-label="Pages"'):
            for destination in NAVIGATION:
                current = " aria-current=page" if destination.path == path else ""
                with ui.element("a").props(
                    f"href={destination.path} data-key={destination.key} aria-label={destination.label}{current}"
                ):
                    ui.icon(destination.icon).props("aria-hidden=true")
                    ui.label(destination.label).classes("navigation-label")
        ui.element("div").classes("bar-space")
        page = Page(reader, renewing=renewing, reads_at_once=reads_at_once)
        _theme_button(theme, dark)
    # NiceGUI's own page is the landmark `main`; a second one within it would confuse screen readers.
    with ui.element("div").classes("main").props("id=main tabindex=-1"):
        yield page
        going = [Key(f"g {place.key}", place.label) for place in NAVIGATION]
        ui.html(" · ".join(map(_pressed, (*going, *keys))), sanitize=False).classes("keys")


def _pressed(key: Key) -> str:
    return " ".join(f"<kbd>{each}</kbd>" for each in key.pressed.split()) + f" {key.does}"


def _theme_button(theme: Theme, dark: ui.dark_mode) -> None:
    button = ui.button(icon=theme.icon).props("flat round dense").classes("theme-button")

    def label(chosen: Theme) -> None:
        button.props(f'icon={chosen.icon} aria-label="Theme: {chosen.value}; change it"')

    def change() -> None:
        nonlocal theme
        theme = theme.next
        dark.set_value(theme.dark)
        label(theme)
        ui.run_javascript(theme.remember)

    label(theme)
    button.on_click(change)
