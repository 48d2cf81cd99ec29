"""The shards of one group as their one writing thread sees them.

Everything here runs on that thread: one SQLite transaction per shard that a batch touches, the capture of its
frames, the records, one write to the replication log, one fsync. Checkpoints run beside it
(`agent_core.database.checkpointer`), and here only for a shard that is written without a pause.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import structlog

from agent_core.database.build import Connection, DatabaseError, open_for_writing
from agent_core.database.checkpoints import WalBacklog, checkpoint
from agent_core.database.schema import (
    FOLD_AFTER,
    SCHEMA_VERSION,
    fold_tail,
    migrate,
    read_position,
    schema_version,
    set_position,
    shard_path,
)
from agent_core.errors import ShardDamaged
from agent_core.log.log import ReplicationLog
from agent_core.log.record import Record, RecordCodec, RecordKind
from agent_core.position import START, Position
from agent_core.routing import ShardLayout
from primary.capture import CapturedTransaction, WalCapture
from primary.entry_rows import insert_entries
from primary.mutation import Append, Creation, Mutation, Transaction
from primary.workspace.document_changes import DocumentChanges

logger = structlog.get_logger(__name__)

INSERT_SESSION = (
    "INSERT INTO sessions (session_id, workspace, title, status, provider, model, parent_session_id, created_at,"
    " metadata, folded_updated_at) VALUES (?,?,?,?,?,?,?,?,?,?) RETURNING id"
)


@dataclass(slots=True)
class BatchOutcome:
    """What one batch came to.

    Attributes:
        transactions: One per shard touched; those with an error left no trace.
        log_error: The log could not take the block; it is kept and must be logged before anything else.
        durable_lsn: The log's, after its fsync.
        wal_bytes: Written to the shards' WALs by this batch.
        fsync_seconds: How long the log's fsync took.
        checkpoint_due: Some shard's WAL is past its limit.
    """

    transactions: list[Transaction]
    durable_lsn: int = 0
    log_error: Exception | None = None
    wal_bytes: int = 0
    fsync_seconds: float = 0.0
    checkpoint_due: bool = False


class EpochBeginning(NamedTuple):
    """The records with which an epoch begins.

    Attributes:
        opening_lsn: The first; with it everything before it counts as committed.
        last_lsn: The last; clients are served once it is committed.
    """

    opening_lsn: int
    last_lsn: int


@dataclass(slots=True)
class ShardState:
    """One shard's connection and what its writer keeps in mind about it."""

    shard: int
    path: Path
    connection: Connection
    capture: WalCapture
    position: Position
    tail_entries: int
    backlog: WalBacklog


