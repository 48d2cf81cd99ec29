"""Opening a WAL that is there already: after a clean end, after a crash."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from agent_core.database.build import open_for_reading
from primary.capture import WalCapture
from tests.unit.capture.harness import INSERT, Shard, apply, crash, pages_of, required, wal_of


def test_after_a_crash_what_is_in_the_wal_is_not_captured_again(shard: Shard, tmp_path: Path) -> None:
    shard.execute(INSERT)
    restarted = Shard(crash(shard, tmp_path / "crashed"))
    assert restarted.capture.wal_bytes == shard.capture.wal_bytes
    assert restarted.follow() is None
    required(restarted.execute(INSERT))
    restarted.assert_whole()
    restarted.close()


@pytest.mark.parametrize("blobs", [1, 100])
def test_a_transaction_that_was_committed_but_not_captured_before_a_crash_is_the_last(
    shard: Shard, tmp_path: Path, blobs: int
) -> None:
    shard.connection.execute("BEGIN")
    for _ in range(blobs):
        shard.connection.execute("INSERT INTO t (b) VALUES (randomblob(4000))")
    shard.connection.execute("COMMIT")
    restarted = Shard(crash(shard, tmp_path / "crashed"))
    last = required(restarted.capture.last_transaction())
    apply(last, shard.pages)
    assert shard.pages == pages_of(restarted.path)
    assert last == shard.capture.capture()
    restarted.close()


def test_the_last_transaction_is_the_one_just_captured(shard: Shard) -> None:
    transaction = shard.execute(INSERT)
    assert shard.capture.last_transaction() == transaction
    assert shard.execute("SELECT 1") is None
    assert shard.capture.last_transaction() == transaction


def test_after_a_truncating_checkpoint_there_is_no_last_transaction(shard: Shard) -> None:
    shard.execute(INSERT)
    shard.checkpoint("TRUNCATE")
    assert shard.capture.last_transaction() is None


def test_a_truncating_checkpoint_frees_the_wal_unless_a_reader_is_in_its_way(shard: Shard) -> None:
    shard.execute(INSERT)
    in_use = shard.capture.wal_bytes
    assert in_use == wal_of(shard.path).stat().st_size
    reader = open_for_reading(shard.path)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM t").fetchone()
    shard.connection.execute("PRAGMA busy_timeout=0")
    assert shard.checkpoint("TRUNCATE")[0] == 1
    assert shard.capture.wal_bytes == in_use
    reader.close()
    assert shard.checkpoint("TRUNCATE")[0] == 0
    assert shard.capture.wal_bytes == 0


def test_after_a_clean_end_there_is_no_last_transaction(shard: Shard) -> None:
    shard.close()
    restarted = Shard(shard.path)
    assert restarted.capture.last_transaction() is None
    required(restarted.execute(INSERT))
    restarted.assert_whole()
    restarted.close()


def test_frames_without_their_commit_mark_at_the_end_are_not_the_last_transaction(
    shard: Shard, tmp_path: Path
) -> None:
    transaction = shard.execute(INSERT)
    shard.spill_and_roll_back()
    restarted = Shard(crash(shard, tmp_path / "crashed"))
    assert restarted.capture.last_transaction() == transaction
    required(restarted.execute(INSERT))
    restarted.assert_whole()
    restarted.close()


@pytest.mark.parametrize("last_frames", [2, 5, 20])
def test_a_transaction_that_a_crash_kept_out_of_a_living_index_is_stepped_back_over(
    shard: Shard, tmp_path: Path, last_frames: int
) -> None:
    shard.execute(*["INSERT INTO t (b) VALUES (randomblob(3000))"] * 20)
    twin = Shard(crash(shard, tmp_path / "twin"))
    twin.execute(f"UPDATE t SET b = randomblob(3000) WHERE a <= {last_frames}")
    # Written to the file, never entered in the index, which the open connection keeps alive.
    shutil.copyfile(wal_of(twin.path), wal_of(shard.path))
    shard.capture.close()
    shard.capture = WalCapture(wal_of(shard.path))
    assert shard.capture.wal_bytes == twin.capture.wal_bytes
    required(shard.execute("UPDATE t SET b = randomblob(3000) WHERE a <= 5"))
    shard.assert_whole()
    required(shard.execute(INSERT))
    shard.assert_whole()
    twin.close()


@pytest.mark.parametrize("before", [1, 30])
def test_beside_an_open_connection_the_file_s_end_is_the_wal_s(shard: Shard, before: int) -> None:
    for _ in range(before):
        shard.execute(INSERT)
    shard.capture.close()
    shard.capture = WalCapture(wal_of(shard.path), in_use=True)
    assert shard.capture.wal_bytes == wal_of(shard.path).stat().st_size
    for _ in range(3):
        required(shard.execute(INSERT))
        shard.assert_whole()


@pytest.mark.parametrize("after", [1, 2, 12])
def test_the_end_of_a_wal_that_began_anew_is_found_before_what_is_left_of_the_old(shard: Shard, after: int) -> None:
    for _ in range(30):
        shard.execute(INSERT)
    shard.checkpoint("PASSIVE")
    for _ in range(after):
        shard.execute(INSERT)
    known = shard.capture.wal_bytes
    assert known < wal_of(shard.path).stat().st_size
    shard.capture.close()
    shard.capture = WalCapture(wal_of(shard.path), in_use=True)
    assert shard.capture._end_is_presumed
    assert shard.capture.wal_bytes == known
    for _ in range(3):
        required(shard.execute(INSERT))
        shard.assert_whole()


@pytest.mark.parametrize("blobs", [1, 100])
def test_what_was_rolled_back_at_the_end_of_a_wal_in_use_is_not_captured(shard: Shard, blobs: int) -> None:
    shard.execute(INSERT)
    shard.spill_and_roll_back()
    shard.capture.close()
    shard.capture = WalCapture(wal_of(shard.path), in_use=True)
    required(shard.execute(*["INSERT INTO t (b) VALUES (randomblob(4000))"] * blobs))
    shard.assert_whole()


@pytest.mark.parametrize("frames", [1, 2, 7])
def test_a_wrongly_presumed_end_is_noticed_by_the_first_capture(shard: Shard, tmp_path: Path, frames: int) -> None:
    shard.execute(*["INSERT INTO t (b) VALUES (randomblob(3000))"] * 20)
    twin = Shard(crash(shard, tmp_path / "twin"))
    twin.execute("UPDATE t SET b = randomblob(3000) WHERE a <= 4")
    # Written to the file, never entered in the index, which the open connection keeps alive.
    shutil.copyfile(wal_of(twin.path), wal_of(shard.path))
    shard.capture.close()
    shard.capture = WalCapture(wal_of(shard.path), in_use=True)
    assert shard.capture.wal_bytes == twin.capture.wal_bytes
    required(shard.execute(f"UPDATE t SET b = randomblob(3000) WHERE a <= {frames}"))
    shard.assert_whole()
    required(shard.execute(INSERT))
    shard.assert_whole()
    twin.close()


def test_a_checkpoint_before_the_first_capture_does_not_mislead_it(shard: Shard) -> None:
    shard.execute(INSERT)
    shard.capture.close()
    shard.capture = WalCapture(wal_of(shard.path), in_use=True)
    shard.checkpoint("TRUNCATE")
    required(shard.execute(INSERT))
    shard.assert_whole()


def test_the_last_transaction_of_a_wal_in_use_is_found(shard: Shard) -> None:
    shard.execute(INSERT)
    transaction = shard.execute(INSERT)
    shard.capture.close()
    shard.capture = WalCapture(wal_of(shard.path), in_use=True)
    assert shard.capture.last_transaction() == transaction
    required(shard.execute(INSERT))
    shard.assert_whole()
