"""The Control service: attendance at the Raft leader, the map, and what operators ask for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

from grpc.aio import ServicerContext

from agent_core.control import cluster_map as maps
from agent_core.errors import HeadwaterError, InvalidRequest, Unavailable
from agent_core.rpc import control_pb2 as pb
from agent_core.rpc.control_pb2_grpc import ControlServicer
from agent_core.rpc_errors import abort
from ops.control.supervising import Supervising
from ops.control.view import MapView


class ControlService(ControlServicer):
    """Answers on every node; what only the Raft leader can do, others refuse and name it."""

    def __init__(
        self, view: MapView, supervising: Supervising | None, raft_leader: Callable[[], str | None]
    ) -> None:
        """Serve.

        Args:
            view: The map as this node knows it.
            supervising: None on a node that is no Raft member.
            raft_leader: Who leads the Raft members, as far as this node knows.
        """
        self._view = view
        self._supervising = supervising
        self._raft_leader = raft_leader

    async def Attend(  # noqa: N802 - the name in the proto
        self, request_iterator: AsyncIterator[pb.FromNode], context: ServicerContext[pb.FromNode, pb.ToNode]
    ) -> AsyncIterator[pb.ToNode]:
        """One node's attendance."""
        try:
            first = await anext(request_iterator, None)
            if first is None or not first.HasField("attendance"):
                raise InvalidRequest("an attendance begins with who attends")
            async with aclosing(self._supervisor().attend(first.attendance, request_iterator)) as messages:
                async for message in messages:
                    yield message
            raise Unavailable("the attendance ended: another node leads the Raft members, or a newer one came")
        except HeadwaterError as error:
            await abort(context, error)

    async def GetMap(  # noqa: N802 - the name in the proto
        self, request: pb.GetMapRequest, context: ServicerContext[pb.GetMapRequest, pb.GetMapResponse]
    ) -> pb.GetMapResponse:
        """The map as this node knows it."""
        return self._response()

    async def Switchover(  # noqa: N802 - the name in the proto
        self, request: pb.SwitchoverRequest, context: ServicerContext[pb.SwitchoverRequest, pb.GetMapResponse]
    ) -> pb.GetMapResponse:
        """Another node takes a group over."""
        try:
            await self._supervisor().switch_over(request.group, request.to)
        except HeadwaterError as error:
            await abort(context, error)
        return self._response()

    async def SetDraining(  # noqa: N802 - the name in the proto
        self, request: pb.SetDrainingRequest, context: ServicerContext[pb.SetDrainingRequest, pb.GetMapResponse]
    ) -> pb.GetMapResponse:
        """A node is drained, or no longer."""
        try:
            await self._supervisor().set_draining(request.node_id, draining=request.draining)
        except HeadwaterError as error:
            await abort(context, error)
        return self._response()

    def _supervisor(self) -> Supervising:
        if self._supervising is None:
            raise Unavailable(f"this node is no Raft member; {self._raft_leader() or 'nobody'} leads them")
        return self._supervising

    def _response(self) -> pb.GetMapResponse:
        return pb.GetMapResponse(
            cluster_map=maps.to_json(self._view.map).encode(), raft_leader=self._raft_leader() or ""
        )
