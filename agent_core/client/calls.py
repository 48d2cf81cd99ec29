"""Single calls to whichever node serves them, repeated until a deadline. Only for calls that may be repeated."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar, cast

import grpc.aio
from google.protobuf.message import Message

from agent_core.client.attempts import DIRECT, Failures, new_backoff
from agent_core.client.endpoints import Endpoints
from agent_core.errors import HeadwaterError, NotPrimary, OutcomeUnknown, Unavailable
from agent_core.rpc_errors import from_rpc_error

FIRST_ATTEMPT_SECONDS = 1.5
"""A node may hang: so long it is waited for at first, then twice as long each time."""

Response = TypeVar("Response", bound=Message)


async def call_unary(
    endpoints: Endpoints,
    stub: Callable[[grpc.aio.Channel], Any],
    method: str,
    request: Message,
    response_type: type[Response],
    *,
    timeout_seconds: float,
    unanswered: type[HeadwaterError] = Unavailable,
) -> Response:
    """Call a unary method of a service.

    Args:
        endpoints: Where to call; turns to another node when the present one does not serve.
        stub: The service.
        method: The method's name.
        request: Its request.
        response_type: What it answers with.
        timeout_seconds: For all attempts together.
        unanswered: What a request that was sent and not answered becomes.

    Raises:
        HeadwaterError: The node's own error, or when the time ran out the last one, with the reason of each node
            that was tried.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_seconds
    backoff = new_backoff()
    attempt_seconds = FIRST_ATTEMPT_SECONDS
    # An attempt that was lost on the way stays lost: a later refusal does not show that nothing was written.
    lost: HeadwaterError | None = None
    failures = Failures()
    while True:
        address = endpoints.current
        error: HeadwaterError
        try:
            channel = await endpoints.connected(deadline - loop.time())
            invoke: Any = getattr(stub(channel), method)
            timeout = max(min(deadline - loop.time(), attempt_seconds), 0.001)
            return cast("Response", await invoke(request, timeout=timeout, metadata=DIRECT))
        except grpc.aio.AioRpcError as failure:
            error = from_rpc_error(failure, unanswered=unanswered)
        except Unavailable as refused:
            error = refused
        if isinstance(error, OutcomeUnknown):
            lost = error
        if not error.retry:
            raise error
        failures.note(address, error)
        pause = backoff.next_delay()
        if loop.time() + pause >= deadline:
            raise failures.told(lost or error)
        attempt_seconds *= 2
        if isinstance(error, NotPrimary):
            endpoints.redirected(address, error)
        elif isinstance(error, (Unavailable, OutcomeUnknown)):
            endpoints.failed(address)
        await asyncio.sleep(pause)
