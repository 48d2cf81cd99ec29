"""Any node takes changes of documents: what another node leads is forwarded to it, once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from grpc.aio import ServicerContext

from agent_core.cluster import NodeAddress
from agent_core.errors import OutcomeUnknown
from agent_core.rpc.workspace_pb2 import ChangeDocumentsRequest, ChangeDocumentsResponse
from agent_core.rpc.workspace_pb2_grpc import WorkspaceWritingServicer
from agent_core.transport import ROUTE_FORWARDED, ROUTE_KEY
from primary.forwarding import forward
from primary.workspace.service import WorkspaceService

if TYPE_CHECKING:
    # The asynchronous stub exists for type checkers only.
    from agent_core.rpc.workspace_pb2_grpc import WorkspaceWritingAsyncStub


class ForwardingWorkspaces(WorkspaceWritingServicer):
    """Takes changes here where this node leads the workspace shard's group, and at its primary else."""

    def __init__(
        self,
        local: WorkspaceService,
        elsewhere: Callable[[], NodeAddress | None],
        stub_of: Callable[[NodeAddress], WorkspaceWritingAsyncStub],
    ) -> None:
        """Forward what `local` does not lead.

        Args:
            local: Takes them on this node.
            elsewhere: The other node that leads the group; None while this node does, or nobody.
            stub_of: Its service.
        """
        self._local = local
        self._elsewhere = elsewhere
        self._stub_of = stub_of

    async def ChangeDocuments(  # noqa: N802 - the name in the proto
        self,
        request: ChangeDocumentsRequest,
        context: ServicerContext[ChangeDocumentsRequest, ChangeDocumentsResponse],
    ) -> ChangeDocumentsResponse:
        """Make changes, in one transaction, and wait until it is safe."""
        was_forwarded = (ROUTE_KEY, ROUTE_FORWARDED) in tuple(context.invocation_metadata() or ())
        primary = None if was_forwarded else self._elsewhere()
        if primary is None:
            return await self._local.ChangeDocuments(request, context)
        method = self._stub_of(primary).ChangeDocuments
        return await forward(method, request, ChangeDocumentsResponse, context, unanswered=OutcomeUnknown)
