"""What a commit left in the WAL is captured; frames that are not its own are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent_core.database.build import open_for_reading, open_for_writing
from agent_core.database.wal import HEADER_SIZE
from primary.capture import FIRST_READ, FURTHER_READ, WalCapture
from tests.unit.capture.harness import INSERT, Shard, required


def test_a_transaction_is_captured_with_all_its_statements(shard: Shard) -> None:
    transaction = required(shard.execute(INSERT, INSERT, "CREATE TABLE u (c)"))
    assert transaction.page_count == 3
    shard.assert_whole()


def test_each_transaction_is_captured_once(shard: Shard) -> None:
    required(shard.execute(INSERT))
    assert shard.capture.capture() is None


def test_a_transaction_that_changes_nothing_gives_none(shard: Shard) -> None:
    assert shard.execute("SELECT * FROM t") is None
    required(shard.execute(INSERT))


def test_a_wal_that_does_not_exist_yet_gives_none_until_something_is_written(tmp_path: Path) -> None:
    capture = WalCapture(tmp_path / "shard.db-wal")
    assert (capture.capture(), capture.last_transaction(), capture.wal_bytes) == (None, None, 0)
    connection = open_for_writing(tmp_path / "shard.db")
    assert capture.capture() is None  # the switch to WAL mode is written into the shard file itself
    connection.execute("CREATE TABLE t (a)")
    assert required(capture.capture()).page_count == 2
    connection.close()
    capture.close()


@pytest.mark.parametrize("blobs", [FIRST_READ - 2, FIRST_READ, FURTHER_READ + FIRST_READ, 3 * FURTHER_READ])
def test_a_transaction_of_any_size_is_captured_whole(shard: Shard, blobs: int) -> None:
    transaction = required(shard.execute(*["INSERT INTO t (b) VALUES (randomblob(4000))"] * blobs))
    assert transaction.frame_count >= blobs
    shard.assert_whole()


@pytest.mark.parametrize("frame_count", [*range(1, 2 * FIRST_READ + 2), FIRST_READ + FURTHER_READ])
def test_the_end_of_a_transaction_is_found_on_either_side_of_a_read(shard: Shard, frame_count: int) -> None:
    shard.execute(*["INSERT INTO t (b) VALUES (zeroblob(3000))"] * (FIRST_READ + FURTHER_READ + 10))
    transaction = required(shard.execute(f"UPDATE t SET b = randomblob(3000) WHERE a <= {frame_count}"))
    assert transaction.frame_count == frame_count
    shard.assert_whole()
    required(shard.execute(INSERT))
    shard.assert_whole()


def test_a_page_spilled_and_changed_again_is_captured_as_it_was_committed(shard: Shard) -> None:
    shard.connection.execute("PRAGMA cache_size=5")
    statements = ["INSERT INTO t (b) VALUES (randomblob(3000))"] * 60
    transaction = required(shard.execute(*statements, "UPDATE t SET b = 'short' WHERE a < 30", *statements))
    assert transaction.frame_count > 60
    shard.assert_whole()


def test_vacuum_is_captured_as_the_transaction_that_shrinks_the_database(shard: Shard) -> None:
    shard.execute(*["INSERT INTO t (b) VALUES (randomblob(4000))"] * 50)
    shard.execute("DELETE FROM t WHERE a > 3")
    before = len(shard.pages)
    shard.connection.execute("VACUUM")
    assert required(shard.follow()).page_count < before
    shard.assert_whole()


def test_frames_of_a_rolled_back_transaction_are_not_captured(shard: Shard) -> None:
    shard.spill_and_roll_back()
    assert shard.capture.capture() is None


def test_a_transaction_written_over_a_rolled_back_one_is_captured_alone(shard: Shard) -> None:
    shard.spill_and_roll_back()
    assert required(shard.execute(INSERT)).frame_count <= 2
    shard.assert_whole()
    assert shard.capture.capture() is None  # what is left of the rolled-back frames does not chain
    required(shard.execute(*[INSERT] * 100))
    shard.assert_whole()


@pytest.mark.parametrize("mode", ["PASSIVE", "FULL", "RESTART", "TRUNCATE"])
def test_a_restarted_wal_is_read_from_its_start_and_not_into_the_former_run(shard: Shard, mode: str) -> None:
    for _ in range(5):
        shard.execute(*["INSERT INTO t (b) VALUES (randomblob(4000))"] * 5)
    long_before = shard.capture.wal_bytes
    busy, _, _ = shard.checkpoint(mode)
    assert busy == 0
    assert shard.capture.capture() is None
    transaction = required(shard.execute(INSERT))
    assert shard.capture.wal_bytes == HEADER_SIZE + len(transaction.frames) < long_before
    assert shard.capture.capture() is None
    shard.assert_whole()


def test_a_rolled_back_transaction_that_restarted_the_wal_leaves_nothing_to_capture(shard: Shard) -> None:
    shard.execute(*[INSERT] * 50)
    shard.checkpoint("RESTART")
    shard.spill_and_roll_back()
    assert shard.capture.capture() is None
    assert shard.capture.last_transaction() is None
    required(shard.execute(INSERT))
    shard.assert_whole()


def test_a_reader_that_holds_the_wal_back_does_not_disturb_capture(shard: Shard) -> None:
    reader = open_for_reading(shard.path)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM t").fetchone()
    for _ in range(3):
        required(shard.execute(INSERT))
        shard.checkpoint("PASSIVE")
    reader.close()
    shard.checkpoint("PASSIVE")
    required(shard.execute(INSERT))
    shard.assert_whole()
