"""The application: its pages, what they share, and the server that serves them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.staticfiles import StaticFiles
from nicegui import ui

from agent_core.cluster import HostPort
from ops.dashboard.callers import KnownNames, OwnCallersOnly
from ops.dashboard.cluster.watch import ClusterWatch
from ops.dashboard.content_security import ContentSecurity
from ops.dashboard.node_client.choice import NodeChoice
from ops.dashboard.node_client.reader import NodeReader
from ops.dashboard.pages import PAGES

STATIC_FILES = Path(__file__).parent / "static"
STOP_SECONDS = 1
ICON = "🌊"


def build_app(reader: NodeReader, watch: ClusterWatch, names: KnownNames) -> FastAPI:
    """The dashboard's application, which answers to these names. NiceGUI allows one of them in a process."""

    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(watch.run(), name="watch the cluster")
        async with reader:
            yield
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    app = FastAPI(title="Headwater dashboard", lifespan=running, docs_url=None, redoc_url=None, openapi_url=None)
    app.mount("/static", StaticFiles(directory=STATIC_FILES))
    for register in PAGES:
        register(app, reader, watch)
    ui.run_with(
        app,
        title="Headwater",
        favicon=ICON,
        dark=None,
        language="en-US",
        tailwind=False,
        show_welcome_message=False,
        gzip_middleware_factory=None,
    )
    # The last one added sees requests first: pages get their nonces before they are compressed.
    app.add_middleware(ContentSecurity)
    app.add_middleware(GZipMiddleware)
    app.add_middleware(OwnCallersOnly, names=names)
    return app


def serve(
    nodes: Sequence[str], listen: HostPort, allowed_hosts: Sequence[str], on_listening: Callable[[], None]
) -> None:
    """Serve the dashboard of these nodes until SIGINT or SIGTERM.

    Args:
        nodes: HTTP addresses, `host:port`.
        listen: Where to listen; whoever reaches it can read every session.
        allowed_hosts: Names by which browsers may ask, besides that of `listen`, `localhost` and any address.
        on_listening: Is called once pages can be asked for.

    Raises:
        OSError: The address cannot be listened on.
    """
    choice = NodeChoice(nodes)
    reader = NodeReader(choice)
    app = build_app(reader, ClusterWatch(reader), KnownNames(listen.host, allowed_hosts))
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    with socket.create_server(listen, family=family) as listener:
        _Server(config, on_listening).run(sockets=[listener])


class _Server(uvicorn.Server):
    """uvicorn that says when it listens."""

    def __init__(self, config: uvicorn.Config, on_listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_listening = on_listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_listening()
