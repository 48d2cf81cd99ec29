"""Work for somebody who may hang up: it ends when they do, instead of going on for nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from fastapi import Request
from fastapi.responses import Response

CLIENT_CLOSED_REQUEST = 499
"""As nginx calls it; nobody is left to read it."""


async def while_connected(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """The answer that `work` makes; `work` is cancelled once the client of `request`, whose body was read, is gone.

    uvicorn tells an application of a broken connection, and lets its handler run on.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait([working, leaving], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return await working
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    finally:
        leaving.cancel()
        working.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
