"""This node's stream to the Raft leader: it reports its groups there, and hears the map and what it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import grpc.aio
import structlog

from agent_core.backoff import Backoff
from agent_core.control import cluster_map as maps
from agent_core.errors import HeadwaterError, Unavailable
from agent_core.rpc import control_pb2 as pb
from agent_core.rpc_errors import from_rpc_error
from agent_core.ticks import next_tick, seconds_to_tick
from ops.control.messages import reports_to_message
from ops.control.view import MapView
from primary.electing.exchange import GroupReport

if TYPE_CHECKING:
    # The asynchronous stub exists for type checkers only.
    from agent_core.rpc.control_pb2_grpc import ControlAsyncStub

log = structlog.get_logger(__name__)

REPORT_SECONDS = 0.2
"""How long a node is silent at most."""
LONGEST_DELAY_SECONDS = 0.2
LEADER_CHECK_SECONDS = 0.2
"""How often an attending node looks whether another leads by now: a leader that hangs ends no stream."""


class Attending:
    """Keeps the stream. Everything runs on the event loop.

    Attributes:
        leader: The Raft leader that is attended; empty while none is.
    """

    def __init__(
        self,
        attendance: pb.Attendance,
        view: MapView,
        *,
        find_leader: Callable[[], Awaitable[str | None]],
        stub_of: Callable[[str], ControlAsyncStub],
        reports: Callable[[], Sequence[GroupReport]],
        on_nomination: Callable[[pb.Nomination], None],
        on_hand_over: Callable[[pb.HandOver], None],
    ) -> None:
        """Attend as `attendance` says.

        Args:
            attendance: Who this node is.
            view: Told each map that comes.
            find_leader: The Raft leader's name, as far as anybody knows it.
            stub_of: The Control service of a node.
            reports: What this node has to tell at this moment.
            on_nomination: Called when this node shall become a group's primary.
            on_hand_over: Called when this node shall hand a group over.
        """
        self._attendance = attendance
        self._view = view
        self._find_leader = find_leader
        self._stub_of = stub_of
        self._reports = reports
        self._on_nomination = on_nomination
        self._on_hand_over = on_hand_over
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self.leader = ""

    def news(self) -> None:
        """Something that the supervisor waits for has changed: report at once."""
        self._news.set()

    async def run(self) -> None:
        """Attend until cancelled; whatever fails is tried again."""
        backoff = Backoff(first_seconds=0.02, longest_seconds=LONGEST_DELAY_SECONDS)
        reason = ""
        while True:
            try:
                leader = await self._find_leader()
                if leader is None:
                    raise Unavailable("the Raft members have no leader")
                await self._attend(leader, backoff)
            except (HeadwaterError, OSError, asyncio.InvalidStateError, grpc.aio.AioRpcError) as error:
                if isinstance(error, grpc.aio.AioRpcError):
                    error = from_rpc_error(error, unanswered=Unavailable)
                if str(error) != reason:
                    reason = str(error)
                    log.info("not attending", reason=reason)
            finally:
                self.leader = ""
            await asyncio.sleep(backoff.next_delay())

    async def _attend(self, leader: str, backoff: Backoff) -> None:
        hearing = asyncio.create_task(self._hear(leader, backoff), name=f"attend {leader}")
        deposed = asyncio.create_task(self._deposed(leader), name=f"watch {leader}")
        try:
            await asyncio.wait((hearing, deposed), return_when=asyncio.FIRST_COMPLETED)
            for ended in (hearing, deposed):
                if ended.done():
                    ended.result()
        finally:
            for task in (hearing, deposed):
                task.cancel()
            await asyncio.gather(hearing, deposed, return_exceptions=True)

    async def _deposed(self, leader: str) -> None:
        """Wait until another leads.

        Raises:
            Unavailable: That is so.
        """
        found: str | None = leader
        while found is None or found == leader:
            await next_tick(LEADER_CHECK_SECONDS)
            found = await self._find_leader()
        raise Unavailable(f"{leader} no longer leads the Raft members, {found} does")

    async def _hear(self, leader: str, backoff: Backoff) -> None:
        call = self._stub_of(leader).Attend()
        reporting: asyncio.Task[None] | None = None
        try:
            await call.write(pb.FromNode(attendance=self._attendance))
            while isinstance(message := await call.read(), pb.ToNode):
                if reporting is None:
                    self.leader = leader
                    backoff.reset()
                    reporting = asyncio.create_task(self._report(call), name="reports")
                self._take(message)
            raise Unavailable(f"{leader} ended the attendance")
        finally:
            call.cancel()
            if reporting is not None:
                reporting.cancel()
                await asyncio.gather(reporting, return_exceptions=True)

    async def _report(self, call: grpc.aio.StreamStreamCall[pb.FromNode, pb.ToNode]) -> None:
        while True:
            self._news.clear()
            await call.write(reports_to_message(self._reports()))
            try:
                async with asyncio.timeout(seconds_to_tick(self._loop.time(), REPORT_SECONDS)):
                    await self._news.wait()
            except TimeoutError:
                continue

    def _take(self, message: pb.ToNode) -> None:
        match message.WhichOneof("message"):
            case "cluster_map":
                self._view.learn(maps.from_json(message.cluster_map.decode()))
            case "ask":
                self.news()
            case "nomination":
                self._on_nomination(message.nomination)
            case "hand_over":
                self._on_hand_over(message.hand_over)
