"""A node's part in the control plane: Raft member or not, it attends at the Raft leader and knows the map."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Self
from uuid import uuid4

import grpc.aio

from agent_core.control.cluster_map import Member
from agent_core.control.commands import Form
from agent_core.errors import Unavailable
from agent_core.rpc import control_pb2 as pb
from ops.control.attending import Attending
from ops.control.control_service import ControlService
from ops.control.raft import ReplicatedMap
from ops.control.supervising import Supervising
from ops.control.view import MapView
from ops.group_context import Peers
from ops.lasting_tasks import LastingTask, LastingTasks
from ops.settings import NodeConfiguration

if TYPE_CHECKING:
    from ops.membership import GroupMember

ASK_SECONDS = 0.5


class ControlPlane:
    """Composes attendance, supervision and the replicated map of one node.

    Attributes:
        service: For the node's gRPC server.
        attending: Reports this node's groups to the Raft leader.
        replicated: The map among the Raft members; None on other nodes.
    """

    def __init__(
        self,
        configuration: NodeConfiguration,
        view: MapView,
        peers: Peers,
        members: Mapping[int, GroupMember],
        *,
        tasks: LastingTasks,
        replicated: ReplicatedMap | None,
    ) -> None:
        self._configuration = configuration
        self._view = view
        self._peers = peers
        self._members = members
        self._tasks = tasks
        self._running: list[LastingTask] = []
        self._raft_members = [entry.id for entry in configuration.nodes if entry.raft is not None]
        self._heard_leader = ""
        self._own_name = configuration.node.id
        self.replicated = replicated
        supervising: Supervising | None = None
        if replicated is not None:
            supervising = Supervising(
                replicated,
                form_of(configuration),
                failure_timeout_seconds=configuration.election.failure_timeout_seconds,
                on_map=view.learn,
            )
        self._supervising = supervising
        self.service = ControlService(view, supervising, lambda: self.raft_leader)
        self.attending = Attending(
            pb.Attendance(cluster_id=configuration.cluster.id, node_id=configuration.node.id, instance=uuid4().hex),
            view,
            find_leader=self._find_leader,
            stub_of=peers.control,
            reports=lambda: [member.report() for member in members.values()],
            on_nomination=lambda asked: members[asked.group].nominate(asked.number),
            on_hand_over=lambda asked: members[asked.group].hand_over(asked.number, asked.to),
        )
        view.on_change(self._tell_members)

    @classmethod
    async def open(
        cls,
        configuration: NodeConfiguration,
        view: MapView,
        peers: Peers,
        members: Mapping[int, GroupMember],
        tasks: LastingTasks,
    ) -> Self:
        """Join the Raft members, if this node is one of them.

        Args:
            configuration: The node's.
            view: Told each new map.
            peers: Reaches the other nodes.
            members: This node's part in each group, by number.
            tasks: Where attendance and supervision run.

        Raises:
            HeadwaterError: As `ReplicatedMap.start`.
        """
        raft_members = {entry.id: entry.raft for entry in configuration.nodes if entry.raft is not None}
        replicated = None
        if configuration.node.id in raft_members:
            replicated = await ReplicatedMap.start(
                configuration.node.id,
                raft_members,
                configuration.node.data_directory / "raft",
                raft_password(configuration),
            )
        return cls(configuration, view, peers, members, tasks=tasks, replicated=replicated)

    async def start(self) -> None:
        """Supervise whenever this node is the Raft leader, and attend."""
        if self._supervising is not None:
            self._running.append(self._tasks.start("the supervision", self._supervising.run))
        self._running.append(self._tasks.start("the attendance at the Raft leader", self.attending.run))

    async def leave(self) -> None:
        """Attend and supervise no longer: a server that ends would wait for the streams of both."""
        for task in self._running:
            await task.stop()

    async def stop(self) -> None:
        """Leave the Raft members; `leave` comes before."""
        if self.replicated is not None:
            await self.replicated.stop()

    def _tell_members(self) -> None:
        for member in self._members.values():
            member.placement_changed()

    @property
    def raft_leader(self) -> str | None:
        """Who leads the Raft members, as far as this node knows."""
        return self.replicated.leader if self.replicated is not None else self._heard_leader or None

    @property
    def nominations(self) -> int:
        """Nominations that this node made as the Raft leader."""
        return self._supervising.nominations if self._supervising is not None else 0

    async def _find_leader(self) -> str | None:
        """Who leads the Raft members: known to a member, asked of one by other nodes.

        A member that knows of none asks too: where another process has its name, the others talk to that one.

        Raises:
            Unavailable: A member that leads nobody is named by another as the leader.
        """
        if self.replicated is not None and self.replicated.leader is not None:
            return self.replicated.leader
        others = [name for name in self._raft_members if name != self._own_name]
        if not others:
            return None
        asked = random.choice(others)  # noqa: S311 - any of them will do
        try:
            answer = await self._peers.control(asked).GetMap(pb.GetMapRequest(), timeout=ASK_SECONDS)
        except grpc.aio.AioRpcError:
            return None
        if answer.raft_leader == self._own_name:
            raise Unavailable(
                f"{asked} takes {self._own_name} for the leader of the Raft members, and this process is not: if "
                f"that stays so, two processes call themselves {self._own_name!r}; stop one of them"
            )
        self._heard_leader = answer.raft_leader
        return answer.raft_leader or None


def raft_password(configuration: NodeConfiguration) -> str:
    """The Raft members' shared secret. On loopback it may be left out: then it only keeps two clusters apart."""
    chosen = configuration.election.raft_password
    if chosen is not None:
        return chosen.get_secret_value()
    return hashlib.sha256(f"headwater loopback {configuration.cluster.id}".encode()).hexdigest()


def form_of(configuration: NodeConfiguration) -> Form:
    """The cluster as a node's configuration describes it."""
    return Form(
        cluster_id=configuration.cluster.id,
        shard_count=configuration.cluster.shard_count,
        members=tuple(
            Member(entry.id, entry.grpc, entry.http, voter=entry.voter, raft_address=entry.raft)
            for entry in configuration.nodes
        ),
        shard_group_count=configuration.cluster.shard_group_count,
    )
