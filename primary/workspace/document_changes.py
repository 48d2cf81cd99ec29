"""The mutation that changes documents."""

from __future__ import annotations

from collections.abc import Sequence

from agent_core.database.build import Connection
from agent_core.workspace.document import ChangeOutcome, DocumentChange
from agent_core.workspace.source import Claim, Keeper
from primary.mutation import Mutation, Waiter
from primary.workspace.document_tables import change_documents
from primary.workspace.source_table import hold


class DocumentChanges(Mutation):
    """Changes of documents of one workspace, all in one transaction.

    Attributes:
        workspace: The workspace.
        changes: In order.
        claim: Of the source that they come from; None: of none.
        outcomes: What became of each; empty until the transaction that holds them is written, and if the claim was
            not admitted.
        is_admitted: Whether the claim allowed them; known with the outcomes.
        keeper: The source that keeps the workspace since; known with the outcomes.
    """

    __slots__ = ("changes", "claim", "is_admitted", "keeper", "outcomes", "workspace")

    def __init__(
        self,
        size_bytes: int,
        waiter: Waiter,
        *,
        shard: int,
        group: int,
        workspace: str,
        changes: Sequence[DocumentChange],
        claim: Claim | None = None,
    ) -> None:
        super().__init__(size_bytes, waiter, shard=shard, group=group)
        self.workspace = workspace
        self.changes = changes
        self.claim = claim
        self.outcomes: list[ChangeOutcome] = []
        self.is_admitted = False
        self.keeper: Keeper | None = None

    def make(self, connection: Connection, now_ms: int) -> None:
        """Make the changes within the caller's transaction, if the workspace's source is who asks for them."""
        self.is_admitted, self.keeper = hold(connection, self.workspace, self.claim, now_ms)
        if self.is_admitted:
            self.outcomes = change_documents(connection, self.workspace, self.changes, now_ms)
