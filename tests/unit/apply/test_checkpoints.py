"""Checkpoints of a standby's shard, with readers in their way."""

from __future__ import annotations

import time

from agent_core.database.build import open_for_reading
from agent_core.position import Position
from replica.apply import BLOCKED_CHECKPOINT_WAIT, CheckpointOutcome, ShardApplier
from tests.unit.apply.harness import assert_identical
from tests.unit.shard_histories import History


def test_a_checkpoint_is_due_past_a_size_and_empties_the_wal(standby: ShardApplier, history: History) -> None:
    standby.apply(history.records)
    assert standby.checkpoint(1 << 30) is CheckpointOutcome.NOT_DUE
    assert standby.wal_bytes > 0
    assert standby.checkpointed_lsn == 0
    assert standby.checkpoint(standby.wal_bytes - 1) is CheckpointOutcome.COMPLETED
    assert (standby.wal_bytes, standby.checkpointed_lsn, standby.checkpoints_completed) == (0, 1, 1)
    history.fill(3)
    standby.apply(history.records)
    assert (standby.checkpointed_lsn, standby.applied) == (1, Position(1, 2))
    assert_identical(standby, history)


def test_a_reader_blocks_a_checkpoint_but_nobody_waits(standby: ShardApplier, history: History) -> None:
    history.fill(20)
    standby.apply(history.records)
    reader = open_for_reading(standby.path)
    reader.execute("BEGIN")
    before = reader.execute("SELECT * FROM filling").fetchall()
    history.commit("DELETE FROM filling")
    standby.apply(history.records)
    began = time.monotonic()
    assert standby.checkpoint(1) is CheckpointOutcome.BLOCKED
    assert time.monotonic() - began < 1
    assert (standby.checkpoints_blocked, standby.checkpointed_lsn) == (1, 0)
    assert reader.execute("SELECT * FROM filling").fetchall() == before
    history.fill(1)
    standby.apply(history.records)
    reader.close()
    assert standby.checkpoint() is CheckpointOutcome.COMPLETED
    assert standby.checkpointed_lsn == history.position.lsn
    assert_identical(standby, history)


def test_a_blocked_checkpoint_is_tried_again_once_more_was_written(standby: ShardApplier, history: History) -> None:
    standby.apply(history.records)
    reader = open_for_reading(standby.path)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM replication").fetchall()
    history.fill(20)
    standby.apply(history.records)
    past_bytes = standby.wal_bytes - 1
    assert standby.checkpoint(past_bytes) is CheckpointOutcome.BLOCKED
    assert standby.checkpoint(past_bytes) is CheckpointOutcome.NOT_DUE
    written = 0
    while written < past_bytes // BLOCKED_CHECKPOINT_WAIT:
        assert standby.checkpoint(past_bytes) is CheckpointOutcome.NOT_DUE
        written += len(history.commit("UPDATE filling SET body = 'x' WHERE id = 1").frames)
        standby.apply(history.records[-1:])
    assert standby.checkpoint(past_bytes) is CheckpointOutcome.BLOCKED
    assert standby.checkpoints_blocked == 2
    reader.close()
