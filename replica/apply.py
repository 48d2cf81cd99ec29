"""Brings committed transactions into one shard file of a standby, many at once, and checkpoints it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path

from agent_core.database.build import APPLIED_SCHEMA, DatabaseError
from agent_core.errors import ShardDamaged, Unavailable
from agent_core.log.record import Record
from agent_core.position import START
from replica.merging import merged_pages, newer_than
from replica.shard_file import ShardFile

BLOCKED_CHECKPOINT_WAIT = 4
"""A blocked checkpoint is tried again after another 1/4 of the size that made it due was written."""

_CHECKPOINT = f"PRAGMA {APPLIED_SCHEMA}.wal_checkpoint(TRUNCATE)"


class CheckpointOutcome(Enum):
    """What came of a call that may checkpoint."""

    NOT_DUE = "not due"
    """The WAL is not past the size, or a reader blocked the last attempt and little was written since."""
    COMPLETED = "completed"
    """Everything applied is in the main file, on disk; the WAL is empty."""
    BLOCKED = "blocked"
    """A reader still needs the WAL; what could be moved was moved."""


class ShardApplier(ShardFile):
    """A shard file that follows its primary's, transaction by transaction.

    Attributes:
        transactions_applied: Records applied since this was opened.
        commits: Local transactions that they were merged into.
        checkpoints_completed: Since this was opened.
        checkpoints_blocked: Attempts that a reader blocked.
    """

    def __init__(self, path: Path, *, cluster_id: str, shard: int) -> None:
        super().__init__(path, cluster_id=cluster_id, shard=shard)
        self.transactions_applied = 0
        self.commits = 0
        self.checkpoints_completed = 0
        self.checkpoints_blocked = 0
        self._checkpoint_again_at = 0
        self._wal_seen: tuple[int, int] | None = None

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
            connection.execute("BEGIN IMMEDIATE")
            for piece in pieces:
                self._write(connection, piece)
            self._truncate_and_commit(connection, last.page_count)
        except BaseException as error:
            self._roll_back(connection)
            if isinstance(error, DatabaseError):
                raise self._write_failure(error) from error
            raise
        self.applied = last.position
        self.commits += 1
        self.transactions_applied += len(newer)
        return len(newer)

    def checkpoint(self, past_bytes: int = 0) -> CheckpointOutcome:
        """Move the WAL's content into the main file once the WAL is larger than `past_bytes`. Never waits.

        Raises:
            WriteFailed: SQLite could not write the main file; nothing is lost.
            Unavailable: The shard is being resynced.
        """
        connection = self._idle_connection()
        if not self._is_past(past_bytes) or (past_bytes and self._bytes_written < self._checkpoint_again_at):
            return CheckpointOutcome.NOT_DUE
        try:
            ((wait_ms,),) = connection.execute("PRAGMA busy_timeout").fetchall()
            connection.execute("PRAGMA busy_timeout=0")
            try:
                ((blocked, _, _),) = connection.execute(_CHECKPOINT).fetchall()
            finally:
                connection.execute(f"PRAGMA busy_timeout={wait_ms}")
        except DatabaseError as error:
            raise self._write_failure(error) from error
        if blocked:
            self.checkpoints_blocked += 1
            self._checkpoint_again_at = self._bytes_written + past_bytes // BLOCKED_CHECKPOINT_WAIT
            return CheckpointOutcome.BLOCKED
        self.checkpoints_completed += 1
        self._checkpoint_again_at = 0
        self.checkpointed_lsn = (self.applied or START).lsn
        return CheckpointOutcome.COMPLETED

    def _is_past(self, past_bytes: int) -> bool:
        """Whether the WAL is larger. It grows by what is written here: its file is looked at once it can be."""
        if self._wal_seen is not None:
            seen_bytes, written_then = self._wal_seen
            if seen_bytes + self._bytes_written - written_then <= past_bytes:
                return False
        wal_bytes = self.wal_bytes
        self._wal_seen = wal_bytes, self._bytes_written
        return wal_bytes > past_bytes

    def _connect(self) -> None:
        self._wal_seen = None
        super()._connect()
        if not self.readable:
            return
        if self.wal_bytes:
            self.checkpoint()
        else:
            self.checkpointed_lsn = (self.applied or START).lsn
