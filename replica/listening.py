"""Hears the heartbeats that a primary shares among its streams, and answers them for all groups at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import grpc.aio
import structlog

from agent_core.backoff import Backoff
from agent_core.errors import Unavailable
from agent_core.rpc import replication_pb2 as pb
from agent_core.rpc_errors import end_if_cancelled, from_rpc_error

if TYPE_CHECKING:
    # The asynchronous stub exists for type checkers only.
    from agent_core.rpc.replication_pb2_grpc import ReplicationAsyncStub

log = structlog.get_logger(__name__)

Take = Callable[[int], bool]
"""Given the epoch of a heartbeat: whether a stream of that epoch stands here, and takes it."""


class Listening:
    """Listens to every node that this one follows in some group. Runs on the event loop."""

    def __init__(self, *, cluster_id: str, node_id: str, connect: Callable[[str], ReplicationAsyncStub]) -> None:
        """Listen as `node_id`; `connect` gives a stub for a node."""
        self._listen = pb.FromListener(listen=pb.Listen(cluster_id=cluster_id, node_id=node_id))
        self._connect = connect
        self._streams: dict[str, dict[int, Take]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @contextmanager
    def to(self, primary: str, group: int, take: Take) -> Iterator[None]:
        """While a group's stream from `primary` stands, let `take` have the heartbeats that speak for it."""
        if primary not in self._tasks:
            self._streams[primary] = {}
            self._tasks[primary] = asyncio.create_task(self._follow(primary), name=f"listen to {primary}")
        streams = self._streams[primary]
        streams[group] = take
        try:
            yield
        finally:
            if streams.get(group) is take:
                del streams[group]
            if not streams:
                self._tasks.pop(primary).cancel()

    async def _follow(self, primary: str) -> None:
        """Listen until cancelled; streams beat by themselves meanwhile when that fails."""
        streams, backoff, reason = self._streams[primary], Backoff(), ""
        while True:
            try:
                await self._hear(primary, streams, backoff)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
                end_if_cancelled()
                before, reason = reason, _reason(error)
                if reason != before:
                    log.info("not listening", primary=primary, reason=reason)
            except Exception:
                log.exception("listening failed", primary=primary)
            await asyncio.sleep(backoff.next_delay())

    async def _hear(self, primary: str, streams: dict[int, Take], backoff: Backoff) -> None:
        call = self._connect(primary).Heartbeats()
        try:
            await call.write(self._listen)
            while isinstance(heartbeat := await call.read(), pb.Heartbeat):
                backoff.reset()
                heard = [led for led in heartbeat.groups if led.group in streams and streams[led.group](led.epoch)]
                echo = pb.Echo(heard_us=heartbeat.sent_at_us, groups=heard)
                await call.write(pb.FromListener(echo=echo))
        finally:
            call.cancel()


def _reason(error: Exception) -> str:
    """Why a call ended, in a sentence."""
    if isinstance(error, grpc.aio.AioRpcError):
        return str(from_rpc_error(error, unanswered=Unavailable))
    return "the connection broke"
