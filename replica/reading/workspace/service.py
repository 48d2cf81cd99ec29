"""Documents over gRPC: messages in, the shared reads, messages out, errors as their codes."""

from __future__ import annotations

import grpc.aio

from agent_core.errors import HeadwaterError
from agent_core.position import Position
from agent_core.rpc import replication_pb2, session_pb2
from agent_core.rpc import workspace_pb2 as pb
from agent_core.rpc.workspace_pb2_grpc import WorkspaceReadingServicer
from agent_core.rpc_errors import abort
from agent_core.workspace.document import Property
from agent_core.workspace.wire import stored_to_wire, summary_to_wire
from replica.reading.freshness import Demand
from replica.reading.positions import GroupPosition
from replica.reading.workspace.queries import DEFAULT_PAGE_SIZE, DocumentFilter
from replica.reading.workspace.reading import DocumentReading


class WorkspaceReadingService(WorkspaceReadingServicer):
    """Serves `headwater.v1.WorkspaceReading`; numbers left at 0 take their defaults."""

    def __init__(self, reading: DocumentReading) -> None:
        self._reading = reading

    async def ListDocuments(  # noqa: N802 - gRPC names its methods
        self,
        request: pb.ListDocumentsRequest,
        context: grpc.aio.ServicerContext[pb.ListDocumentsRequest, pb.ListDocumentsResponse],
    ) -> pb.ListDocumentsResponse:
        """A page of documents, by path or by relevance."""
        try:
            page = await self._reading.documents(
                DocumentFilter(
                    request.workspace,
                    request.kind,
                    tuple(Property(one.name, one.value) for one in request.properties),
                    request.path_prefix,
                    request.links_to,
                    request.linked_from,
                    request.text,
                ),
                page_size=request.page_size or DEFAULT_PAGE_SIZE,
                page_token=request.page_token,
                demand=self._demand(request),
            )
        except HeadwaterError as error:
            await abort(context, error)
        return pb.ListDocumentsResponse(
            documents=map(summary_to_wire, page.documents),
            next_page_token=page.next_page_token,
            position=_position(page.position),
        )

    async def GetDocument(  # noqa: N802 - gRPC names its methods
        self,
        request: pb.GetDocumentRequest,
        context: grpc.aio.ServicerContext[pb.GetDocumentRequest, pb.GetDocumentResponse],
    ) -> pb.GetDocumentResponse:
        """One document."""
        try:
            answer = await self._reading.document(request.workspace, request.path, demand=self._demand(request))
        except HeadwaterError as error:
            await abort(context, error)
        return pb.GetDocumentResponse(document=stored_to_wire(answer.document), position=_position(answer.position))

    def _demand(self, request: pb.ListDocumentsRequest | pb.GetDocumentRequest) -> Demand:
        return Demand(
            {self._reading.group: Position(request.min_position.epoch, request.min_position.lsn)},
            request.max_staleness_ms / 1000 or None,
            request.wait_ms / 1000 or None,
        )


def _position(position: GroupPosition) -> session_pb2.GroupPosition:
    return session_pb2.GroupPosition(
        group=position.group,
        position=replication_pb2.Position(epoch=position.position.epoch, lsn=position.position.lsn),
        age_seconds=position.age_seconds,
    )
