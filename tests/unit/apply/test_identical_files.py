"""Applied records leave the same pages as the primary has, however they come, and readers their snapshot."""

from __future__ import annotations

from pathlib import Path

from agent_core.database.build import open_for_reading
from agent_core.database.pages import PIECE_FRAMES, PageSnapshot, comparable
from agent_core.database.wal import FRAME_SIZE
from replica.apply import ShardApplier
from tests.unit.apply.harness import assert_identical, open_standby
from tests.unit.shard_histories import History, pages_of


def test_the_first_record_creates_the_shard(standby: ShardApplier, history: History) -> None:
    assert standby.applied is None
    assert standby.apply(history.records) == 1
    assert standby.applied == history.position
    assert_identical(standby, history)


def test_growth_shrinkage_vacuum_and_schema_changes_leave_identical_files(
    standby: ShardApplier, history: History
) -> None:
    def apply_the_latest() -> None:
        assert standby.apply(history.records[-1:]) == 1
        assert_identical(standby, history)

    standby.apply(history.records)
    history.fill(300)
    apply_the_latest()
    history.commit("CREATE INDEX by_body ON filling (body)", "ALTER TABLE filling ADD COLUMN note TEXT DEFAULT 'x'")
    apply_the_latest()
    history.commit("DELETE FROM filling WHERE id % 3 <> 0")
    apply_the_latest()
    history.vacuum()
    assert history.records[-1].page_count < history.records[-2].page_count
    apply_the_latest()
    history.commit("DROP TABLE filling")
    history.vacuum()
    assert standby.apply(history.records[-2:]) == 2
    assert_identical(standby, history)
    history.fill(50)
    apply_the_latest()
    assert standby.page_count == history.records[-1].page_count


def test_the_files_themselves_are_byte_identical_after_a_checkpoint(
    standby: ShardApplier, history: History
) -> None:
    history.fill(40)
    history.vacuum()
    history.commit("INSERT INTO filling (body) VALUES ('last')")
    standby.apply(history.records)
    standby.checkpoint()
    history.checkpoint()
    standby_path, history_path = standby.path, history.path
    standby.close()
    assert comparable(standby_path.read_bytes(), 1) == comparable(history_path.read_bytes(), 1)


def test_merged_records_end_like_single_ones_in_one_commit(
    standby: ShardApplier, history: History, tmp_path: Path
) -> None:
    for _ in range(10):
        history.fill(3)
    assert standby.apply(history.records) == 11
    assert (standby.commits, standby.transactions_applied) == (1, 11)
    one_by_one = open_standby(tmp_path / "other.db")
    for record in history.records:
        one_by_one.apply([record])
    assert pages_of(one_by_one.path) == pages_of(standby.path)
    assert_identical(standby, history)
    one_by_one.close()


def test_a_merge_may_grow_and_shrink_and_grow_the_shard(standby: ShardApplier, history: History) -> None:
    standby.apply(history.records)
    history.fill(200)
    history.commit("DROP TABLE filling")
    history.vacuum()
    history.fill(20)
    standby.apply(history.records)
    assert_identical(standby, history)


def test_a_transaction_larger_than_one_statement_takes_is_applied_whole(
    standby: ShardApplier, history: History
) -> None:
    record = history.fill(PIECE_FRAMES + 500)
    assert len(record.frames) // FRAME_SIZE > PIECE_FRAMES
    standby.apply(history.records)
    history.commit("UPDATE filling SET body = randomblob(2000)")
    standby.apply(history.records)
    assert_identical(standby, history)


def test_records_that_the_shard_contains_are_skipped(standby: ShardApplier, history: History) -> None:
    history.fill(5)
    standby.apply(history.records)
    assert standby.apply(history.records) == 0
    history.fill(5)
    assert standby.apply(history.records) == 1
    assert_identical(standby, history)


def test_the_position_is_read_from_the_shard_itself_when_it_is_opened(tmp_path: Path, history: History) -> None:
    standby = open_standby(tmp_path / "standby.db")
    history.fill(5)
    standby.apply(history.records)
    standby.close()
    again = open_standby(tmp_path / "standby.db")
    assert again.applied == history.position
    assert again.page_count == history.records[-1].page_count
    assert again.backlog.durable_lsn == history.position.lsn
    again.close()


def test_a_reader_keeps_its_snapshot_while_records_are_applied(standby: ShardApplier, history: History) -> None:
    history.fill(30)
    standby.apply(history.records)
    reader = open_for_reading(standby.path)
    reader.execute("BEGIN")
    before = reader.execute("SELECT id, body FROM filling").fetchall()
    history.commit("DROP TABLE filling")
    history.vacuum()
    history.fill(3, table="replacement")
    standby.apply(history.records)
    assert reader.execute("SELECT id, body FROM filling").fetchall() == before
    reader.execute("COMMIT")
    assert reader.execute("SELECT count(*) FROM replacement").fetchone() == (3,)
    reader.close()
    assert_identical(standby, history)


def test_page_one_says_that_the_file_is_in_wal_mode_whatever_was_sent(
    standby: ShardApplier, history: History
) -> None:
    record = history.records[0]
    frames = bytearray(record.frames)
    frames[24 + 18 : 24 + 20] = b"\x01\x01"
    assert int.from_bytes(frames[:4], "big") == 1
    standby.apply([record._replace(frames=bytes(frames))])
    assert_identical(standby, history)


def test_equal_shards_have_equal_hashes_however_often_sqlite_read_page_one(
    standby: ShardApplier, history: History
) -> None:
    standby.apply(history.records)
    for _ in range(3):
        standby.close()
        standby.reopen()
        standby.apply([history.fill(1)])
    ours, theirs = PageSnapshot.open(standby.path), PageSnapshot.open(history.path)
    assert ours.pages(1, 1) != theirs.pages(1, 1)
    assert ours.hashes(1, ours.page_count) == theirs.hashes(1, theirs.page_count)
    ours.close()
    theirs.close()


def test_a_truncation_that_was_rolled_back_does_not_come_back(standby: ShardApplier, history: History) -> None:
    history.fill(50)
    standby.apply(history.records)
    assert standby._connection is not None
    standby._connection.execute("BEGIN IMMEDIATE")
    standby._connection.execute("INSERT INTO sqlite_dbpage (pgno, data, schema) VALUES (10, NULL, 'shard')")
    standby._connection.execute("ROLLBACK")
    history.fill(1)
    standby.apply(history.records)
    assert_identical(standby, history)
