"""Errors across gRPC: the project's own code travels in trailing metadata, beside status and details.

The status alone cannot tell the errors apart (three of them are `FAILED_PRECONDITION`), and it is also what
gRPC itself reports when a connection breaks. So a call that fails without our code was answered by the
transport, not by a node: what became of it is not known.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, NoReturn
from urllib.parse import unquote

import grpc
import grpc.aio

from agent_core.errors import HeadwaterError, OutcomeUnknown, from_code

ERROR_CODE_KEY = "headwater-error"
"""The trailing metadata key that holds `HeadwaterError.code`."""

MAX_MESSAGE_CHARACTERS = 1500
"""Trailers have a bound of 8 KiB by default; a longer message would replace the error by a protocol error."""

_UNANSWERED = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
    }
)

_REFUSED = re.compile(r"ipv[46]:(\S+): .*Connection refused")
"""gRPC's words for a port at which nobody listens; it percent-encodes the brackets of an IPv6 address."""


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: HeadwaterError) -> NoReturn:
    """End a call with an error of the project: its status, its message, and its code in trailing metadata.

    Raises:
        grpc.aio.AbortError: Always; it must leave the servicer's method.
    """
    message = str(error) or error.code
    if len(message) > MAX_MESSAGE_CHARACTERS:
        message = message[: MAX_MESSAGE_CHARACTERS - 1] + "…"
    await context.abort(error.status, message, ((ERROR_CODE_KEY, error.code),))


def end_if_cancelled() -> None:
    """Keep a request to end that gRPC has lost; a loop that calls anew after an error asks this first.

    A task that is cancelled while its stream waits for the first answer hands that on to a task of gRPC's, which
    ends the stream. If the stream ends by itself at this moment its end is all that is told.

    Raises:
        asyncio.CancelledError: The running task was told to end, and did not yet.
    """
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return  # No loop runs here, so no task was told anything.
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def from_rpc_error(
    error: grpc.aio.AioRpcError, *, unanswered: type[HeadwaterError] = OutcomeUnknown
) -> HeadwaterError:
    """The error that a node ended a call with.

    Args:
        error: What awaiting the call raised.
        unanswered: What an error of the transport becomes (connection lost, deadline passed, server died). The
            default is the only one that is true of a write; a read may say `Unavailable`.

    Raises:
        asyncio.CancelledError: As `end_if_cancelled`.
    """
    end_if_cancelled()
    message = error.details() or ""
    for key, value in error.trailing_metadata():
        if key == ERROR_CODE_KEY:
            return from_code(value if isinstance(value, str) else value.decode("ascii", "replace"), message)
    status = error.code()
    if status is grpc.StatusCode.UNAVAILABLE and (refused := _REFUSED.search(message)):
        return unanswered(f"{unquote(refused[1])} refuses connections")
    if status in _UNANSWERED:
        return unanswered(f"no answer ({status.name}): {message}")
    return HeadwaterError(f"{status.name}: {message}")
