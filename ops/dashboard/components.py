"""Parts that every page is made of: its heading, and what it says when there is nothing or nothing can be read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from nicegui import ui

from ops.dashboard.node_client.failures import DashboardBusy, NoNodeAnswers, ReadFailed

ERROR_ICONS = {NoNodeAnswers: "cloud_off", DashboardBusy: "hourglass_top"}


def heading(title: str, explanation: str = "") -> None:
    """A page's title and, in one sentence, what it shows."""
    with ui.element("div").classes("heading"):
        ui.label(title).classes("heading-title").props("role=heading aria-level=1")
        if explanation:
            ui.label(explanation).classes("muted")


def section(title: str) -> ui.element:
    """A card with a title; what is made within it stands below."""
    card = ui.element("section").classes("card")
    with card:
        ui.label(title).classes("card-title").props("role=heading aria-level=2")
    return card


def draw_chart(options: dict[str, Any]) -> ui.echart:
    """A chart; drawn as SVG, so that the style sheet reaches its text."""
    return ui.echart(options, renderer="svg").classes("chart")


class Way(NamedTuple):
    """Where to go from a page that has nothing to show."""

    label: str
    path: str


def empty_state(title: str, hint: str, *, icon: str = "inbox", command: str = "", way: Way | None = None) -> None:
    """Says that there is nothing, and what to do about it: type a command, or go elsewhere."""
    with ui.element("div").classes("state"):
        ui.icon(icon).classes("state-icon").props("aria-hidden=true")
        ui.label(title).classes("state-title")
        ui.label(hint).classes("muted")
        if command:
            ui.label(command).classes("state-command mono")
        if way is not None:
            ui.link(way.label, way.path).classes("state-link")


def no_sessions(icon: str) -> None:
    """Says that the cluster holds none."""
    empty_state("No sessions yet", "Bring some in:", icon=icon, command="headwater import PATH")


def error_state(error: ReadFailed, retry: Callable[[], Any] | None = None) -> None:
    """Says what could not be read, why, node by node, and offers to try again."""
    with ui.element("div").classes("state state-error").props("role=alert"):
        ui.icon(ERROR_ICONS.get(type(error), "block")).classes("state-icon").props("aria-hidden=true")
        ui.label(error.title).classes("state-title")
        if isinstance(error, NoNodeAnswers):
            with ui.element("ul").classes("state-reasons"):
                for node, reason in sorted(error.reasons.items()):
                    with ui.element("li"):
                        ui.label(f"{node}: {reason}")
            goes_on = "" if retry is not None else " The page goes on by itself as soon as one of them answers."
            ui.label(f"Are the nodes up?{goes_on}").classes("muted")
        else:
            ui.label(str(error)).classes("muted")
        if retry is not None:
            ui.button("Try again", on_click=retry).props("outline no-caps")


def loading_state() -> None:
    """Stands where an answer will be."""
    with ui.element("div").classes("state").props("role=status"):
        ui.spinner(size="2em")
        ui.label("Reading …").classes("muted")
