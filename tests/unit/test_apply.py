from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_core.database.build import PAGE_SIZE, open_for_reading, open_for_writing
from agent_core.database.pages import (
    LOCK_PAGE,
    MAX_PAGE_COUNT,
    PIECE_FRAMES,
    PageSnapshot,
    comparable,
    find_replication_row,
    page_digest,
)
from agent_core.database.schema import read_position
from agent_core.database.wal import FRAME_SIZE
from agent_core.errors import ShardDamaged, Unavailable, WriteFailed, WrongCluster
from agent_core.log.record import Record, RecordKind
from agent_core.position import Position
from replica.apply import BLOCKED_CHECKPOINT_WAIT, CheckpointOutcome, ShardApplier
from tests.unit.shard_histories import CLUSTER, SHARD, History, pages_of


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    history = History(tmp_path / "primary.db")
    yield history
    history.close()


@pytest.fixture
def standby(tmp_path: Path) -> Iterator[ShardApplier]:
    applier = open_standby(tmp_path / "standby.db")
    yield applier
    applier.close()


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
    return replace(record, frames=bytes(frames))


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
    assert again.checkpointed_lsn == history.position.lsn
    again.close()


def test_the_replication_row_is_found_in_page_images_whatever_the_size_of_the_schema(history: History) -> None:
    for number in range(40):
        history.commit(f"CREATE TABLE wide_{number} ({', '.join(f'column_{c} TEXT' for c in range(60))})")
    history.vacuum()
    history.commit("UPDATE replication SET epoch = epoch")
    snapshot = PageSnapshot.open(history.path)
    row = find_replication_row(lambda number: snapshot.pages(number, 1))
    assert row == (CLUSTER, SHARD, snapshot.position)
    assert len(page_digest(snapshot.hashes(1, snapshot.page_count))) == 16
    snapshot.close()


@pytest.mark.parametrize(
    "position", [Position(1, 1), Position(127, 128), Position(1 << 20, 1 << 40), Position(2, 1 << 62)]
)
def test_positions_of_every_width_are_found_in_page_images(history: History, position: Position) -> None:
    history.commit()
    history.connection.execute("UPDATE replication SET epoch=?, lsn=?", position)
    snapshot = PageSnapshot.open(history.path)
    assert find_replication_row(lambda number: snapshot.pages(number, 1)) == (CLUSTER, SHARD, position)
    assert read_position(history.connection) == position
    snapshot.close()


@pytest.mark.parametrize(
    "image", [bytes(PAGE_SIZE), b"\xff" * PAGE_SIZE, bytes(100) + b"\x05" + bytes(PAGE_SIZE - 101)]
)
def test_images_that_hold_no_table_are_damage(image: bytes) -> None:
    with pytest.raises(ShardDamaged):
        find_replication_row(lambda _: image)


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
    standby.apply([replace(record, frames=bytes(frames))])
    assert_identical(standby, history)


