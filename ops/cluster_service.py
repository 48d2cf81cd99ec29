"""What this node knows of the cluster over gRPC, the same as `cluster_routes` tells over HTTP."""

from __future__ import annotations

from typing import Any

from grpc.aio import ServicerContext

from agent_core.rpc import cluster_pb2 as pb
from agent_core.rpc.cluster_pb2_grpc import ClusterReadingServicer
from ops.cluster_view import ClusterView


class ClusterReadingService(ClusterReadingServicer):
    """Serves `headwater.v1.ClusterReading`; a message takes the fields by name and refuses one that it lacks."""

    def __init__(self, view: ClusterView) -> None:
        self._view = view

    async def GetCluster(  # noqa: N802 - the name in the proto
        self, request: pb.GetClusterRequest, context: ServicerContext[Any, Any]
    ) -> pb.GetClusterResponse:
        """Nodes, and this node's groups with their roles, positions and lag."""
        return pb.GetClusterResponse(**self._view.cluster().model_dump(exclude_none=True))

    async def GetLag(  # noqa: N802 - the name in the proto
        self, request: pb.GetLagRequest, context: ServicerContext[Any, Any]
    ) -> pb.GetLagResponse:
        """Every lag that this node measures."""
        return pb.GetLagResponse(**self._view.lag().model_dump(exclude_none=True))
