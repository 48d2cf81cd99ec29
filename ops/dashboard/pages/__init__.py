"""The pages. Each module registers its routes with a function `register(app, reader, watch)`."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI

from ops.dashboard.cluster.watch import ClusterWatch
from ops.dashboard.node_client.reader import NodeReader
from ops.dashboard.pages import analytics, cluster, raw, session, sessions, sql

PAGES: tuple[Callable[[FastAPI, NodeReader, ClusterWatch], None], ...] = (
    cluster.register,
    sessions.register,
    session.register,
    raw.register,
    analytics.register,
    sql.register,
)