@dataclass(slots=True)
class GroupDatabase:
    """A group's shards, open for writing, and the log that their transactions go to."""

    log: ReplicationLog
    group: int
    epoch: int
    checkpoint_bytes: int
    workspace_shard: int
    shards: dict[int, ShardState] = field(default_factory=dict)
    _codec: RecordCodec = field(default_factory=RecordCodec)
    _unlogged: bytes = b""
    _last_lsn: int = 0

    @classmethod
    def open(
        cls,
        data_directory: Path,
        layout: ShardLayout,
        *,
        group: int,
        epoch: int,
        log: ReplicationLog,
        checkpoint_bytes: int,
    ) -> GroupDatabase:
        """Open every shard of the group; new ones are made. Nothing is written before `begin_epoch`.

        Whoever applied to the shards until now may still have them open, as long as it writes no more. It should:
        its closing then is not the last one of a shard, with which SQLite would empty the WAL.

        Raises:
            DatabaseError: A shard cannot be opened.
        """
        database = cls(log, group, epoch, checkpoint_bytes, layout.workspace_shard, _last_lsn=log.last.lsn)
        try:
            for shard in layout.shards_of(group):
                path = shard_path(data_directory, layout.shard_file_name(shard))
                database.shards[shard] = _open_shard(path, shard)
        except BaseException:
            database.close()
            raise
        return database

    def write(self, transactions: list[Transaction], on_logged: Callable[[], None]) -> BatchOutcome:
        """Commit a batch, log it, and make it durable.

        A transaction that SQLite refuses is rolled back and carries its error; the others stand. `on_logged`
        is called between the log's write and its fsync: the stream to the standbys does not wait for that.

        Raises:
            ShardDamaged: What SQLite committed cannot be read back from the WAL. The group must stop.
        """
        written = BatchOutcome(transactions)
        self._unlogged += self._commit_all(written)
        self._log(written, on_logged)
        return written

    def log_again(self, on_logged: Callable[[], None]) -> BatchOutcome:
        """Try once more to log what the log refused, for example on a full disk."""
        written = BatchOutcome([])
        self._log(written, on_logged)
        return written

    def checkpoint(self, shard: int) -> bool:
        """Checkpoint a shard between two batches; False when a reader is in the way.

        Raises:
            DatabaseError: SQLite could not; the WAL still holds everything.
        """
        state = self.shards[shard]
        return checkpoint(state.connection, state.backlog)

    def begin_epoch(self, cluster_id: str, unlogged_shards: Collection[int] = ()) -> EpochBeginning:
        """Log the record that opens this epoch, and what a new primary owes its standbys.

        With the opening record everything before it counts as committed. Then come the missing migrations, as
        transactions like any other, and a reset for each shard that holds what the log does not.

        Resets are closed by a second epoch record. A standby acknowledges a reset before its resync, and nothing
        behind it: so a majority that holds the closing record has its resyncs behind it, and a resync that
        this majority needs never meets a transaction behind the reset that is not committed yet.
        """
        opening = self._append_bare(RecordKind.EPOCH, 0, _now_ms())
        for shard, state in self.shards.items():
            if shard not in unlogged_shards and schema_version(state.connection) < SCHEMA_VERSION:
                self._migrate(state, cluster_id)
        for shard in sorted(unlogged_shards):
            self._reset(self.shards[shard], cluster_id)
        if unlogged_shards:
            self._append_bare(RecordKind.EPOCH, 0, _now_ms())
        self.log.sync()
        return EpochBeginning(opening.lsn, self._last_lsn)

    def close(self) -> None:
        """Close every shard, after a checkpoint of what no reader holds."""
        for state in self.shards.values():
            # Closing would checkpoint too, but sqlean holds the interpreter's lock while it closes.
            with contextlib.suppress(DatabaseError):
                checkpoint(state.connection, state.backlog)
            state.capture.close()
            state.connection.close()

    def _commit_all(self, written: BatchOutcome) -> bytes:
        """Commit a batch's transactions; the records of those that SQLite took, back to back."""
        now = _now_ms()
        records = []
        for transaction in written.transactions:
            state = self.shards[transaction.shard]
            position = Position(self.epoch, self._last_lsn + 1)
            try:
                _commit(state, transaction.mutations, position, now)
            except DatabaseError as error:
                if state.connection.in_transaction:
                    state.connection.execute("ROLLBACK")
                transaction.error = error
                continue
            captured = _captured(state)
            records.append(self._record(state, captured, position, now))
            written.wal_bytes += len(captured.frames)
            written.checkpoint_due |= state.backlog.is_due(self.checkpoint_bytes)
            transaction.position = position
        return b"".join(records)

    def _append_bare(self, kind: RecordKind, shard: int, now: int) -> Position:
        position = Position(self.epoch, self._last_lsn + 1)
        record = Record(kind, self.group, shard, position, 0, now, b"")
        self.log.append(self._codec.encode(record), verify=False)
        self._last_lsn = position.lsn
        return position

    def _reset(self, state: ShardState, cluster_id: str) -> None:
        """Tell standbys to resync a shard when they get here; what is missing of the schema comes with it.

        The shard's own new position is made durable first, so a log with the record means a shard with it.
        """
        now = _now_ms()
        state.position = Position(self.epoch, self._last_lsn + 1)
        state.connection.execute("PRAGMA synchronous=FULL")
        _begin(state)
        if schema_version(state.connection) < SCHEMA_VERSION:
            self._bring_schema_up(state, cluster_id)
        set_position(state.connection, state.position, now)
        state.connection.execute("COMMIT")
        state.connection.execute("PRAGMA synchronous=NORMAL")
        captured = _captured(state)
        state.backlog.wrote(len(captured.frames), state.position.lsn)
        state.backlog.is_durable(state.position.lsn)
        self._append_bare(RecordKind.RESET, state.shard, now)

    def _migrate(self, state: ShardState, cluster_id: str) -> None:
        now = _now_ms()
        position = Position(self.epoch, self._last_lsn + 1)
        _begin(state)
        self._bring_schema_up(state, cluster_id)
        set_position(state.connection, position, now)
        state.connection.execute("COMMIT")
        captured = _captured(state)
        self.log.append(self._record(state, captured, position, now), verify=False)

    def _bring_schema_up(self, state: ShardState, cluster_id: str) -> None:
        migrate(
            state.connection,
            cluster_id=cluster_id,
            shard=state.shard,
            is_workspace=state.shard == self.workspace_shard,
        )

    def _record(self, state: ShardState, captured: CapturedTransaction, position: Position, now: int) -> bytes:
        self._last_lsn = position.lsn
        state.position = position
        state.backlog.wrote(len(captured.frames), position.lsn)
        return self._codec.encode(
            Record(
                RecordKind.TRANSACTION,
                self.group,
                state.shard,
                position,
                captured.page_count,
                now,
                captured.frames,
            )
        )

    def _log(self, written: BatchOutcome, on_logged: Callable[[], None]) -> None:
        try:
            if self._unlogged:
                self.log.append(self._unlogged, verify=False)
                self._unlogged = b""
                on_logged()
            started = time.perf_counter()
            written.durable_lsn = self.log.sync()
            written.fsync_seconds = time.perf_counter() - started
        except OSError as error:
            written.log_error = error


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _open_shard(path: Path, shard: int) -> ShardState:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = open_for_writing(path)
    position = read_position(connection) or START
    tail = 0
    if position != START:
        (tail,) = connection.execute(
            "SELECT coalesce(max(id), 0) + 1 - (SELECT first_entry FROM entry_tail) FROM entries"
        ).fetchone()
    # No checkpoint: its fsyncs, one shard after the other, would keep every writer of the group waiting.
    capture = WalCapture(path.with_name(path.name + "-wal"), in_use=True)
    backlog = WalBacklog.of_opened(position.lsn, capture.wal_bytes)
    return ShardState(shard, path, connection, capture, position, tail, backlog)