HOSTILE: dict[str, Callable[[Record], Record]] = {
    "page 0": lambda record: rewritten(record, 0),
    "the lock page": lambda record: replace(rewritten(record, LOCK_PAGE), page_count=LOCK_PAGE + 5),
    "no frames": lambda record: replace(record, frames=b""),
    "a torn frame": lambda record: replace(record, frames=record.frames[:-1]),
    "half a frame more": lambda record: replace(record, frames=record.frames + bytes(2000)),
    "no pages left": lambda record: replace(record, page_count=0),
    "more pages than allowed": lambda record: replace(record, page_count=MAX_PAGE_COUNT + 1),
    "growth without pages": lambda record: replace(record, page_count=record.page_count + 1),
    "growth by far": lambda record: replace(rewritten(record, MAX_PAGE_COUNT), page_count=MAX_PAGE_COUNT),
    "another shard": lambda record: replace(record, shard=SHARD + 1),
    "another kind": lambda record: replace(record, kind=RecordKind.RESET),
    "a lower epoch": lambda record: replace(record, position=Position(0, record.position.lsn)),
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_record_that_no_primary_writes_is_refused_before_anything_is_written(
    standby: ShardApplier, history: History, hostile: Callable[[Record], Record]
) -> None:
    standby.apply(history.records)
    before, wal_bytes = pages_of(standby.path), standby.wal_bytes
    good = history.fill(2)
    with pytest.raises(ShardDamaged):
        standby.apply([hostile(good)])
    assert (standby.applied, standby.wal_bytes, standby.pages_written) == (
        Position(1, 1),
        wal_bytes,
        len(before) // PAGE_SIZE,
    )
    assert pages_of(standby.path) == before
    standby.apply([good])
    assert_identical(standby, history)


def test_an_error_within_the_transaction_leaves_the_old_state(standby: ShardApplier, history: History) -> None:
    standby.apply(history.records)
    before = pages_of(standby.path)
    assert standby._connection is not None
    standby._connection.execute(f"PRAGMA shard.max_page_count={standby.page_count + 1}")
    history.fill(100)
    with pytest.raises(WriteFailed, match="full"):
        standby.apply(history.records)
    assert standby.applied == Position(1, 1)
    assert pages_of(standby.path) == before
    standby._connection.execute(f"PRAGMA shard.max_page_count={MAX_PAGE_COUNT}")
    standby.apply(history.records)
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


KILLED_WITHIN_A_TRANSACTION = """
import sys
from pathlib import Path
from agent_core.database.build import open_for_applying
connection = open_for_applying(Path(sys.argv[1]))
connection.execute("PRAGMA cache_size=10")
connection.execute("BEGIN IMMEDIATE")
for number in range(1, 200):
    connection.execute(
        "INSERT INTO sqlite_dbpage (pgno, data, schema) VALUES (?, zeroblob(4096), 'shard')", (number,)
    )
print("written", flush=True)
sys.stdin.read()
"""


def test_a_process_killed_within_a_transaction_leaves_the_old_state(tmp_path: Path, history: History) -> None:
    standby = open_standby(tmp_path / "standby.db")
    history.fill(30)
    standby.apply(history.records)
    before = pages_of(standby.path)
    standby.close()
    with subprocess.Popen(
        [sys.executable, "-c", KILLED_WITHIN_A_TRANSACTION, str(standby.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
    again = open_standby(tmp_path / "standby.db")
    assert again.applied == history.position
    assert pages_of(again.path) == before
    again.close()


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


def test_a_shard_of_another_cluster_or_number_is_refused_and_left_alone(tmp_path: Path, history: History) -> None:
    path = tmp_path / "standby.db"
    standby = open_standby(path)
    standby.apply(history.records)
    standby.close()
    before = path.read_bytes()
    for cluster_id, shard in (("another", SHARD), (CLUSTER, SHARD + 1)):
        with pytest.raises(WrongCluster, match="expects"):
            ShardApplier.open(path, cluster_id=cluster_id, shard=shard)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_damage_and_kept_until_a_resync(tmp_path: Path, history: History) -> None:
    path = tmp_path / "standby.db"
    garbage = os.urandom(3 * PAGE_SIZE)
    path.write_bytes(garbage)
    standby = open_standby(path)
    assert standby.damage is not None
    assert "not a database" in standby.damage
    assert not standby.readable
    with pytest.raises(ShardDamaged, match="not a database"):
        standby.apply(history.records)
    assert path.read_bytes() == garbage


def test_a_file_with_other_pages_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "standby.db"
    script = """if True:
        import sys
        from sqlean import dbapi2
        connection = dbapi2.connect(sys.argv[1])
        connection.execute("PRAGMA page_size=1024")
        connection.execute("CREATE TABLE t (a)")
    """
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)
    standby = open_standby(path)
    assert standby.damage is not None
    assert "1024" in standby.damage


def test_a_file_whose_row_cannot_be_found_applies_nothing(tmp_path: Path, history: History) -> None:
    path = tmp_path / "standby.db"
    connection = open_for_writing(path)
    connection.execute("CREATE TABLE replication (id INTEGER PRIMARY KEY)")
    connection.close()
    standby = open_standby(path)
    assert standby.readable
    with pytest.raises(ShardDamaged, match="replication"):
        standby.apply(history.records)
    standby.close()


def test_a_missing_directory_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="shard 3 cannot be opened"):
        open_standby(tmp_path / "nowhere" / "standby.db")


STEPS = st.one_of(
    st.tuples(st.just("fill"), st.integers(1, 40)),
    st.tuples(st.just("update"), st.integers(1, 40)),
    st.tuples(st.just("delete"), st.integers(2, 5)),
    st.tuples(st.just("vacuum"), st.just(0)),
    st.tuples(st.just("schema"), st.just(0)),
    st.tuples(st.just("drop"), st.just(0)),
    st.tuples(st.just("grow and free"), st.integers(1, 60)),
    st.tuples(st.just("spill and roll back"), st.integers(20, 60)),
    st.tuples(st.just("checkpoint primary"), st.just(0)),
    st.tuples(st.just("checkpoint standby"), st.just(0)),
    st.tuples(st.just("apply"), st.just(0)),
    st.tuples(st.just("reopen"), st.just(0)),
)


def take_step(history: History, step: str, size: int) -> None:
    if step == "fill":
        history.fill(size)
    elif step == "update":
        history.commit(f"UPDATE filling SET body = zeroblob({size * 100}) WHERE id % 7 = 0")
    elif step == "delete":
        history.commit(f"DELETE FROM filling WHERE id % {size} = 0")
    elif step == "vacuum":
        history.vacuum()
    elif step == "schema":
        name = f"t{len(history.records)}"
        history.commit(f"CREATE TABLE {name} (a, b)", f"CREATE INDEX {name}_a ON {name} (a)")
    elif step == "drop":
        history.commit("DROP TABLE filling", "CREATE TABLE filling (id INTEGER PRIMARY KEY, body BLOB)")
    elif step == "grow and free":
        history.commit(
            "CREATE TABLE passing (body)",
            lambda c: c.executemany("INSERT INTO passing VALUES (zeroblob(?))", [(9000,)] * size),
            "DROP TABLE passing",
        )
    elif step == "spill and roll back":
        history.connection.execute("PRAGMA cache_size=10")
        history.connection.execute("BEGIN IMMEDIATE")
        history.connection.executemany("INSERT INTO filling (body) VALUES (zeroblob(?))", [(4000,)] * size)
        history.connection.execute("ROLLBACK")
    elif step == "checkpoint primary":
        history.checkpoint()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(STEPS, max_size=25))
def test_any_history_applied_in_any_portions_ends_in_identical_files(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    directory = tmp_path_factory.mktemp("history")
    history = History(directory / "primary.db")
    history.fill(5)
    standby = open_standby(directory / "standby.db")
    for step, size in [*steps, ("apply", 0)]:
        take_step(history, step, size)
        if step == "apply":
            standby.apply(history.records)
            assert pages_of(standby.path) == pages_of(history.path)
        elif step == "checkpoint standby":
            standby.checkpoint()
        elif step == "reopen":
            standby.close()
            standby.reopen()
    assert_identical(standby, history)
    standby.close()
    history.close()
