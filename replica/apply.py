"""Brings committed transactions into one shard file of a standby, many at once, and checkpoints it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from agent_core.database.build import APPLIED_SCHEMA, DatabaseError
from agent_core.database.checkpoints import checkpoint
from agent_core.errors import ShardDamaged, Unavailable
from agent_core.log.record import Record
from agent_core.position import START
from replica.merging import merged_pages, newer_than
from replica.shard_file import ShardFile


class ShardApplier(ShardFile):
    """A shard file that follows its primary's, transaction by transaction.

    Attributes:
        transactions_applied: Records applied since this was opened.
        commits: Local transactions that they were merged into.
    """

    def __init__(self, path: Path, *, cluster_id: str, shard: int) -> None:
        super().__init__(path, cluster_id=cluster_id, shard=shard)
        self.transactions_applied = 0
        self.commits = 0

    def apply(self, records: Sequence[Record]) -> int:
        """Apply committed records as one transaction; those that the file contains already are skipped.

        Args:
            records: Transactions of this shard, in the order of their lsns.

        Returns:
            How many records were new.

        Raises:
            ShardDamaged: A record cannot be what a primary wrote, or the file is damaged; nothing was written.
            WriteFailed: SQLite refused the transaction; nothing was written.
            Unavailable: The shard is being resynced, or what a resync brought is not installed yet.
        """
        connection = self._idle_connection()
        if self.staged is not None:
            raise Unavailable(f"shard {self.shard} waits until {self.staged.position} is committed")
        if self.damage is not None:
            raise ShardDamaged(self.damage)
        newer = newer_than(self.applied or START, records, self.shard)
        if not newer:
            return 0
        last = newer[-1]
        pieces = merged_pages(newer, shard=self.shard, page_count=self.page_count)
        try:
            self._begin(connection)
            for piece in pieces:
                self._write(connection, piece)
            self._truncate_and_commit(connection, last.page_count, last.position)
        except BaseException as error:
            self._roll_back(connection)
            if isinstance(error, DatabaseError):
                raise self._write_failure(error) from error
            raise
        self.commits += 1
        self.transactions_applied += len(newer)
        return len(newer)

    def checkpoint(self) -> bool:
        """Move the WAL's content into the main file, as far as no reader needs it; whether that was all.

        Raises:
            DatabaseError: SQLite could not write the main file; nothing is lost.
            Unavailable: The shard is being resynced.
        """
        return checkpoint(self._idle_connection(), self.backlog, APPLIED_SCHEMA)
