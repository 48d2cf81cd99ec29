"""The mutation that changes documents."""

from __future__ import annotations

from collections.abc import Sequence

from agent_core.quorum import Acknowledgement
from agent_core.workspace.document import ChangeOutcome, DocumentChange
from primary.mutation import Mutation, OutcomeSink


class DocumentChanges(Mutation):
    """Changes of documents of one workspace, all in one transaction.

    Attributes:
        workspace: The workspace.
        changes: In order.
        outcomes: What became of each; empty until the transaction that holds them is written.
    """

    __slots__ = ("changes", "outcomes", "workspace")

    def __init__(
        self,
        size_bytes: int,
        acknowledgement: Acknowledgement,
        sink: OutcomeSink,
        *,
        shard: int,
        group: int,
        workspace: str,
        changes: Sequence[DocumentChange],
    ) -> None:
        super().__init__(size_bytes, acknowledgement, sink, 0, shard=shard, group=group)
        self.workspace = workspace
        self.changes = changes
        self.outcomes: list[ChangeOutcome] = []
