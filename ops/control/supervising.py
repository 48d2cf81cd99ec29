"""Runs the supervisor on the Raft leader: nodes attend here, and what it decides is carried out."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field

import structlog

from agent_core.control import cluster_map as maps
from agent_core.control.cluster_map import ClusterMap
from agent_core.control.commands import Command, Form, SetDraining
from agent_core.errors import HeadwaterError, InvalidRequest, NotPrimary, Unavailable, WrongCluster
from agent_core.rpc import control_pb2 as pb
from agent_core.ticks import next_tick
from ops.control.messages import reports_from_message
from ops.control.ports import refuses
from ops.control.raft import ReplicatedMap
from primary.electing.exchange import Action, AskForReport, AskToHandOver, Nominate, Probe, Record
from primary.electing.supervisor import POLL_SECONDS, Supervisor

log = structlog.get_logger(__name__)

MAX_UNSENT = 256
"""Messages that wait for a node which does not read; past that its attendance ends."""
SWITCHOVER_SECONDS = 10.0
AGAIN_SECONDS = 0.2
"""How often it is looked whether a switch-over that has not come about can be asked for again."""


@dataclass(slots=True, eq=False)
class _Attendee:
    """A node's open stream: who it is, and what waits to be sent."""

    node: str
    instance: str
    unsent: asyncio.Queue[pb.ToNode | None] = field(default_factory=lambda: asyncio.Queue(MAX_UNSENT))

    def send(self, message: pb.ToNode) -> None:
        if self.unsent.full():
            self.end()
        else:
            self.unsent.put_nowait(message)

    def end(self) -> None:
        while self.unsent.full():
            self.unsent.get_nowait()
        self.unsent.put_nowait(None)


