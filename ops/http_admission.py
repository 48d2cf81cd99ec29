"""What keeps a node's operations answered however many readers there are: bounds on requests and on connections.

Requests of readers are admitted up to a number below that of connections, and a connection on which no request
is under way makes room for a new one. So health, readiness and metrics always find a connection and an answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 256
MAX_READERS_REQUESTS = 224
"""Requests under way that are not operations; live follows have a bound of their own below it."""


class Admission:
    """Refuses a request that is not an operation while too many of them are under way."""

    def __init__(self, app: ASGIApp, *, operations: Collection[str], refuse: ASGIApp, max_requests: int) -> None:
        self._app = app
        self._operations = frozenset(operations)
        self._refuse = refuse
        self._max_requests = max_requests
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["path"] in self._operations:
            await self._app(scope, receive, send)
        elif self._under_way >= self._max_requests:
            await self._refuse(scope, receive, send)
        else:
            self._under_way += 1
            try:
                await self._app(scope, receive, send)
            finally:
                self._under_way -= 1


class BoundedConnections(H11Protocol):
    """HTTP/1.1 on one of `MAX_CONNECTIONS`: one more closes that which has been without a request longest."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as its base
        """Make room if there is none."""
        super().connection_made(transport)
        self._idle_since = self.loop.time()
        if len(self.connections) > MAX_CONNECTIONS:
            self._make_room()

    def on_response_complete(self) -> None:
        """The connection is idle from now on."""
        self._idle_since = self.loop.time()
        super().on_response_complete()

    def _make_room(self) -> None:
        open_now = [
            each
            for each in self.connections
            if isinstance(each, BoundedConnections) and not each.transport.is_closing()
        ]
        if len(open_now) <= MAX_CONNECTIONS:
            return
        idle = [each for each in open_now if each is not self and each._is_idle]  # noqa: SLF001 - of its own class
        min(idle, key=lambda each: each._idle_since, default=self).shutdown()  # noqa: SLF001 - of its own class

    @property
    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete
