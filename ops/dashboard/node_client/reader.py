"""Asks the nodes over HTTP, and moves on to another one when one does not answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

import httpx
import orjson
from pydantic import BaseModel, ValidationError

from ops.cluster_view import ClusterResponse
from ops.dashboard.node_client.choice import MAX_NODES, KnownNode, NodeChoice
from ops.dashboard.node_client.failures import UNREADABLE, DashboardBusy, NodeRefused, NoNodeAnswers
from ops.dashboard.node_client.server_sent_events import EventStream, EventTooLarge
from ops.dashboard.paths import session_path
from replica.reading.http_freshness import AGE_HEADER
from replica.reading.http_models import ErrorResponse, FollowedEntryModel

CONNECT_SECONDS = 1.0
READ_SECONDS = 10.0
WATCH_SECONDS = 2.0
FOLLOW_SECONDS = 15.0
"""A node says on a followed session that nothing came more often than this."""
TURN_SECONDS = 10.0
"""A read waits so long for one of the dashboard's connections."""
AGAIN_SECONDS = 0.1
"""Before a stream that broke goes on: nodes that end each stream at once are not asked without a pause."""
MAX_ANSWER_BYTES = 384 << 20
MAX_CONNECTIONS = 32
"""For reads, to all nodes together; more wait."""
MAX_FOLLOWED = 100
"""Sessions that are followed live at once, all viewers together."""

Content = TypeVar("Content", bound=BaseModel)


class _CannotServe(Exception):
    """This node does not serve the request now; another may. `gone`: it does not answer at all."""

    def __init__(self, reason: str, *, gone: bool = True) -> None:
        super().__init__(reason)
        self.gone = gone


@dataclass(frozen=True, slots=True)
class Answer(Generic[Content]):
    """What a node answered.

    Attributes:
        content: The answer.
        node: The node's name.
        age_seconds: For how long the primary may have held more than the answer tells.
        read_at: When it was read, in seconds since 1970.
    """

    content: Content
    node: str
    age_seconds: float
    read_at: float


