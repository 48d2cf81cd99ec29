"""One workspace's index, kept equal to a folder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from agent_core.client.workspaces import Changed
from agent_core.position import Position
from agent_core.workspace.difference import Difference, difference
from agent_core.workspace.document import ChangeOutcome, DocumentChange
from agent_core.workspace.parsing import UnreadableDocument, read_document
from agent_core.workspace.stored import DocumentSummary
from agent_core.workspace.wire import change_to_wire
from ops.workspace.folder import Folder, FolderState

BATCH_DOCUMENTS = 16
BATCH_BYTES = 256 << 10
"""Small, since appends to sessions of the same group wait for a batch; larger ones are hardly cheaper."""
MAX_ROUNDS = 5
"""How often one pass looks again at a folder or an index that changes under it."""
LIST_PAGE_SIZE = 1000
HEARD_SECONDS = 30.0
"""A pass that finds nothing to do says so to the index, unless it was heard so lately: other sources are told when
this one was last heard, and it hears itself that the workspace was taken over."""

OnProgress = Callable[[int, int], None]
"""Told how many of how many differences are settled."""


class DocumentIndex(Protocol):
    """The index, as `agent_core.client.workspaces.Workspaces` has it."""

    def documents(
        self, workspace: str, *, page_size: int, min_position: Position | None
    ) -> AsyncIterator[DocumentSummary]:
        """All documents of a workspace."""

    async def change(self, workspace: str, changes: Sequence[DocumentChange]) -> Changed:
        """Make changes in one transaction; its position lies past everything that was acknowledged before."""


@dataclass(slots=True)
class SyncSummary:
    """What one pass came to.

    Attributes:
        documents: Documents in the index afterwards.
        added: Documents that came …
        changed: … whose content became another one …
        removed: … and that went; a renamed one is added and removed.
        problems: What is not indexed, or only in part, each as `path: reason`.
    """

    documents: int = 0
    added: int = 0
    changed: int = 0
    removed: int = 0
    problems: list[str] = field(default_factory=list)


class _Indexed(NamedTuple):
    content_hash: str
    problem: str


class WorkspaceSync:
    """Brings the index of one workspace up to a folder, pass by pass.

    What the index holds is read once and then known from what was changed; where another writer interferes it is
    read again.
    """

    def __init__(
        self,
        index: DocumentIndex,
        workspace: str,
        folder: Folder,
        on_progress: OnProgress = lambda _settled, _all: None,
    ) -> None:
        self._index = index
        self._workspace = workspace
        self._folder = folder
        self._on_progress = on_progress
        self._indexed: dict[str, _Indexed] = {}
        self._is_known = False
        self._heard_at = 0.0

    def forget(self) -> None:
        """Read the index again at the next pass: a call to it failed."""
        self._is_known = False

    async def run(self) -> SyncSummary:
        """Make the index equal to what the folder holds now.

        Raises:
            WorkspaceTaken: The workspace is not this folder's, or not any more.
            HeadwaterError: The index could not be read or changed; running it again is safe.
            OSError: The folder cannot be read.
        """
        summary = SyncSummary()
        unsettled: dict[str, str] = {}
        state = FolderState()
        for _ in range(MAX_ROUNDS):
            if not self._is_known:
                await self._read_index()
            state = await asyncio.to_thread(self._folder.scan)
            hashes = {path: one.content_hash for path, one in self._indexed.items()}
            unsettled = await self._settle(difference(hashes, state.hashes, state.is_unknown), summary)
            if not unsettled:
                break
        if asyncio.get_running_loop().time() - self._heard_at >= HEARD_SECONDS:
            await self._change_index(())
        summary.documents = len(self._indexed)
        problems = {path: one.problem for path, one in self._indexed.items() if one.problem}
        problems.update(unsettled)
        problems.update(state.problems)
        summary.problems = [f"{path}: {problem}" for path, problem in sorted(problems.items())]
        return summary

    async def _read_index(self) -> None:
        # A node that lags may not show documents that are there; they would stay for ever.
        now = await self._change_index(())
        found = self._index.documents(self._workspace, page_size=LIST_PAGE_SIZE, min_position=now.position)
        self._indexed = {one.path: _Indexed(one.content_hash, one.problem) async for one in found}
        self._is_known = True

    async def _change_index(self, changes: Sequence[DocumentChange]) -> Changed:
        changed = await self._index.change(self._workspace, changes)
        self._heard_at = asyncio.get_running_loop().time()
        return changed

    async def _settle(self, differences: list[Difference], summary: SyncSummary) -> dict[str, str]:
        """Change the index; what could not be settled, with the reason."""
        unsettled: dict[str, str] = {}
        changes: list[DocumentChange] = []
        size = 0
        for number, one in enumerate(differences):
            change = await asyncio.to_thread(self._change, one)
            if change is None:
                unsettled[one.path] = "changed while it was read, again and again"
                continue
            change_bytes = change_to_wire(change).ByteSize()
            if changes and (len(changes) == BATCH_DOCUMENTS or size + change_bytes > BATCH_BYTES):
                unsettled |= await self._send(changes, summary)
                self._on_progress(number, len(differences))
                changes, size = [], 0
            changes.append(change)
            size += change_bytes
        if changes:
            unsettled |= await self._send(changes, summary)
            self._on_progress(len(differences), len(differences))
        return unsettled

    def _change(self, one: Difference) -> DocumentChange | None:
        """The change that settles a difference; None when the folder has moved on since it was scanned."""
        if one.found is None:
            return DocumentChange(one.path, one.indexed or "", None)
        try:
            document = read_document(one.path, self._folder.read(one.path))
        except (OSError, UnreadableDocument):
            return None
        return DocumentChange(one.path, one.indexed or "", document)

    async def _send(self, changes: list[DocumentChange], summary: SyncSummary) -> dict[str, str]:
        """Make changes, and take note of what became of them; those that met something else, with the reason."""
        conflicts: dict[str, str] = {}
        changed = await self._change_index(changes)
        for change, outcome in zip(changes, changed.outcomes, strict=True):
            if outcome is ChangeOutcome.CONFLICT:
                conflicts[change.path] = "the index holds what another writer put there meanwhile"
                self._is_known = False
                continue
            if outcome is ChangeOutcome.APPLIED:
                summary.added += not change.replaces
                summary.changed += bool(change.replaces) and change.document is not None
                summary.removed += change.document is None
            if change.document is None:
                self._indexed.pop(change.path, None)
            else:
                self._indexed[change.path] = _Indexed(change.document.content_hash, change.document.problem)
        return conflicts