class Supervising:
    """This node's share of supervision: nothing while another is the Raft leader.

    Attributes:
        nominations: Made by this node, in all its terms as Raft leader.
        supervisor: The decisions; None while this node is not the Raft leader.
    """

    def __init__(
        self,
        replicated: ReplicatedMap,
        form: Form,
        *,
        failure_timeout_seconds: float,
        on_map: Callable[[ClusterMap], None],
    ) -> None:
        """Supervise whenever this node is the Raft leader.

        Args:
            replicated: The map that the Raft members agree on.
            form: The cluster as this node's configuration describes it.
            failure_timeout_seconds: See `Supervisor`.
            on_map: Told the map whenever it changes here.
        """
        self._replicated = replicated
        self._form = form
        self._failure_timeout_seconds = failure_timeout_seconds
        self._on_map = on_map
        self._loop = asyncio.get_running_loop()
        self._attendees: dict[str, _Attendee] = {}
        self._proposals: set[asyncio.Task[None]] = set()
        self._map_changed = asyncio.Event()
        self._supervises = asyncio.Event()
        self._restless = asyncio.Event()
        self.supervisor: Supervisor | None = None
        self.nominations = 0
        self.trouble: str | None = None
        replicated.on_change(self._learn)
        replicated.on_leader_change(self._leader_changed)

    async def run(self) -> None:
        """Supervise until cancelled."""
        self._learn()
        self._leader_changed()
        while True:
            await self._supervises.wait()
            await self._rest()
            await next_tick(POLL_SECONDS)
            self._act()

    async def _rest(self) -> None:
        """Wait while nothing can have to be done, unless something is told."""
        self._restless.clear()
        if self.supervisor is not None and (until := self.supervisor.calm_until()) > self._loop.time():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await self._restless.wait()

    async def attend(
        self, attendance: pb.Attendance, requests: AsyncIterator[pb.FromNode]
    ) -> AsyncGenerator[pb.ToNode, None]:
        """Serve one node's attendance until it ends.

        Raises:
            NotPrimary: This node is not, or no longer, the Raft leader.
            Unavailable: It has no map yet.
            WrongCluster: The node belongs to another cluster.
            InvalidRequest: The map has no such node, or another process attends under its name.
        """
        attendee = self._admit(attendance)
        supervisor = self.supervisor
        assert supervisor is not None, "admitted by a leader"
        supervisor.attend(attendee.node, self._loop.time())
        attendee.send(self._map_message())
        listening = asyncio.create_task(self._listen(attendee, requests), name=f"attendance of {attendee.node}")
        try:
            while (message := await attendee.unsent.get()) is not None:
                yield message
        finally:
            listening.cancel()
            if self._attendees.get(attendee.node) is attendee:
                del self._attendees[attendee.node]
                if supervisor is self.supervisor:
                    supervisor.leave(attendee.node)
                    self._act()

    async def switch_over(self, group: int, to: str) -> ClusterMap:
        """Let `to` lead a group; the map once it does.

        What stands in the way only for a moment, and a hand-over after which another node leads, is tried again.

        Raises:
            InvalidRequest: It cannot be done; the message says why.
            Unavailable: It did not come about in time, for the reason that the message gives.
            NotPrimary: This node is not, or no longer, the Raft leader.
        """
        deadline, reason = self._loop.time() + SWITCHOVER_SECONDS, ""
        asked = 0
        while True:
            supervisor, now = self._leading(), self._loop.time()
            placements = self._replicated.map.placements
            if group < len(placements) and placements[group].primary == to:
                return self._replicated.map
            if now >= deadline:
                raise Unavailable(
                    f"group {group} was not handed over to {to} within {SWITCHOVER_SECONDS:g} s: "
                    f"{reason or f'{placements[group].primary} leads it still'}"
                )
            if asked and supervisor.heir(group) == to:
                await self._changed_within(deadline - now)
                continue
            refusal = supervisor.hand_over(group, to, now)
            if refusal is None:
                asked += 1
                reason = f"{placements[group].primary} was asked {asked} times" if asked > 1 else ""
                self._act()
            elif refusal.passing:
                reason = refusal.reason
                await self._changed_within(AGAIN_SECONDS)
            else:
                raise InvalidRequest(refusal.reason)

    async def _changed_within(self, seconds: float) -> None:
        """Wait for another map, or until a wish may have come to nothing."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, AGAIN_SECONDS)):
                await self._map_changed.wait()

    async def set_draining(self, node_id: str, *, draining: bool) -> ClusterMap:
        """Let a node lead nothing that another can lead, or let it lead again.

        Raises:
            HeadwaterError: As `ReplicatedMap.propose`.
        """
        self._leading()
        cluster_map = await self._replicated.propose(SetDraining(node_id, draining))
        self._act()
        return cluster_map

    def _leading(self) -> Supervisor:
        if self.supervisor is None:
            raise NotPrimary(f"this node is not the Raft leader; {self._replicated.leader or 'nobody'} is")
        return self.supervisor

    def _admit(self, attendance: pb.Attendance) -> _Attendee:
        self._leading()
        cluster_map = self._replicated.map
        if not cluster_map.version:
            raise Unavailable(self.trouble or "the cluster is being formed")
        if attendance.cluster_id != cluster_map.cluster_id:
            raise WrongCluster(
                f"cluster_id is {attendance.cluster_id!r}; this node is of cluster {cluster_map.cluster_id!r}"
            )
        node = attendance.node_id
        if node not in {member.node_id for member in cluster_map.members}:
            raise InvalidRequest(f"node_id is {node!r}; the cluster has no such node")
        present = self._attendees.get(node)
        if present is not None and present.instance != attendance.instance:
            raise InvalidRequest(
                f"two processes call themselves {node!r}; stop one of them, or give it its own node.id and data"
            )
        if present is not None:
            present.end()
        attendee = self._attendees[node] = _Attendee(node, attendance.instance)
        return attendee

    async def _listen(self, attendee: _Attendee, requests: AsyncIterator[pb.FromNode]) -> None:
        try:
            async for message in requests:
                if self.supervisor is not None and self._attendees.get(attendee.node) is attendee:
                    reports = reports_from_message(message.reports)
                    self.supervisor.report(attendee.node, reports, self._loop.time())
                    self._act()
        finally:
            attendee.end()

    def _leader_changed(self) -> None:
        if not self._replicated.is_leader:
            self.supervisor = None
            self._supervises.clear()
            self._restless.set()
            for attendee in self._attendees.values():
                attendee.end()
            return
        if self.supervisor is None:
            now = self._loop.time()
            self.supervisor = Supervisor(
                failure_timeout_seconds=self._failure_timeout_seconds, first_number=time.time_ns() // 1000
            )
            self.supervisor.learn(self._replicated.map, now)
            self._supervises.set()
            log.info("supervises the cluster", version=self._replicated.map.version)
            self._propose(self._form)

    def _learn(self) -> None:
        cluster_map = self._replicated.map
        self._on_map(cluster_map)
        if self.supervisor is not None:
            self.supervisor.learn(cluster_map, self._loop.time())
            for attendee in self._attendees.values():
                attendee.send(self._map_message())
        self._map_changed.set()
        self._map_changed = asyncio.Event()

    def _act(self) -> None:
        if self.supervisor is None:
            return
        for action in self.supervisor.tick(self._loop.time()):
            self._carry_out(action)
        if not self.supervisor.calm():
            self._restless.set()

    def _carry_out(self, action: Action) -> None:
        match action:
            case AskForReport(node):
                self._send(node, pb.ToNode(ask=pb.AskForReport()))
            case Nominate(node, group, number):
                self.nominations += 1
                log.info("nominates", group=group, node=node)
                self._send(node, pb.ToNode(nomination=pb.Nomination(group=group, number=number)))
            case AskToHandOver(node, group, to, number):
                log.info("asks to hand over", group=group, node=node, to=to)
                self._send(node, pb.ToNode(hand_over=pb.HandOver(group=group, to=to, number=number)))
            case Record(command):
                log.info("records a primary", group=command.group, node=command.primary, epoch=command.epoch)
                self._propose(command)
            case Probe(node):
                self._start(self._probe(node))

    def _send(self, node: str, message: pb.ToNode) -> None:
        attendee = self._attendees.get(node)
        if attendee is not None:
            attendee.send(message)

    def _propose(self, command: Command) -> None:
        self._start(self._put_through(command))

    async def _put_through(self, command: Command) -> None:
        try:
            await self._replicated.propose(command)
        except HeadwaterError as error:
            self.trouble = str(error)
            log.warning("proposal failed", command=repr(command), reason=str(error))
        else:
            self.trouble = None
            self._act()

    async def _probe(self, node: str) -> None:
        supervisor = self.supervisor
        refused = await refuses(self._replicated.map.member(node).grpc_address)
        if supervisor is not None and supervisor is self.supervisor:
            supervisor.probed(node, refused=refused)
            self._act()

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._proposals.add(task)
        task.add_done_callback(self._proposals.discard)

    def _map_message(self) -> pb.ToNode:
        return pb.ToNode(cluster_map=maps.to_json(self._replicated.map).encode())
