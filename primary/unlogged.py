"""What a crashed primary committed to its shards and did not get to log.

SQLite commits before the log hears of it, so a kill between the two leaves shards that are ahead of their
log by at most one transaction each: those of one batch, which nobody acknowledged or streamed. While the
process's WAL survives they are read back from it and logged, and nothing differs from a crash a moment later.
A power cut may tear the WAL or the log elsewhere; then a shard stays ahead, and its primary must reset it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agent_core.database.build import open_for_writing
from agent_core.database.schema import read_position, shard_path
from agent_core.errors import ShardDamaged
from agent_core.log.log import ReplicationLog
from agent_core.log.record import Record, RecordCodec, RecordKind
from agent_core.position import Position
from agent_core.routing import ShardLayout
from primary.capture import CapturedTransaction, WalCapture


@dataclass(frozen=True, slots=True)
class _Ahead:
    """A shard whose last transaction is past the log's end."""

    shard: int
    position: Position
    committed_at_ms: int
    transaction: CapturedTransaction | None


def log_unlogged(data_directory: Path, layout: ShardLayout, group: int, log: ReplicationLog) -> frozenset[int]:
    """Log what the shards' WALs still hold past the log's end, durably; the shards that stay ahead.

    Nothing else may have the shards open: closing them empties their WALs.
    """
    ahead = []
    for shard in layout.shards_of(group):
        path = shard_path(data_directory, layout.shard_file_name(shard))
        if path.exists() and (found := _look(path, shard, log)) is not None:
            ahead.append(found)
    codec = RecordCodec()
    left = set()
    for found in sorted(ahead, key=lambda one: one.position):
        follows = found.position.lsn == log.last.lsn + 1 and found.position.epoch >= log.last.epoch
        if found.transaction is None or not follows:
            left.add(found.shard)
            continue
        record = Record(
            RecordKind.TRANSACTION,
            group,
            found.shard,
            found.position,
            found.transaction.page_count,
            found.committed_at_ms,
            found.transaction.frames,
        )
        log.append(codec.encode(record))
    log.sync()
    for path in (shard_path(data_directory, layout.shard_file_name(found.shard)) for found in ahead):
        # Now that it is logged the WAL may go; until here nothing else could have emptied it.
        open_for_writing(path).close()
    return frozenset(left)


def _look(path: Path, shard: int, log: ReplicationLog) -> _Ahead | None:
    connection = open_for_writing(path)
    capture = None
    try:
        position = read_position(connection)
        if position is None or position.lsn <= log.last.lsn:
            return None
        (committed_at_ms,) = connection.execute("SELECT committed_at FROM replication").fetchone()
        capture = WalCapture(path.with_name(path.name + "-wal"))
        try:
            transaction = capture.last_transaction()
        except ShardDamaged:
            transaction = None
        return _Ahead(shard, position, committed_at_ms, transaction)
    finally:
        if capture is not None:
            capture.close()
        connection.close()
