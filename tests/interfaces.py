"""A node's interfaces in this process, with no cluster behind them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc.aio
import httpx
from fastapi import FastAPI


@asynccontextmanager
async def serving_grpc(add_services: Callable[[grpc.aio.Server], None]) -> AsyncIterator[str]:
    """The address of a server on loopback, after `add_services` has given it what it serves."""
    server = grpc.aio.server()
    add_services(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


@asynccontextmanager
async def served_over_grpc(add_services: Callable[[grpc.aio.Server], None]) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to such a server."""
    async with serving_grpc(add_services) as address, grpc.aio.insecure_channel(address) as channel:
        yield channel


def asked_over_http(app: FastAPI) -> httpx.AsyncClient:
    """A client of the application itself, without a connection between."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://node")
