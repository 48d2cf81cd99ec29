"""A flipped byte or a torn tail is damage where a commit is at stake, and the end of the WAL where none is."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent_core.database.build import open_for_writing
from agent_core.database.wal import FRAME_HEADER_SIZE, FRAME_SIZE, HEADER_SIZE
from agent_core.errors import ShardDamaged
from primary.capture import FIRST_READ, FURTHER_READ, WalCapture
from tests.unit.capture.harness import INSERT, Shard, commit_three_frames, crash, flip, required, wal_of

ZONES = {
    "page number": range(4),
    "commit mark": range(4, 8),
    "salts": range(8, 16),
    "checksum": range(16, 24),
    "page": (24, 25, 2000, FRAME_SIZE - 1),
}
BYTES_OF_A_FRAME = [offset for zone in ZONES.values() for offset in zone]


@pytest.mark.parametrize("frame", range(3))
@pytest.mark.parametrize("at", BYTES_OF_A_FRAME)
def test_a_flipped_byte_anywhere_in_a_committed_frame_is_damage(shard: Shard, frame: int, at: int) -> None:
    offset = commit_three_frames(shard)
    flip(wal_of(shard.path), offset + frame * FRAME_SIZE + at)
    for _ in range(2):
        with pytest.raises(ShardDamaged, match=f"shard.db-wal, transaction at byte {offset}: "):
            shard.capture.capture()


@pytest.mark.parametrize("frame", [0, FIRST_READ - 1, FIRST_READ, FIRST_READ + FURTHER_READ, 99])
def test_damage_in_a_large_transaction_is_named_by_its_frame(shard: Shard, frame: int) -> None:
    shard.execute(*["INSERT INTO t (b) VALUES (randomblob(3000))"] * 110)
    offset = shard.capture.wal_bytes
    shard.connection.execute("UPDATE t SET b = randomblob(3000) WHERE a <= 100")
    flip(wal_of(shard.path), offset + frame * FRAME_SIZE + 1000)
    with pytest.raises(ShardDamaged, match=f"frame {frame + 1} of 100 contradicts its checksum"):
        shard.capture.capture()


@pytest.mark.parametrize("at", BYTES_OF_A_FRAME)
def test_a_flipped_byte_in_the_unread_tail_ends_the_wal_where_sqlite_ends_it(
    shard: Shard, tmp_path: Path, at: int
) -> None:
    offset = commit_three_frames(shard)
    path = crash(shard, tmp_path / "crashed")
    flip(wal_of(path), offset + FRAME_SIZE + at)
    restarted = Shard(path)
    assert restarted.pages == shard.pages  # SQLite shows the state before the damaged transaction
    assert restarted.capture.wal_bytes == offset
    required(restarted.execute(INSERT))
    restarted.assert_whole()
    restarted.close()


@pytest.mark.parametrize("at", range(HEADER_SIZE))
def test_a_flipped_byte_in_the_header_of_a_wal_in_use_is_damage(shard: Shard, at: int) -> None:
    commit_three_frames(shard)
    flip(wal_of(shard.path), at)
    for _ in range(2):
        with pytest.raises(ShardDamaged, match="WAL header"):
            shard.capture.capture()


@pytest.mark.parametrize("at", [*range(4), *range(8, HEADER_SIZE)])
def test_a_wal_whose_header_does_not_hold_at_the_start_counts_as_empty_as_for_sqlite(
    shard: Shard, tmp_path: Path, at: int
) -> None:
    shard.checkpoint("PASSIVE")
    shard.execute(INSERT)
    path = crash(shard, tmp_path / "crashed")
    flip(wal_of(path), at)
    restarted = Shard(path)
    assert restarted.capture.last_transaction() is None
    assert restarted.follow() is None
    required(restarted.execute(INSERT))
    restarted.assert_whole()
    restarted.close()


@pytest.mark.parametrize("cut", [1, FRAME_HEADER_SIZE, FRAME_SIZE - 1, FRAME_SIZE, 3 * FRAME_SIZE - 1])
def test_a_torn_tail_ends_the_wal_before_its_transaction(shard: Shard, tmp_path: Path, cut: int) -> None:
    offset = commit_three_frames(shard)
    path = crash(shard, tmp_path / "crashed")
    with wal_of(path).open("r+b") as file:
        file.truncate(offset + 3 * FRAME_SIZE - cut)
    restarted = Shard(path)
    assert restarted.capture.wal_bytes == offset
    assert restarted.pages == shard.pages
    required(restarted.execute(INSERT))
    restarted.assert_whole()
    restarted.close()


def test_a_commit_mark_that_vanished_is_found_by_the_next_capture(shard: Shard) -> None:
    offset = commit_three_frames(shard)
    mark = offset + 2 * FRAME_SIZE + 4
    with wal_of(shard.path).open("r+b") as file:
        file.seek(mark)
        file.write(bytes(4))
    assert shard.capture.capture() is None
    shard.connection.execute(INSERT)
    with pytest.raises(ShardDamaged, match="frame 3 of"):
        shard.capture.capture()


def test_a_shard_of_another_page_size_is_refused_by_name_and_value(tmp_path: Path) -> None:
    path = tmp_path / "shard.db"
    connection = open_for_writing(path)
    connection.execute("PRAGMA journal_mode=DELETE")
    connection.execute("PRAGMA page_size=1024")
    connection.execute("VACUUM")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE t (a)")
    capture = WalCapture(wal_of(path))
    connection.execute("CREATE TABLE u (a)")
    with pytest.raises(ShardDamaged, match="page size is 1024; allowed is 4096"):
        capture.capture()
    capture.close()
    connection.close()
