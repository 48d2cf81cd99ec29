"""Checkpoints of a standby's shard, with readers in their way."""

from __future__ import annotations

from agent_core.database.build import open_for_reading
from agent_core.database.checkpoints import checkpoint_beside
from agent_core.position import Position
from replica.apply import ShardApplier
from tests.unit.apply.harness import assert_identical
from tests.unit.shard_histories import History


def test_a_checkpoint_moves_what_was_applied_and_the_wal_begins_anew(
    standby: ShardApplier, history: History
) -> None:
    history.fill(30)
    standby.apply(history.records)
    assert standby.backlog.pending_bytes > 30 * 4096
    assert standby.checkpoint()
    assert (standby.backlog.pending_bytes, standby.backlog.needs_lsn, standby.backlog.completed) == (0, None, 1)
    wal_bytes = standby.wal_bytes
    history.fill(3)
    standby.apply(history.records)
    assert (standby.backlog.needs_lsn, standby.applied) == (2, Position(1, 3))
    assert standby.wal_bytes == wal_bytes
    assert_identical(standby, history)


def test_a_shard_is_checkpointed_by_another_thread_s_connection_too(
    standby: ShardApplier, history: History
) -> None:
    for _ in range(5):
        history.fill(20)
        standby.apply(history.records)
        assert checkpoint_beside(standby.path, standby.backlog)
        assert standby.backlog.needs_lsn is None
        assert_identical(standby, history)


def test_a_reader_blocks_a_checkpoint_and_keeps_what_it_sees(standby: ShardApplier, history: History) -> None:
    history.fill(20)
    standby.apply(history.records)
    reader = open_for_reading(standby.path)
    reader.execute("BEGIN")
    before = reader.execute("SELECT * FROM filling").fetchall()
    history.commit("DELETE FROM filling")
    standby.apply(history.records)
    assert not standby.checkpoint()
    assert (standby.backlog.blocked, standby.backlog.durable_lsn) == (1, 0)
    assert reader.execute("SELECT * FROM filling").fetchall() == before
    history.fill(1)
    standby.apply(history.records)
    reader.close()
    assert standby.checkpoint()
    assert standby.backlog.durable_lsn == history.position.lsn
    assert_identical(standby, history)
