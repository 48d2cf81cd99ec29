"""Asking nodes how they are: what `headwater status`, `top` and `demo` draw from."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import grpc.aio

from agent_core.rpc.administration_pb2 import StatusRequest, StatusResponse
from agent_core.rpc.administration_pb2_grpc import AdministrationStub

CALL_SECONDS = 2.0


async def status_of(channel: grpc.aio.Channel) -> StatusResponse:
    """The state of the node at the other end.

    Raises:
        grpc.aio.AioRpcError: It does not answer within `CALL_SECONDS`.
    """
    return await AdministrationStub(channel).Status(StatusRequest(), timeout=CALL_SECONDS)


async def ask(channels: Mapping[str, grpc.aio.Channel]) -> dict[str, StatusResponse | None]:
    """The state of every node, by the same names as the channels; None for one that does not answer in time."""

    async def one(channel: grpc.aio.Channel) -> StatusResponse | None:
        try:
            return await status_of(channel)
        except grpc.aio.AioRpcError:
            return None

    return dict(zip(channels, await asyncio.gather(*map(one, channels.values())), strict=True))
