"""Sessions: search, filter, page."""

from __future__ import annotations

from fastapi import FastAPI
from nicegui import ui

from ops.dashboard.cluster.watch import ClusterWatch
from ops.dashboard.components import heading, loading_state
from ops.dashboard.layout import frame
from ops.dashboard.node_client.reader import NodeReader


def register(_: FastAPI, reader: NodeReader, watch: ClusterWatch) -> None:
    """Add the page."""

    @ui.page("/sessions")
    async def sessions_page() -> None:
        with frame(reader, "Sessions", "/sessions"):
            heading("Sessions")
            loading_state()
