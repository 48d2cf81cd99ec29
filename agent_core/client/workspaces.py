"""Documents of workspaces: changing them through any node, and reading them on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import NamedTuple

from agent_core.client.calls import call_unary
from agent_core.client.endpoints import Endpoints
from agent_core.client.model import position_from_wire
from agent_core.client.reads import position_to_wire
from agent_core.errors import InvalidRequest, OutcomeUnknown
from agent_core.position import Position
from agent_core.rpc import workspace_pb2 as pb
from agent_core.rpc.workspace_pb2_grpc import WorkspaceReadingStub, WorkspaceWritingStub
from agent_core.workspace.document import ChangeOutcome, DocumentChange, Property
from agent_core.workspace.source import Claim
from agent_core.workspace.stored import DocumentSummary, StoredDocument
from agent_core.workspace.wire import (
    change_to_wire,
    claim_to_wire,
    outcome_from_wire,
    stored_from_wire,
    summary_from_wire,
)

DEFAULT_TIMEOUT_SECONDS = 10.0


class Changed(NamedTuple):
    """Changes of documents that were acknowledged.

    Attributes:
        outcomes: What became of each.
        position: Where they stand in the history.
        source_epoch: For the source's next claim; 0: the workspace has no source.
    """

    outcomes: list[ChangeOutcome]
    position: Position
    source_epoch: int = 0


class Workspaces:
    """The documents of a cluster's workspaces.

    Args:
        addresses: One node or several, each `host:port`. Any node takes changes; reads show what it has applied.
        timeout_seconds: How long a call may take, all of its attempts together.
        discover: Learn the cluster's other nodes from the one that was reached, beside the work, and turn to them
            when those that were given do not serve; False: use none but these.

    Raises:
        ValueError: An address is not `host:port`.
    """

    def __init__(
        self,
        addresses: str | Sequence[str],
        *,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        discover: bool = True,
    ) -> None:
        self._endpoints = Endpoints(addresses, discover=discover)
        self._timeout_seconds = timeout_seconds

    async def __aenter__(self) -> Workspaces:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._endpoints.close()

    async def change(
        self, workspace: str, changes: Sequence[DocumentChange], claim: Claim | None = None
    ) -> Changed:
        """Make changes, at most 256 and together at most 8 MiB, in one transaction; repeating it adds nothing.

        Without changes it tells a position that lies past everything acknowledged before. With a claim its source
        keeps the workspace from then on; without one, changes are made only while no source does.

        Raises:
            WorkspaceTaken: Another source keeps the workspace, or has taken it over.
            InvalidRequest: A field is wrong.
            OutcomeUnknown: It was sent and not acknowledged in time; repeating it is safe.
            Unavailable: No node took it in time.
        """
        response = await call_unary(
            self._endpoints,
            WorkspaceWritingStub,
            "ChangeDocuments",
            pb.ChangeDocumentsRequest(
                workspace=workspace,
                changes=map(change_to_wire, changes),
                claim=None if claim is None else claim_to_wire(claim),
            ),
            pb.ChangeDocumentsResponse,
            timeout_seconds=self._timeout_seconds,
            unanswered=OutcomeUnknown,
        )
        return Changed(
            [outcome_from_wire(number) for number in response.outcomes],
            position_from_wire(response.position.position),
            response.source_epoch,
        )

    async def documents(
        self,
        workspace: str,
        *,
        kind: str = "",
        properties: Sequence[Property] = (),
        path_prefix: str = "",
        links_to: str = "",
        linked_from: str = "",
        text: str = "",
        page_size: int = 0,
        min_position: Position | None = None,
    ) -> AsyncIterator[DocumentSummary]:
        """The documents that fit all of it, by path, or with the best first when `text` is given, page by page.

        Args:
            workspace: The workspace.
            kind: Only of this kind.
            properties: Only with all of these.
            path_prefix: Only with paths that begin so.
            links_to: Only those that link to this document.
            linked_from: Only those that this document links to.
            text: Only with these words; `"a phrase"`, `begin*`.
            page_size: Documents per page, 1 to 1000; 0: the server's default.
            min_position: Wait until the node has applied this position of the workspaces' group.

        Raises:
            InvalidRequest: A filter is wrong.
            PositionNotReached: The node did not reach `min_position` in time.
            PositionLost: It never will: another primary's history has replaced that one.
            Unavailable: No node answered in time.
        """
        try:
            request = pb.ListDocumentsRequest(
                workspace=workspace,
                kind=kind,
                properties=[pb.DocumentProperty(name=one.name, value=one.value) for one in properties],
                path_prefix=path_prefix,
                links_to=links_to,
                linked_from=linked_from,
                text=text,
                page_size=page_size,
                min_position=None if min_position is None else position_to_wire(min_position),
            )
        except ValueError as error:
            raise InvalidRequest(f"a filter cannot be sent: {error}") from error
        while True:
            page = await call_unary(
                self._endpoints,
                WorkspaceReadingStub,
                "ListDocuments",
                request,
                pb.ListDocumentsResponse,
                timeout_seconds=self._timeout_seconds,
            )
            for summary in page.documents:
                yield summary_from_wire(summary)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def document(self, workspace: str, path: str, *, min_position: Position | None = None) -> StoredDocument:
        """One document, all of it.

        Args:
            workspace: The workspace.
            path: The document's.
            min_position: Wait until the node has applied this position of the workspaces' group.

        Raises:
            DocumentNotFound: The workspace has none at this path.
            PositionNotReached: The node did not reach `min_position` in time.
            PositionLost: It never will: another primary's history has replaced that one.
            Unavailable: No node answered in time.
        """
        try:
            request = pb.GetDocumentRequest(
                workspace=workspace,
                path=path,
                min_position=None if min_position is None else position_to_wire(min_position),
            )
        except ValueError as error:
            raise InvalidRequest(f"the path cannot be sent: {error}") from error
        response = await call_unary(
            self._endpoints,
            WorkspaceReadingStub,
            "GetDocument",
            request,
            pb.GetDocumentResponse,
            timeout_seconds=self._timeout_seconds,
        )
        return stored_from_wire(response.document)
