"""What a shard's WAL holds that its file does not, and moving it there beside whoever writes the shard.

A checkpoint here is SQLite's PASSIVE one (https://sqlite.org/c3ref/wal_checkpoint_v2.html): it waits for nobody,
and nobody waits for it. Once the file has everything, the next transaction begins the WAL anew from its start; a
WAL that a reader let grow is cut then (`build.WAL_KEPT_BYTES`).

SQLite 3.7.0 to 3.51.2, which the build in use belongs to, can lose pages if a checkpoint begins on a WAL of which
the file has everything, while a transaction of another connection begins that WAL anew
(https://sqlite.org/wal.html#walresetbug). So a checkpoint runs beside the writer only when a transaction has ended
that began after the checkpoint before it: then the file lacks something of the WAL, and nobody begins it anew
before this checkpoint has moved that. Whoever else may write a shard, or checkpoint it, has stopped.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from agent_core.database.build import Connection, open_for_checkpoints

BLOCKED_WAIT = 4
"""After a reader was in the way, the next try waits for another 1/4 of the size that makes a checkpoint due."""


class Written(NamedTuple):
    """How far a shard was written.

    Attributes:
        size_bytes: Frames that went into its WAL since it was opened, and what the WAL held then.
        lsn: The last transaction among them.
    """

    size_bytes: int = 0
    lsn: int = 0


@dataclass(slots=True)
class WalBacklog:
    """How much of a shard waits in its WAL for a checkpoint. The writing thread tells what it wrote.

    Attributes:
        written: How far the shard was written. Replaced as a whole, so that another thread may look at it.
        moved_bytes: Of that, what is in the file.
        durable_lsn: What survives a power cut without the log: the lsn up to which all is known to be on disk.
        completed: Checkpoints after which the file lacked nothing of the WAL.
        blocked: Checkpoints that a reader kept from moving everything.
        failed: Checkpoints that SQLite could not make, as on a full disk.
    """

    written: Written
    moved_bytes: int = 0
    durable_lsn: int = 0
    completed: int = 0
    blocked: int = 0
    failed: int = 0
    _begun: int = 0
    """Transactions that the writer has begun, whatever became of them."""
    _committed: int = 0
    """The last of the begun transactions that has ended by a commit."""
    _perhaps_moved: int = 0
    """The last of the begun transactions that the checkpoint before may have seen."""
    _refused_at_bytes: int | None = None

    @classmethod
    def of_opened(cls, lsn: int, wal_bytes: int) -> WalBacklog:
        """That of a shard which was just opened at `lsn` and whose WAL holds so much."""
        return cls(Written(wal_bytes, lsn), durable_lsn=0 if wal_bytes else lsn)

    @property
    def pending_bytes(self) -> int:
        """What is in the WAL and not known to be in the file."""
        return self.written.size_bytes - self.moved_bytes

    @property
    def needs_lsn(self) -> int | None:
        """The lsn past which the log is needed after a power cut; None when it is not."""
        return self.durable_lsn if self.written.lsn > self.durable_lsn else None

    def is_due(self, limit_bytes: int) -> bool:
        """Whether to checkpoint a shard whose WAL may hold `limit_bytes`."""
        if self.pending_bytes < limit_bytes:
            return False
        if self._refused_at_bytes is None:
            return True
        return self.written.size_bytes >= self._refused_at_bytes + max(1, limit_bytes // BLOCKED_WAIT)

    @property
    def lacks_some_for_certain(self) -> bool:
        """Whether the file lacks something of the WAL, whatever the checkpoint before has moved."""
        return self._committed > self._perhaps_moved

    def begins(self) -> None:
        """The writer is about to begin a transaction."""
        self._begun += 1

    def wrote(self, size_bytes: int, lsn: int) -> None:
        """The transaction that was begun last went into the WAL."""
        self._committed = self._begun
        self.written = Written(self.written.size_bytes + size_bytes, lsn)

    def is_durable(self, lsn: int) -> None:
        """All up to `lsn` is on disk, be it in the WAL."""
        self.durable_lsn = lsn

    def has_run(self) -> None:
        """A checkpoint has ended, whatever came of it."""
        self._perhaps_moved = self._begun

    def ended(self, began_at: Written, *, moved_all: bool) -> None:
        """What came of a checkpoint that began when the shard was written so far: whether it moved all it found."""
        if not moved_all:
            self.blocked += 1
            self._refused_at_bytes = self.written.size_bytes
            return
        self.moved_bytes = began_at.size_bytes
        self.durable_lsn = max(self.durable_lsn, began_at.lsn)
        self._refused_at_bytes = None
        if not self.pending_bytes:
            self.completed += 1

    def has_failed(self) -> None:
        """SQLite could not checkpoint; the WAL still holds everything."""
        self.failed += 1
        self._refused_at_bytes = self.written.size_bytes


def checkpoint(connection: Connection, backlog: WalBacklog, schema: str = "main") -> bool:
    """Move what no reader needs any more from a shard's WAL into its file; whether that was all.

    The backlog is told. One shard has one checkpoint at a time.

    Raises:
        DatabaseError: SQLite could not; the WAL still holds everything.
    """
    began_at = backlog.written
    try:
        busy, frames, moved_frames = connection.execute(f"PRAGMA {schema}.wal_checkpoint(PASSIVE)").fetchone()
    finally:
        backlog.has_run()
    moved_all = not busy and bool(frames == moved_frames)
    backlog.ended(began_at, moved_all=moved_all)
    return moved_all


def checkpoint_beside(path: Path, backlog: WalBacklog) -> bool:
    """As `checkpoint`, on any thread, while another one writes the shard: what that adds meanwhile stays pending.

    The file must lack something for certain (`WalBacklog.lacks_some_for_certain`), see the module's docstring. The
    writer must not close the shard before this has ended: the last to close a shard removes its WAL by name.

    Raises:
        DatabaseError: As `checkpoint`.
    """
    with closing(open_for_checkpoints(path)) as connection:
        return checkpoint(connection, backlog)
