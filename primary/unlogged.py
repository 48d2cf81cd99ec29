"""What a crashed primary committed to its shards and did not get to log.

SQLite commits before the log hears of it, so a kill between the two leaves shards that are ahead of their
log by at most one transaction each: those of one batch, which nobody acknowledged or streamed. While the
process's WAL survives they are read back from it and logged, and nothing differs from a crash a moment later.
A power cut may tear the WAL or the log elsewhere; then a shard stays ahead, and its primary must reset it.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from agent_core.database.build import DatabaseError, open_for_writing
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


def log_unlogged(
    data_directory: Path, layout: ShardLayout, group: int, log: ReplicationLog, *, led_epoch: int
) -> frozenset[int]:
    """Log what the shards' WALs still hold past the log's end, durably; the shards that stay ahead.

    Only what this node committed in the epoch that it led. A transaction of any other epoch came by a resync, or
    merges several records: it leads the shard to the position that it names, and still is not the record of it.

    A shard that cannot be read is passed over.

    Nothing else may have the shards open. They stay open here until the log is durable: closing empties a WAL.
    """
    codec = RecordCodec()
    left = set()
    with ExitStack() as open_shards:
        ahead = []
        for shard in layout.shards_of(group):
            path = shard_path(data_directory, layout.shard_file_name(shard))
            if path.exists() and (found := _look(path, shard, log.last, open_shards)) is not None:
                ahead.append(found)
        for found in sorted(ahead, key=lambda one: one.position):
            follows = found.position.lsn == log.last.lsn + 1 and found.position.epoch >= log.last.epoch
            if found.transaction is None or not follows or found.position.epoch != led_epoch:
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
    return frozenset(left)


def _look(path: Path, shard: int, last: Position, open_shards: ExitStack) -> _Ahead | None:
    try:
        connection = open_for_writing(path)
        open_shards.callback(connection.close)
        position = read_position(connection)
    except DatabaseError:
        return None  # Damaged: whoever opens it to apply to it finds that, and lets it be resynced.
    if position is None or position.lsn <= last.lsn:
        return None
    (committed_at_ms,) = connection.execute("SELECT committed_at FROM replication").fetchone()
    capture = WalCapture(path.with_name(path.name + "-wal"))
    open_shards.callback(capture.close)
    try:
        transaction = capture.last_transaction()
    except ShardDamaged:
        transaction = None
    return _Ahead(shard, position, committed_at_ms, transaction)
