"""The cluster at a glance: groups and who leads them, nodes, lag over time, and what happened."""

from __future__ import annotations

import time

from fastapi import FastAPI
from markupsafe import Markup
from nicegui import ui

from ops.dashboard.cluster import tables
from ops.dashboard.cluster.chart import lag_chart
from ops.dashboard.cluster.watch import INTERVAL_SECONDS, ClusterWatch
from ops.dashboard.components import draw_chart, error_state, heading, loading_state, section
from ops.dashboard.layout import Page, frame
from ops.dashboard.node_client.failures import NoNodeAnswers
from ops.dashboard.node_client.reader import NodeReader


def register(_: FastAPI, reader: NodeReader, watch: ClusterWatch) -> None:
    """Add the page."""

    @ui.page("/")
    async def cluster_page() -> None:
        with frame(reader, "Cluster", "/", renewing=True) as page:
            view = _ClusterView(watch, page)
        await ui.context.client.connected()
        view.draw()


class _ClusterView:
    """The page, drawn anew as the watch learns more."""

    def __init__(self, watch: ClusterWatch, page: Page) -> None:
        self._watch = watch
        self._page = page
        heading("Cluster", "Roles, positions and lag, once a second; times are UTC.")
        self._state = ui.element("div")
        with self._state:
            loading_state()
        with ui.element("div") as self._body:
            self._facts = ui.html("", sanitize=False)
            with section("Shard groups"):
                self._groups = ui.html("", sanitize=False)
            with section("Lag of the standbys, in seconds"):
                self._chart = draw_chart(lag_chart({}, time.time()))
                ui.label(
                    "While a standby does not answer, its line counts from when it last had everything."
                ).classes("muted small")
            with section("Nodes"):
                self._nodes = ui.html("", sanitize=False)
            with section("What happened"):
                self._changes = ui.html("", sanitize=False)
        self._body.set_visibility(False)
        self._said: dict[str, str] = {}
        ui.timer(INTERVAL_SECONDS, self.draw)

    def draw(self) -> None:
        """Show what is known now."""
        watch, picture = self._watch, self._watch.picture
        silent = bool(watch.failures) and time.time() - watch.seen_at > 3 * INTERVAL_SECONDS
        if picture is not None:
            self._page.fresh(", ".join(watch.source), watch.age_seconds, read_at=watch.seen_at)
        if silent:
            self._page.failed(NoNodeAnswers(watch.failures))
        if picture is None:
            if silent:
                self._say(watch.failures)
            return
        if not self._body.visible:
            self._state.clear()
            self._body.set_visibility(True)
        self._set(self._facts, tables.facts(picture))
        self._set(self._groups, tables.groups(picture, watch.failures))
        self._set(self._nodes, tables.nodes(picture, watch.failures))
        self._set(self._changes, tables.changes(watch.seen))
        self._chart.options.update(lag_chart(watch.lag.samples, time.time()))

    def _say(self, failures: dict[str, str]) -> None:
        """That there is nothing to show, and why; said anew only where the reasons are others."""
        if failures != self._said:
            self._said = dict(failures)
            self._state.clear()
            with self._state:
                error_state(NoNodeAnswers(failures))

    @staticmethod
    def _set(element: ui.html, content: Markup) -> None:
        if element.content != content:
            element.set_content(content)
