"""`/v1/cluster` and `/v1/lag`: what this node knows of the cluster, as JSON for dashboards."""

from __future__ import annotations

from fastapi import APIRouter

from ops.cluster_view import ClusterResponse, ClusterView, LagResponse


def cluster_routes(view: ClusterView) -> APIRouter:
    """The routes; each answer is seen anew, in the event loop."""
    routes = APIRouter(prefix="/v1", tags=["cluster"])

    @routes.get("/cluster")
    async def get_cluster() -> ClusterResponse:
        """Nodes, and this node's groups with their roles, positions and lag."""
        return view.cluster()

    @routes.get("/lag")
    async def get_lag() -> LagResponse:
        """Every lag that this node measures."""
        return view.lag()

    return routes