def _captured(state: ShardState) -> CapturedTransaction:
    """The transaction that was just committed.

    Raises:
        ShardDamaged: The WAL does not hold it. Every transaction changes its shard's position, so it must.
    """
    captured = state.capture.capture()
    if captured is None:
        raise ShardDamaged(f"shard {state.shard}: its WAL does not hold the transaction that was just committed")
    return captured


def _begin(state: ShardState) -> None:
    state.backlog.begins()
    state.connection.execute("BEGIN IMMEDIATE")


def _commit(state: ShardState, mutations: Sequence[Mutation], position: Position, now: int) -> None:
    """One transaction: the mutations, the fold when it is due, and the transaction's own position."""
    execute = state.connection.execute
    _begin(state)
    appends: list[Append] = []
    for mutation in mutations:
        if isinstance(mutation, DocumentChanges):
            mutation.make(state.connection, now)
        elif isinstance(mutation, Append):
            appends.append(mutation)
        else:
            assert isinstance(mutation, Creation), "the only three mutations"
            session = mutation.actor.session
            cursor = execute(
                INSERT_SESSION,
                (
                    session.session_id,
                    session.workspace,
                    session.title,
                    session.status,
                    session.provider,
                    session.model,
                    session.parent_session_id,
                    session.created_at_ms,
                    session.metadata_json.decode(),
                    session.created_at_ms,
                ),
            )
            (mutation.actor.row,) = cursor.fetchone()
    insert_entries(state.connection, appends)
    tail = state.tail_entries + len(appends)
    if tail >= FOLD_AFTER:
        fold_tail(state.connection)
        tail = 0
    set_position(state.connection, position, now)
    execute("COMMIT")
    state.tail_entries = tail
