"""What an operator asks the control plane for, over gRPC: any node is asked, and the Raft leader carries it out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

import grpc.aio

from agent_core.client.calls import call_unary
from agent_core.client.endpoints import Endpoints
from agent_core.control import cluster_map as maps
from agent_core.control.cluster_map import ClusterMap
from agent_core.errors import HeadwaterError, InvalidRequest, NotPrimary, OutcomeUnknown, Unavailable
from agent_core.rpc import control_pb2 as pb
from agent_core.rpc.control_pb2_grpc import ControlStub
from agent_core.rpc_errors import from_rpc_error
from agent_core.transport import client_options
from ops.control.ports import refuses

if TYPE_CHECKING:
    # The asynchronous stub exists for type checkers only.
    from agent_core.rpc.control_pb2_grpc import ControlAsyncStub

LEADER_SECONDS = 5.0
"""How long the Raft members may be without a leader before an operator hears of it."""
MAP_SECONDS = 5.0
"""How long it may take until a node tells its map: one that hangs is given up before, and the next one asked."""
CARRY_OUT_SECONDS = 15.0
"""How long the Raft leaders may take, one after the other; each gives a switch-over up earlier itself."""
POLL_SECONDS = 0.05


Ask = Callable[["ControlAsyncStub", float], Awaitable[pb.GetMapResponse]]
"""Asks the Raft leader for something, and waits at most so many seconds for its answer."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a node knows of the cluster.

    Attributes:
        map: The map.
        raft_leader: The Raft leader's name; empty while there is none.
    """

    map: ClusterMap
    raft_leader: str


class Operator:
    """Asks the first of several nodes that answers, or one that these told of, and through it the Raft leader.

    Args:
        addresses: One node or several, each `host:port`.

    Raises:
        ValueError: An address is not `host:port`.
    """

    def __init__(self, addresses: str | Sequence[str]) -> None:
        self._endpoints = Endpoints(addresses, discover=True)

    async def __aenter__(self) -> Operator:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._endpoints.close()

    async def ask(self) -> Told:
        """The map as a node knows it.

        Raises:
            Unavailable: No node answers, or the cluster is not formed yet.
        """
        answer = await call_unary(
            self._endpoints,
            ControlStub,
            "GetMap",
            pb.GetMapRequest(),
            pb.GetMapResponse,
            timeout_seconds=MAP_SECONDS,
        )
        cluster_map = maps.from_json(answer.cluster_map.decode())
        if not cluster_map.version:
            raise Unavailable("the cluster is being formed: a majority of the Raft members must have met once")
        return Told(cluster_map, answer.raft_leader)

    async def switch_over(self, group: int, to: str) -> ClusterMap:
        """Let `to` lead a group; the map once it does.

        Raises:
            InvalidRequest: It cannot be done; the message says why.
            Unavailable: It did not come about in time, or nobody could be asked.
            OutcomeUnknown: No Raft leader answered in time; it may have been carried out.
        """
        request = pb.SwitchoverRequest(group=group, to=to)
        return await self._carry_out(lambda leader, seconds: leader.Switchover(request, timeout=seconds))

    async def set_draining(self, node_id: str, *, draining: bool) -> ClusterMap:
        """Let a node lead nothing that another can lead, or let it lead again.

        Raises:
            InvalidRequest: There is no such node, or no other voter that may lead.
            Unavailable: Nobody could be asked.
            OutcomeUnknown: No Raft leader answered in time; it may have been carried out.
        """
        if draining:
            problem = why_not_drainable((await self.ask()).map, node_id)
            if problem is not None:
                raise InvalidRequest(problem)
        request = pb.SetDrainingRequest(node_id=node_id, draining=draining)
        return await self._carry_out(lambda leader, seconds: leader.SetDraining(request, timeout=seconds))

    async def drained(self, node_id: str, version: int) -> AsyncIterator[tuple[int, ...]]:
        """The groups that a node still leads, each time that changes; ends once there are none.

        Args:
            node_id: The node.
            version: No older map counts.

        A node that cannot be asked for a while is asked again: who waits sets the deadline.
        """
        shown: tuple[int, ...] | None = None
        while shown != ():
            try:
                cluster_map = (await self.ask()).map
            except Unavailable:
                await asyncio.sleep(POLL_SECONDS)
                continue
            left = cluster_map.led_by(node_id)
            if cluster_map.version >= version and left != shown:
                shown = left
                yield left
            await asyncio.sleep(POLL_SECONDS)

    async def _carry_out(self, ask: Ask) -> ClusterMap:
        """Ask the Raft leader; the next one when it was deposed, or lost, meanwhile.

        What is asked for is a state, so it does no harm to ask for what was carried out already.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + CARRY_OUT_SECONDS
        leaderless_until = clock() + LEADER_SECONDS
        while True:
            told = await self.ask()
            # A member goes on naming a leader that died until there is another.
            if told.raft_leader and not await refuses(told.map.member(told.raft_leader).grpc_address):
                refusal = await self._ask_leader(told, ask, max(0.0, deadline - clock()))
                if isinstance(refusal, ClusterMap):
                    return refusal
                # A leader that still leads has given its answer.
                lost = isinstance(refusal, NotPrimary | OutcomeUnknown)
                deposed = isinstance(refusal, Unavailable) and (await self.ask()).raft_leader != told.raft_leader
                if not (lost or deposed) or clock() >= deadline:
                    raise refusal
                leaderless_until = clock() + LEADER_SECONDS
            elif clock() >= leaderless_until:
                names = ", ".join(member.node_id for member in told.map.members if member.raft_address is not None)
                raise Unavailable(
                    f"the Raft members {names} have no leader, so nobody can carry this out: start the missing "
                    "ones until a majority runs"
                )
            await asyncio.sleep(POLL_SECONDS)

    async def _ask_leader(self, told: Told, ask: Ask, seconds: float) -> ClusterMap | HeadwaterError:
        address = told.map.member(told.raft_leader).grpc_address
        async with grpc.aio.insecure_channel(address, options=client_options()) as channel:
            try:
                return maps.from_json((await ask(ControlStub(channel), seconds)).cluster_map.decode())
            except grpc.aio.AioRpcError as error:
                return from_rpc_error(error, unanswered=OutcomeUnknown)


def why_not_drainable(cluster_map: ClusterMap, node_id: str) -> str | None:
    """Why draining a node would move nothing; None when another voter may lead. Pure."""
    members = [member.node_id for member in cluster_map.members]
    if node_id not in members:
        return f"node is {node_id!r}; this cluster has the nodes {', '.join(members)}"
    others = [
        member
        for member in cluster_map.members
        if member.voter and member.node_id != node_id and not member.draining
    ]
    if cluster_map.member(node_id).voter and not others:
        return f"{node_id} is the only voter that is not draining, so nobody could take its groups; undrain another"
    return None
