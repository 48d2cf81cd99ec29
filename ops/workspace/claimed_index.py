"""The index as one source changes it: each change comes with its claim."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from agent_core.client.workspaces import Changed, Workspaces
from agent_core.position import Position
from agent_core.workspace.document import DocumentChange
from agent_core.workspace.source import Claim
from agent_core.workspace.stored import DocumentSummary


class ClaimedIndex:
    """The documents of one workspace, kept by one source.

    Args:
        workspaces: The cluster's.
        claim: The source's, as it begins. From its first change on, its epoch is known and named: if another source
            takes the workspace over, nothing that is still on its way from here is done.
    """

    def __init__(self, workspaces: Workspaces, claim: Claim) -> None:
        self._workspaces = workspaces
        self._claim = claim

    def documents(
        self, workspace: str, *, page_size: int, min_position: Position | None
    ) -> AsyncIterator[DocumentSummary]:
        """All documents."""
        return self._workspaces.documents(workspace, page_size=page_size, min_position=min_position)

    async def change(self, workspace: str, changes: Sequence[DocumentChange]) -> Changed:
        """Make changes in one transaction, as the source.

        Raises:
            WorkspaceTaken: Another source keeps the workspace, or has taken it over.
            HeadwaterError: As `Workspaces.change`.
        """
        changed = await self._workspaces.change(workspace, changes, self._claim)
        self._claim = self._claim._replace(epoch=changed.source_epoch, take_over=False)
        return changed
