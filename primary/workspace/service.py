"""Changes of documents over gRPC, at the primary of the workspace shard's group."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from grpc.aio import ServicerContext

from agent_core.errors import HeadwaterError, WorkspaceTaken
from agent_core.position import Position
from agent_core.quorum import Acknowledgement
from agent_core.routing import ShardLayout
from agent_core.rpc.workspace_pb2 import ChangeDocumentsRequest, ChangeDocumentsResponse
from agent_core.rpc.workspace_pb2_grpc import WorkspaceWritingServicer
from agent_core.rpc_errors import abort
from agent_core.workspace.wire import CHANGE_OUTCOMES
from primary.append_answers import group_position
from primary.checks import acknowledgement
from primary.mutation import Waiter
from primary.registry import SessionRegistry
from primary.workspace.checks import checked_changes, checked_claim
from primary.workspace.document_changes import DocumentChanges


class WorkspaceService(WorkspaceWritingServicer):
    """Writes the documents of all workspaces, where this node leads their group."""

    def __init__(self, registry: SessionRegistry, layout: ShardLayout, default: Acknowledgement) -> None:
        """Write through the group's writer.

        Args:
            registry: Knows the writers of the groups that this node leads.
            layout: The cluster's shards and groups.
            default: The cluster's mode of acknowledgement.
        """
        self._registry = registry
        self._shard = layout.workspace_shard
        self._group = layout.group_of(layout.workspace_shard)
        self._default = default

    async def ChangeDocuments(  # noqa: N802 - the name in the proto
        self,
        request: ChangeDocumentsRequest,
        context: ServicerContext[ChangeDocumentsRequest, ChangeDocumentsResponse],
    ) -> ChangeDocumentsResponse:
        """Make changes, in one transaction, and wait until it is safe."""
        try:
            return await self._change(request)
        except HeadwaterError as error:
            await abort(context, error)

    async def _change(self, request: ChangeDocumentsRequest) -> ChangeDocumentsResponse:
        changes = checked_changes(request)
        claim = checked_claim(request)
        mode = acknowledgement(request.acknowledgement) or self._default
        writer = self._registry.group_writer(self._group)
        if writer.full:
            await writer.room()
        waiting = _Waiting(asyncio.get_running_loop().create_future())
        mutation = DocumentChanges(
            request.ByteSize(),
            Waiter(mode, waiting, request_id=0),
            shard=self._shard,
            group=self._group,
            workspace=request.workspace,
            changes=changes,
            claim=claim,
        )
        writer.submit(mutation)
        position = await waiting.outcome
        if not mutation.is_admitted:
            raise _taken(mutation)
        return ChangeDocumentsResponse(
            outcomes=[CHANGE_OUTCOMES[outcome] for outcome in mutation.outcomes],
            position=group_position(self._group, position),
            source_epoch=0 if mutation.keeper is None else mutation.keeper.epoch,
        )


def _taken(mutation: DocumentChanges) -> WorkspaceTaken:
    keeper, claim = mutation.keeper, mutation.claim
    assert keeper is not None, "what nobody keeps is refused to nobody"
    heard = datetime.fromtimestamp(keeper.heard_at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    happened = "was taken over by" if claim is not None and claim.epoch else "is kept by"
    return WorkspaceTaken(f"workspace {mutation.workspace!r} {happened} {keeper.label!r}, last heard {heard}")


class _Waiting:
    """The call that waits for its changes."""

    def __init__(self, outcome: asyncio.Future[Position]) -> None:
        self.outcome = outcome

    def appended(self, request_id: int, group: int, seq: int, position: Position, *, duplicate: bool) -> None:
        """They are safe."""
        if not self.outcome.done():
            self.outcome.set_result(position)

    def failed(self, request_id: int, error: HeadwaterError) -> None:
        """They were not acknowledged."""
        if not self.outcome.done():
            self.outcome.set_exception(error)
