"""Asks the nodes again and again, each on its own, so that one that hangs delays none, and notes what it hears."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import grpc.aio

from agent_core.rpc.read_pb2_grpc import ReadingStub
from agent_core.rpc.session_pb2 import ListSessionsRequest
from ops.node_status import status_of
from ops.top.history import ClusterHistory

SESSIONS_SECONDS = 2.0
RETRY_SECONDS = 0.2
SESSIONS_READ = 200
"""Of the most recently updated ones; a busy session is among them."""
CALL_SECONDS = 2.0


async def poll(channels: Mapping[str, grpc.aio.Channel], history: ClusterHistory, *, interval: float) -> None:
    """Ask every node each `interval` seconds, and one of them for its sessions; ends by being cancelled."""
    async with asyncio.TaskGroup() as tasks:
        for address, channel in channels.items():
            tasks.create_task(_poll_node(address, channel, history, interval))
        tasks.create_task(_poll_sessions(channels, history))


async def _poll_node(address: str, channel: grpc.aio.Channel, history: ClusterHistory, interval: float) -> None:
    while True:
        asked_at = time.monotonic()
        try:
            answer = await status_of(channel)
        except grpc.aio.AioRpcError as error:
            history.missed(address, error.details() or error.code().name, time.monotonic())
        else:
            history.heard(address, answer, time.monotonic())
        await asyncio.sleep(max(interval / 2, asked_at + interval - time.monotonic()))


async def _poll_sessions(channels: Mapping[str, grpc.aio.Channel], history: ClusterHistory) -> None:
    while True:
        address = history.reading_address(time.monotonic())
        if address is None or not await _read_sessions(channels[address], history):
            # The last page stays, with its age; the next question may go to another node.
            await asyncio.sleep(RETRY_SECONDS)
        else:
            await asyncio.sleep(SESSIONS_SECONDS)


async def _read_sessions(channel: grpc.aio.Channel, history: ClusterHistory) -> bool:
    request = ListSessionsRequest(page_size=SESSIONS_READ)
    try:
        page = await ReadingStub(channel).ListSessions(request, timeout=CALL_SECONDS)
    except grpc.aio.AioRpcError:
        return False
    history.read_sessions(page.sessions, time.monotonic())
    return True
