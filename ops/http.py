"""A node's HTTP side: metrics, health, and the routes that the reading side brings.

It runs in the daemon's own event loop. Everything that comes in is bounded: head, body, connections, time.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Generator, Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any, Self

import orjson
import uvicorn
from fastapi import APIRouter, FastAPI, Header, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client.exposition import choose_encoder
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent_core.cluster import HostPort
from agent_core.errors import HeadwaterError, InvalidRequest, Overloaded
from agent_core.ticks import seconds_to_tick
from ops.http_admission import MAX_READERS_REQUESTS, Admission, BoundedConnections
from ops.http_documentation import documentation_routes
from ops.metrics import build_registry
from ops.node_snapshot import NodeSnapshot

MAX_HEAD_BYTES = 16 * 1024
"""Checked after each read from the socket, so a head may be longer by what one read brings."""
KEEP_ALIVE_SECONDS = 30
STOP_SECONDS = 2
DATE_SECONDS = 1.0
LISTEN_BACKLOG = 128
MAX_LENGTH_DIGITS = 20
"""Of an announced length; more of them are no number that anything could have."""
MAX_PROBLEMS = 5
"""Of one request, told in its answer."""
MAX_SHOWN_CHARACTERS = 120
"""Of a wrong value, told in the answer."""
OPERATIONS = ("/metrics", "/healthz", "/readyz")
PARAMETER_PLACES = frozenset({"query", "path", "header", "body"})
"""Where FastAPI found a parameter; callers know it by its name alone."""


def build_app(
    snapshot: Callable[[], NodeSnapshot], *, routes: APIRouter | None = None, max_request_bytes: int = 1 << 20
) -> FastAPI:
    """The node's HTTP application.

    Args:
        snapshot: Tells the node's state; called in the event loop for each scrape and each question of health.
        routes: Further routes, mounted as they are; errors of `agent_core.errors` become JSON answers.
        max_request_bytes: Larger bodies are refused with 413.
    """
    app = FastAPI(
        title="Headwater",
        version=snapshot().version,
        description="Reads, health and metrics of one node.",
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(BoundedBody, max_bytes=max_request_bytes)
    app.add_middleware(Admission, operations=OPERATIONS, refuse=_refuse_reader, max_requests=MAX_READERS_REQUESTS)
    app.add_exception_handler(HeadwaterError, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(Exception, _answer_unexpected)
    app.include_router(_operations(snapshot))
    app.include_router(documentation_routes())
    if routes is not None:
        app.include_router(routes)
    return app


def _operations(snapshot: Callable[[], NodeSnapshot]) -> APIRouter:
    router = APIRouter(tags=["operations"])
    registry = build_registry(snapshot)

    # Each runs in the event loop, not in a thread: a snapshot reads what only the loop may touch.

    @router.get("/metrics", summary="Prometheus metrics", response_class=Response)
    async def metrics(accept: Annotated[str, Header()] = "") -> Response:
        encode, content_type = choose_encoder(accept)
        return Response(encode(registry), headers={"content-type": content_type})

    @router.get("/healthz", summary="Whether the node is alive", response_class=Response)
    async def health() -> Response:
        """503 when something has stopped, such as a group's writer, that a restart of the node may mend."""
        return _health_answer("ok", "failed", snapshot().failures())

    @router.get("/readyz", summary="Whether the node should get requests", response_class=Response)
    async def readiness() -> Response:
        """503 with reasons while the node starts, stops, or cannot do its part in some group."""
        node = snapshot()
        return _health_answer("ready", "not ready", [*node.failures(), *node.not_ready])

    return router


def _health_answer(good: str, bad: str, reasons: Sequence[str]) -> Response:
    status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
    return _json(status, {"status": bad if reasons else good, "reasons": list(reasons)})


def _json(status: int, content: Mapping[str, object]) -> Response:
    return Response(orjson.dumps(content), status_code=status, media_type="application/json")


def _error_answer(status: int, code: str, message: str, *, retry: bool = False) -> Response:
    return _json(status, {"error": {"code": code, "message": message, "retry": retry}})


