"""A standby's shard, to be compared with its primary's."""

from __future__ import annotations

from pathlib import Path

from agent_core.database.build import open_for_reading
from agent_core.database.wal import FRAME_SIZE
from agent_core.log.record import Record
from replica.apply import ShardApplier
from tests.unit.shard_histories import CLUSTER, SHARD, History, pages_of


def open_standby(path: Path) -> ShardApplier:
    return ShardApplier.open(path, cluster_id=CLUSTER, shard=SHARD)


def assert_identical(standby: ShardApplier, history: History) -> None:
    assert pages_of(standby.path) == pages_of(history.path)
    reader = open_for_reading(standby.path)
    assert reader.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    reader.close()


def rewritten(record: Record, number: int, frame: int = 0) -> Record:
    """The record with another page number on one of its frames."""
    frames = bytearray(record.frames)
    frames[frame * FRAME_SIZE : frame * FRAME_SIZE + 4] = number.to_bytes(4, "big")
    return record._replace(frames=bytes(frames))
