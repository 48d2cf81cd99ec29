"""One shard file of a standby, seen as pages: opened, identified, and replaced as a whole by a resync.

A connection whose main database is `:memory:` attaches the shard and writes pages into `sqlite_dbpage`. So
readers of the file keep their snapshots, and a crash leaves the state before a transaction or after it.

Its own view of the shard's tables is stale from the first page that it writes. Therefore this module asks it
for pages only, and takes even the shard's own position from their images.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Self

from agent_core.database.build import APPLIED_SCHEMA, PAGE_SIZE, Connection, DatabaseError, open_for_applying
from agent_core.database.checkpoints import WalBacklog, Written
from agent_core.database.pages import (
    PageImages,
    PageSnapshot,
    ReplicationRow,
    database_failure,
    find_replication_row,
    page_digest,
)
from agent_core.database.wal import FRAME_SIZE
from agent_core.errors import HeadwaterError, ShardDamaged, Unavailable, WriteFailed, WrongCluster
from agent_core.position import START, Position
from replica.staging import ANY_BASE, StagedPages, discard_staged

_TRUNCATE = f"INSERT INTO sqlite_dbpage (pgno, data, schema) VALUES (?, NULL, '{APPLIED_SCHEMA}')"  # noqa: S608 - a constant
_READ = f"SELECT data FROM sqlite_dbpage('{APPLIED_SCHEMA}') WHERE pgno = ?"  # noqa: S608 - as above


class ShardFile:
    """The one writer of a standby's shard file. Every method runs on the database thread that owns it.

    A damaged file does not keep it from existing: `damage` says what is wrong, nothing can be applied then,
    and replacing the pages (`replica.resync`) repairs it.

    Attributes:
        path: The shard file.
        shard: Its number.
        applied: The position that the file contains; None when it holds no tables, or cannot say.
        page_count: Pages of the file.
        damage: Why nothing can be applied before a resync; None: something can.
        staged: What a resync brought that is not committed yet; nothing is applied before it is installed.
        backlog: What waits in its WAL for a checkpoint.
        pages_written: Since this was opened.
    """

    def __init__(self, path: Path, *, cluster_id: str, shard: int) -> None:
        self.path = path
        self.shard = shard
        self.applied: Position | None = None
        self.page_count = 0
        self.damage: str | None = None
        self.staged: StagedPages | None = None
        self.backlog = WalBacklog(Written())
        self.pages_written = 0
        self._cluster_id = cluster_id
        self._wal_path = path.with_name(path.name + "-wal")
        self._connection: Connection | None = None
        self._replacing = False
        self._replaced = array("I")
        self._uncommitted_bytes = 0

    @classmethod
    def open(cls, path: Path, *, cluster_id: str, shard: int) -> Self:
        """Open a shard file, or create it, and learn what it contains.

        Raises:
            WrongCluster: The file belongs to another cluster, or is another shard; it is left as it was.
            Unavailable: It cannot be opened now, for a reason that lies outside it.
        """
        opened = cls(path, cluster_id=cluster_id, shard=shard)
        opened._connect()
        return opened

    @property
    def holds(self) -> Position | None:
        """What this node has of the shard for certain, whether in the file or staged beside it."""
        return self.applied if self.staged is None else self.staged.position

    @property
    def readable(self) -> bool:
        """Whether SQLite can open the file at all."""
        return self._connection is not None

    @property
    def wal_bytes(self) -> int:
        """Size of the WAL file."""
        try:
            return self._wal_path.stat().st_size
        except FileNotFoundError:
            return 0

    def begin_replacement(self) -> None:
        """Open the transaction in which a resync writes; one that was left open is rolled back first.

        Until it ends nothing else writes the file; its readers see the state before.

        Raises:
            ShardDamaged: SQLite cannot work with the file.
            WriteFailed: SQLite cannot begin now.
        """
        self.abandon_replacement()
        connection = self._usable_connection()
        try:
            # The log does not hold what a resync writes, so this commit must be durable by itself.
            connection.execute(f"PRAGMA {APPLIED_SCHEMA}.synchronous=FULL")
            self._begin(connection)
        except DatabaseError as error:
            raise self._write_failure(error) from error
        self._replacing = True
        self._replaced = array("I")

    def replace_pages(self, numbers: Sequence[int], images: bytes) -> None:
        """Write pages within the transaction of a resync.

        Args:
            numbers: Page numbers, checked.
            images: The pages' images, back to back.

        Raises:
            WriteFailed: SQLite refused them.
            ShardDamaged: SQLite found the file damaged.
        """
        connection = self._usable_connection()
        starts = dict(zip(numbers, count(1, PAGE_SIZE), strict=False))
        try:
            self._write(connection, PageImages(images, starts))
        except DatabaseError as error:
            raise self._write_failure(error) from error
        self._replaced.extend(numbers)

    def finish_replacement(self, page_count: int, position: Position) -> None:
        """Commit the transaction of a resync if it leads to this shard at `position`.

        Raises:
            ShardDamaged: The pages hold another shard or position; nothing is committed.
            WriteFailed: SQLite refused the transaction.
        """
        connection = self._usable_connection()
        try:
            self._check_replaced(connection, position)
            self._truncate_and_commit(connection, page_count, position)
        except DatabaseError as error:
            raise self._write_failure(error) from error
        self._end_replacement(connection)
        self.backlog.is_durable(position.lsn)
        self.damage = None
        self._discard_staged()

    def stage_replacement(self, page_count: int, position: Position, base: bytes) -> None:
        """Keep what a resync has written beside the shard, durably, and leave the shard as it is for now.

        Args:
            page_count: The pages that the shard will have.
            position: The position that it will contain.
            base: The digest of the shard as it is, or `replica.staging.ANY_BASE`.

        Raises:
            ShardDamaged: The pages hold another shard or position; nothing is kept.
            WriteFailed: The pages could not be read back, or not be written; what was staged before stays.
        """
        connection = self._usable_connection()
        try:
            self._check_replaced(connection, position)
            self.staged = StagedPages.write(
                self.path,
                shard=self.shard,
                position=position,
                page_count=page_count,
                base=base,
                numbers=self._replaced,
                page=self._page,
            )
        except DatabaseError as error:
            raise self._write_failure(error) from error
        except OSError as error:
            raise WriteFailed(f"shard {self.shard}: the pages of a resync cannot be staged: {error}") from error
        finally:
            self.abandon_replacement()

    def install_staged(self) -> None:
        """Bring what is staged into the shard, as one transaction: it is committed now.

        Raises:
            ShardDamaged: It does not fit the shard, or was damaged: the shard needs a resync.
            WriteFailed: The disk refused it; it stays staged.
            Unavailable: The shard cannot be read now; it stays staged.
        """
        staged = self.staged
        assert staged is not None, "there is something to install"
        try:
            if not self._is_installed(staged):
                self.begin_replacement()
                for numbers, images in staged.blocks():
                    self.replace_pages(numbers, images)
                self.finish_replacement(staged.page_count, staged.position)
            else:
                self._discard_staged()
        except ShardDamaged as error:
            # The file stays for now: a restart shall not take the shard for whole.
            self.staged, self.damage = None, str(error)
            raise
        except OSError as error:
            raise WriteFailed(f"shard {self.shard}: what was staged cannot be read: {error}") from error
        finally:
            self.abandon_replacement()

    def abandon_replacement(self) -> None:
        """Roll back what a resync has written; without a resync this does nothing."""
        if self._replacing and self._connection is not None:
            self._roll_back(self._connection)
            self._end_replacement(self._connection)

    def reopen(self) -> None:
        """Open the file as it stands now, after `close`: someone replaced it.

        Raises:
            WrongCluster: It belongs to another cluster, or is another shard.
            Unavailable: It cannot be opened now.
        """
        self.applied = None
        self.page_count = 0
        self.damage = None
        self.backlog = WalBacklog(Written())
        self._connect()

    def close(self) -> None:
        """Close the file; an open transaction is rolled back."""
        if self._connection is not None:
            self.abandon_replacement()
            self._connection.close()
            self._connection = None

    def _connect(self) -> None:
        self._find_staged()
        try:
            self._connection = open_for_applying(self.path)
            ((page_size,),) = self._connection.execute(f"PRAGMA {APPLIED_SCHEMA}.page_size").fetchall()
            ((self.page_count,),) = self._connection.execute(f"PRAGMA {APPLIED_SCHEMA}.page_count").fetchall()
        except DatabaseError as error:
            self.close()
            failure = database_failure(error, f"shard {self.shard} cannot be opened")
            if not isinstance(failure, ShardDamaged):
                raise failure from error
            self.damage = str(failure)
            return
        if page_size != PAGE_SIZE:
            self.close()
            self.damage = f"shard {self.shard} has pages of {page_size} bytes; allowed are {PAGE_SIZE}"
            return
        row = self._read_row()
        if row is not None:
            self._check_owner(row)
            self.applied = row.position
        self.backlog = WalBacklog.of_opened((self.applied or START).lsn, self.wal_bytes)

    def _find_staged(self) -> None:
        try:
            self.staged = StagedPages.find(self.path, self.shard)
        except ShardDamaged as error:
            # The shard may look whole, and still lack what was staged and acknowledged.
            self.damage = str(error)

    def _check_owner(self, row: ReplicationRow) -> None:
        if (row.cluster_id, row.shard) != (self._cluster_id, self.shard):
            self.close()
            raise WrongCluster(
                f"{self.path.name} is shard {row.shard} of cluster {row.cluster_id!r}; this node expects "
                f"shard {self.shard} of cluster {self._cluster_id!r}"
            )

    def _check_replaced(self, connection: Connection, position: Position) -> None:
        # Releasing a savepoint makes SQLite read the number of pages from page 1 again. Before that it
        # does not show the pages by which the file grew.
        connection.execute("SAVEPOINT grown")
        connection.execute("RELEASE grown")
        row = find_replication_row(self._page)
        expected = ReplicationRow(self._cluster_id, self.shard, position)
        if row != expected:
            raise ShardDamaged(f"shard {self.shard}: the source announced {expected}, its pages hold {row}")

    def _is_installed(self, staged: StagedPages) -> bool:
        """Whether a process before this one installed what is staged, and ended before it removed the file."""
        if staged.base == ANY_BASE:
            return False
        snapshot = PageSnapshot.open(self.path)
        try:
            digest = page_digest(snapshot.hashes(1, snapshot.page_count))
        finally:
            snapshot.close()
        if digest != staged.base and self.applied != staged.position:
            raise ShardDamaged(f"{staged.path.name} continues another state of shard {self.shard}")
        return digest != staged.base

    def _discard_staged(self) -> None:
        try:
            discard_staged(self.path)
        except OSError as error:
            raise WriteFailed(f"what was staged for {self.path.name} cannot be removed: {error}") from error
        self.staged = None

    def _end_replacement(self, connection: Connection) -> None:
        self._replacing = False
        connection.execute(f"PRAGMA {APPLIED_SCHEMA}.synchronous=NORMAL")

    def _read_row(self) -> ReplicationRow | None:
        try:
            return find_replication_row(self._page)
        except ShardDamaged as error:
            self.damage = f"shard {self.shard}: {error}"
        except DatabaseError as error:
            self.damage = f"shard {self.shard} cannot be read: {error}"
        return None

    def _page(self, number: int) -> bytes:
        row = self._usable_connection().execute(_READ, (number,)).fetchone()
        if row is None:
            raise ShardDamaged(f"there is no page {number}")
        return bytes(row[0])

    def _usable_connection(self) -> Connection:
        if self._connection is None:
            raise ShardDamaged(self.damage or f"shard {self.shard} was closed")
        return self._connection

    def _idle_connection(self) -> Connection:
        if self._replacing:
            raise Unavailable(f"shard {self.shard} is being resynced")
        return self._usable_connection()

    def _begin(self, connection: Connection) -> None:
        self.backlog.begins()
        connection.execute("BEGIN IMMEDIATE")

    def _write(self, connection: Connection, piece: PageImages) -> None:
        piece.write(connection)
        self.pages_written += len(piece.starts)
        self._uncommitted_bytes += len(piece.starts) * FRAME_SIZE

    def _truncate_and_commit(self, connection: Connection, page_count: int, position: Position) -> None:
        if page_count < self.page_count:
            # Any page written after it would undo it.
            connection.execute(_TRUNCATE, (page_count + 1,))
        connection.execute("COMMIT")
        self.page_count = page_count
        self.applied = position
        self.backlog.wrote(self._uncommitted_bytes, position.lsn)
        self._uncommitted_bytes = 0

    def _roll_back(self, connection: Connection) -> None:
        self._uncommitted_bytes = 0
        if connection.in_transaction:
            connection.execute("ROLLBACK")

    def _write_failure(self, error: Exception) -> HeadwaterError:
        failure = database_failure(error, f"shard {self.shard} refused a transaction")
        name = str(getattr(error, "sqlite_errorname", ""))
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            self.damage = str(failure)
            return failure
        return WriteFailed(str(failure))