async def _answer_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HeadwaterError)
    return _error_answer(error.http_status, error.code, str(error), retry=error.retry)


async def _refuse_reader(scope: Scope, receive: Receive, send: Send) -> None:
    message = f"{MAX_READERS_REQUESTS} requests are under way on this node; ask another one, or try again later"
    answer = _error_answer(Overloaded.http_status, Overloaded.code, message, retry=Overloaded.retry)
    await answer(scope, receive, send)


async def _answer_invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = [_problem(problem) for problem in error.errors()[:MAX_PROBLEMS]]
    return _error_answer(InvalidRequest.http_status, InvalidRequest.code, "; ".join(problems))


def _problem(problem: Mapping[str, Any]) -> str:
    """What is wrong with one parameter or field, by its name as the caller wrote it."""
    name = ".".join(str(part) for part in problem["loc"] if part not in PARAMETER_PLACES) or "the body"
    if problem["type"] == "missing":
        return f"{name} is missing"
    return f"{name} is {str(problem.get('input'))[:MAX_SHOWN_CHARACTERS]!r}: {problem['msg']}"


async def _answer_http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    answer = _error_answer(error.status_code, code, str(error.detail))
    answer.headers.update(error.headers or {})
    return answer


async def _answer_unexpected(_: Request, __: Exception) -> Response:
    # The server logs the traceback; the caller learns nothing of the inside.
    return _error_answer(500, HeadwaterError.code, "the node failed to answer; its log tells why")


class BoundedBody:
    """Refuses requests whose body is too large, by its announced length or as it arrives."""

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if not announced.isdigit() or len(announced) > MAX_LENGTH_DIGITS or int(announced) > self._max_bytes:
            message = f"the body has {announced.decode('latin-1')[:20]} bytes; allowed are 0 to {self._max_bytes}"
            await _error_answer(413, InvalidRequest.code, message)(scope, receive, send)
            return
        received_bytes = 0

        async def receive_bounded() -> Message:
            nonlocal received_bytes
            message = await receive()
            received_bytes += len(message.get("body", b""))
            if received_bytes > self._max_bytes:
                raise HTTPException(413, f"the body is too large; allowed are 0 to {self._max_bytes} bytes")
            return message

        await self._app(scope, receive_bounded, send)


class _EmbeddedServer(uvicorn.Server):
    """uvicorn without hands on the process's signals; it says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()
        self.ending = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    async def main_loop(self) -> None:
        """Renew the responses' date; uvicorn's own loop looks ten times a second whether it shall end."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds_to_tick(asyncio.get_running_loop().time(), DATE_SECONDS)):
                    await self.ending.wait()


class HttpServer:
    """An application that is being served; end it with `stop`."""

    def __init__(self, server: _EmbeddedServer, task: asyncio.Task[None]) -> None:
        self._server = server
        self._task = task

    @classmethod
    async def start(cls, app: FastAPI, address: str) -> Self:
        """Serve `app` in this event loop; returns once it listens.

        Args:
            app: What answers.
            address: `host:port`.

        Raises:
            OSError: The address cannot be listened on; the message names it.
        """
        listener = await _listen(address)
        config = uvicorn.Config(
            app,
            http=BoundedConnections,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=STOP_SECONDS,
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        )
        server = _EmbeddedServer(config)
        task = asyncio.create_task(server.serve(sockets=[listener]), name="http server")
        started = asyncio.create_task(server.listening.wait())
        await asyncio.wait([task, started], return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        if task.done():
            await task
        return cls(server, task)

    async def stop(self) -> None:
        """Take no more connections, let requests finish for a moment, and end."""
        self._server.should_exit = True
        self._server.ending.set()
        await self._task


async def _listen(address: str) -> socket.socket:
    host, port = HostPort.parse(address)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, _, _, _, socket_address = found[0]
        listener = socket.create_server(socket_address[:2], family=family, backlog=LISTEN_BACKLOG)
    except OSError as error:
        raise OSError(error.errno, f"cannot listen for HTTP on {address}: {error.strerror}") from error
    # Connections inherit it. Else a body that follows its head would wait 40 ms for the client's delayed ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