@dataclass(frozen=True, slots=True)
class FollowedEntry:
    """A further entry of a followed session, and the node that told it."""

    entry: FollowedEntryModel
    node: str


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """Everything that the node has was told; `age_seconds` as in `Answer`."""

    node: str
    age_seconds: float


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The node that was followed stopped answering; the stream goes on from another one."""

    node: str
    reason: str


Followed = FollowedEntry | CaughtUp | Interrupted


class NodeReader:
    """Reads for everyone who looks at the dashboard.

    Attributes:
        choice: Which node is asked next, and what is known of each.
    """

    def __init__(self, choice: NodeChoice, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """Asks nothing yet; `transport` takes the place of the network in tests."""
        self.choice = choice
        self._http = httpx.AsyncClient(
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS),
            trust_env=False,
            transport=transport,
        )
        # Each node is watched by one connection: whatever viewers do, nobody waits for it, and no node looks dead.
        self._watch = httpx.AsyncClient(
            limits=httpx.Limits(max_connections=MAX_NODES),
            trust_env=False,
            transport=transport,
        )
        # Streams stay open; in a pool of their own they take no connection from reads.
        self._streams = httpx.AsyncClient(
            timeout=httpx.Timeout(FOLLOW_SECONDS, connect=CONNECT_SECONDS, pool=CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=MAX_FOLLOWED),
            trust_env=False,
            transport=transport,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()
        await self._watch.aclose()
        await self._streams.aclose()

    async def get(
        self, path: str, content: type[Content], parameters: Mapping[str, str | int] | None = None
    ) -> Answer[Content]:
        """Read a path, such as `/v1/sessions`, from the best node that answers.

        Raises:
            NoNodeAnswers: None did.
            NodeRefused: The request is wrong, or names what is not there.
            DashboardBusy: Too many other reads wait for their answers.
        """
        return await self._read("GET", path, content, parameters=parameters)

    async def post(
        self, path: str, content: type[Content], body: Mapping[str, Any], *, timeout_seconds: float = READ_SECONDS
    ) -> Answer[Content]:
        """As `get`, with a JSON body, for as long as `timeout_seconds`; cancelling it ends the request at the node.

        Raises:
            NoNodeAnswers: None did.
            NodeRefused: The request is wrong.
            DashboardBusy: Too many other reads wait for their answers.
        """
        return await self._read("POST", path, content, body=orjson.dumps(body), timeout_seconds=timeout_seconds)

    async def cluster_view(self, node: KnownNode) -> ClusterResponse | None:
        """How one node sees the cluster, learnt from at once; None when it does not answer."""
        try:
            answer = await self._ask(
                self._watch, node, "GET", "/v1/cluster", ClusterResponse, timeout_seconds=WATCH_SECONDS
            )
        except DashboardBusy:
            return None
        except (_CannotServe, NodeRefused) as error:
            self.choice.failed(node.address, str(error), time.monotonic())
            return None
        self.choice.answered(node.address, age_seconds=node.age_seconds, reading=False)
        self.choice.learn(node.address, answer.content)
        return answer.content

    async def follow(self, session_id: str, *, after_seq: int, after_position: str = "") -> AsyncIterator[Followed]:
        """The entries of a session past `after_seq` as they come, from one node after the other.

        `after_position` is where the entry `after_seq` was read.

        Raises:
            NoNodeAnswers: None could be followed.
            NodeRefused: There is no such session, or a fail-over has undone something of what was read.
            DashboardBusy: As many sessions as may be are followed already.
        """
        reasons: dict[str, str] = {}
        while True:
            node = next((node for node in self.choice.order() if node.name not in reasons), None)
            if node is None:
                raise NoNodeAnswers(reasons)
            try:
                async for followed in self._follow_at(node, session_id, after_seq, after_position):
                    reasons.clear()
                    if isinstance(followed, FollowedEntry):
                        after_seq, after_position = followed.entry.seq, followed.entry.position.position
                    yield followed
                reason = "it ended the stream"
            except _CannotServe as error:
                self._failed(node, error)
                reason = str(error)
            reasons[node.name] = reason
            yield Interrupted(node.name, reason)
            await asyncio.sleep(AGAIN_SECONDS)

    def _failed(self, node: KnownNode, error: _CannotServe) -> None:
        # A node that is busy or still starts has answered: it stays a choice for what comes next.
        if error.gone:
            self.choice.failed(node.address, str(error), time.monotonic())

    async def _follow_at(
        self, node: KnownNode, session_id: str, after_seq: int, after_position: str
    ) -> AsyncIterator[Followed]:
        url = f"http://{node.address}{session_path(session_id)}/events"
        events = EventStream()
        try:
            parameters: dict[str, str | int] = {"after_seq": after_seq, "after_position": after_position}
            async with self._streams.stream("GET", url, params=parameters) as response:
                if response.status_code != httpx.codes.OK:
                    raise _refusal(response.status_code, await response.aread())
                async for piece in response.aiter_bytes():
                    for event in events.feed(piece):
                        match event.name:
                            case "entry":
                                told = FollowedEntryModel.model_validate(_decoded(event.data))
                                yield FollowedEntry(told, node.name)
                            case "caught_up":
                                age = float(orjson.loads(event.data)["position"]["age_seconds"])
                                self.choice.answered(node.address, age_seconds=age)
                                yield CaughtUp(node.name, age)
                            case "error":
                                raise _CannotServe(str(orjson.loads(event.data)["message"]), gone=False)
        except httpx.PoolTimeout as error:
            raise DashboardBusy(
                f"It follows {MAX_FOLLOWED} sessions live already; this one goes on when a viewer leaves another."
            ) from error
        except httpx.HTTPError as error:
            raise _CannotServe(_reason(error)) from error
        except (EventTooLarge, ValidationError, orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise _CannotServe(f"its stream cannot be read: {type(error).__name__}") from error

    async def _read(
        self,
        method: str,
        path: str,
        content: type[Content],
        *,
        parameters: Mapping[str, str | int] | None = None,
        body: bytes | None = None,
        timeout_seconds: float = READ_SECONDS,
    ) -> Answer[Content]:
        reasons: dict[str, str] = {}
        for node in self.choice.order():
            try:
                answer = await self._ask(
                    self._http,
                    node,
                    method,
                    path,
                    content,
                    parameters=parameters,
                    body=body,
                    timeout_seconds=timeout_seconds,
                )
            except _CannotServe as error:
                reasons[node.name] = str(error)
                self._failed(node, error)
            except NodeRefused as error:
                self.choice.answered(node.address, age_seconds=node.age_seconds)
                error.node, error.age_seconds = node.name, node.age_seconds
                raise
            else:
                self.choice.answered(node.address, age_seconds=answer.age_seconds)
                return answer
        raise NoNodeAnswers(reasons)

    async def _ask(
        self,
        http: httpx.AsyncClient,
        node: KnownNode,
        method: str,
        path: str,
        content: type[Content],
        *,
        parameters: Mapping[str, str | int] | None = None,
        body: bytes | None = None,
        timeout_seconds: float,
    ) -> Answer[Content]:
        timeout = httpx.Timeout(timeout_seconds, connect=CONNECT_SECONDS, pool=TURN_SECONDS)
        headers = {} if body is None else {"content-type": "application/json"}
        try:
            async with http.stream(
                method,
                f"http://{node.address}{path}",
                params=dict(parameters or {}),
                content=body,
                headers=headers,
                timeout=timeout,
            ) as response:
                text = await _bounded(response)
        except httpx.PoolTimeout as error:
            raise DashboardBusy(
                f"It reads {MAX_CONNECTIONS} answers at once already, none of which came in time. Try again later."
            ) from error
        except httpx.HTTPError as error:
            raise _CannotServe(_reason(error)) from error
        if response.status_code != httpx.codes.OK:
            raise _refusal(response.status_code, text)
        try:
            value = content.model_validate(_decoded(text))
            age = float(response.headers.get(AGE_HEADER, "0"))
        except (ValidationError, ValueError) as error:
            raise _CannotServe(f"its answer to {path} is not one of a Headwater node") from error
        return Answer(value, node.name, age, time.time())


def _decoded(text: bytes) -> object:
    # Only what pydantic reads by itself is nested less deeply than entries may be.
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if text[:1] != b"{":
            raise
        raise NodeRefused(200, UNREADABLE, f"What the node answered cannot be taken apart: {error.msg}") from error


async def _bounded(response: httpx.Response) -> bytes:
    text = bytearray()
    async for piece in response.aiter_bytes():
        text += piece
        if len(text) > MAX_ANSWER_BYTES:
            raise _CannotServe(f"its answer is larger than {MAX_ANSWER_BYTES} bytes")
    return bytes(text)


def _refusal(status: int, text: bytes) -> NodeRefused | _CannotServe:
    code, message, retry = "unknown", f"HTTP status {status}", status >= httpx.codes.INTERNAL_SERVER_ERROR
    with suppress(ValidationError):
        error = ErrorResponse.model_validate_json(text).error
        code, message, retry = error.code, error.message, retry or error.retry
    return _CannotServe(message, gone=False) if retry else NodeRefused(status, code, message)


def _reason(error: httpx.HTTPError) -> str:
    match error:
        case httpx.ConnectError():
            return "it refuses connections"
        case httpx.ConnectTimeout():
            return "it cannot be reached"
        case httpx.TimeoutException():
            return "it did not answer in time"
        case _:
            return "the connection broke"
