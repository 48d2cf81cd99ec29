"""The cluster at a glance: groups and who leads them, nodes, lag over time, and what happened."""

from __future__ import annotations

from fastapi import FastAPI
from nicegui import ui

from ops.dashboard.cluster.watch import ClusterWatch
from ops.dashboard.components import heading, loading_state
from ops.dashboard.layout import frame
from ops.dashboard.node_client.reader import NodeReader


def register(_: FastAPI, reader: NodeReader, watch: ClusterWatch) -> None:
    """Add the page."""

    @ui.page("/")
    async def cluster_page() -> None:
        with frame(reader, "Cluster", "/", renewing=True):
            heading("Cluster")
            loading_state()
