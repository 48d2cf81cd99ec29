"""Appending and syncing, segment after segment, and coming back after a restart."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from agent_core.errors import LogDamaged, WrongCluster
from agent_core.log.log import ReplicationLog
from agent_core.log.record import Record, RecordKind
from agent_core.log.segment import HEADER_BYTES
from agent_core.position import START, EpochStart, EpochTable, Position
from tests.unit.log_harness import (
    CODEC,
    RECORD_BYTES,
    SMALL_SEGMENT,
    block,
    content,
    encoded,
    failing,
    open_log,
    segment_files,
    snapshot,
)


def test_a_new_log_is_empty_and_durable(log: ReplicationLog) -> None:
    assert (log.base, log.last, log.durable_lsn, log.first_lsn) == (START, START, 0, 1)
    assert (log.size_bytes, log.damage, log.torn_bytes) == (0, None, 0)
    assert log.read(0, 1000) is None
    assert log.epochs == EpochTable(START, (), START)


def test_an_appended_block_is_read_at_once_and_durable_after_a_sync(log: ReplicationLog) -> None:
    log.append(block(1, 3))
    assert (log.last, log.durable_lsn) == (Position(1, 3), 0)
    assert content(log) == block(1, 3)
    assert log.sync() == 3
    assert log.durable_lsn == 3


def test_a_block_that_is_read_whole_is_not_copied(log: ReplicationLog) -> None:
    appended = block(1, 3)
    log.append(appended)
    found = log.read(0, 1 << 20)
    assert found is not None
    assert found.data is appended


def test_a_sync_with_nothing_new_touches_no_disk(log: ReplicationLog) -> None:
    log.append(block(1, 1))
    log.sync()
    log.sync()
    assert log.syncs == 1


def test_what_is_appended_during_a_sync_is_not_taken_to_be_durable(
    log: ReplicationLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.append(block(1, 1))
    real = os.fdatasync

    def sync_while_more_comes(descriptor: int) -> None:
        log.append(block(2, 2))  # does not wait for the sync that is under way
        assert log.last.lsn == 2
        assert log.read(1, 1000) is not None
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", sync_while_more_comes)
    assert log.sync() == 1
    monkeypatch.setattr(os, "fdatasync", real)
    assert log.sync() == 2


def test_an_empty_block_changes_nothing(log: ReplicationLog) -> None:
    log.append(b"")
    assert log.last == START


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        (encoded(5, epoch=2), "its lsn must be 4"),
        (encoded(3, epoch=2), "its lsn must be 4"),
        (encoded(4, epoch=1), "its epoch is lower"),
        (encoded(4, epoch=2, group=1), "belongs to group 1"),
        (encoded(4, epoch=2) + encoded(6, epoch=2), "its lsn must be 5"),
        (encoded(4, epoch=3) + encoded(5, epoch=2), "its epoch is lower"),
        (encoded(4, epoch=2) + b"HWR1", "a record header takes"),
        (encoded(4, epoch=2)[:-1] + b"?", "its checksum is"),
        (encoded(4, epoch=2)[:-1], "are there"),
        (b"\0" * 100, "no record begins"),
    ],
)
def test_a_block_with_anything_that_does_not_follow_is_refused_whole(
    directory: Path, log: ReplicationLog, bad: bytes, complaint: str
) -> None:
    log.append(block(1, 3, epoch=2))
    files = snapshot(directory)
    with pytest.raises(LogDamaged, match=complaint):
        log.append(bad)
    assert (log.last, content(log)) == (Position(2, 3), block(1, 3, epoch=2))
    assert snapshot(directory) == files
    log.append(block(4, 4, epoch=2))


def test_who_has_just_encoded_a_block_may_spare_the_checksums(log: ReplicationLog) -> None:
    log.append(encoded(1)[:-1] + b"?", verify=False)
    assert log.last.lsn == 1


def test_the_table_of_epochs_grows_with_the_records(log: ReplicationLog) -> None:
    log.append(CODEC.encode(Record(RecordKind.EPOCH, 0, 0, Position(2, 1), 0, 0, b"")) + encoded(2, epoch=2))
    log.append(encoded(3, epoch=2) + encoded(4, epoch=5))
    assert log.epochs == EpochTable(START, (EpochStart(2, 1), EpochStart(5, 4)), Position(5, 4))


def test_a_full_segment_is_followed_by_another_named_by_its_first_lsn(
    directory: Path, small: ReplicationLog
) -> None:
    assert [path.name for path in segment_files(directory)] == [f"{lsn:020d}.log" for lsn in (1, 5, 9)]
    assert {path.stat().st_size for path in segment_files(directory)} == {SMALL_SEGMENT}


def test_a_log_has_room_for_what_its_last_segment_takes(directory: Path) -> None:
    log = open_log(directory, segment_bytes=SMALL_SEGMENT)
    assert log.has_room(4 * RECORD_BYTES)
    assert not log.has_room(4 * RECORD_BYTES + 1)
    log.append(block(1, 3))
    assert log.has_room(RECORD_BYTES)
    log.append(block(4, 4))
    assert not log.has_room(RECORD_BYTES)
    assert len(segment_files(directory)) == 1
    log.append(block(5, 5))
    assert log.has_room(3 * RECORD_BYTES)
    assert len(segment_files(directory)) == 2


def test_a_segment_is_durable_before_the_next_one_begins(directory: Path) -> None:
    log = open_log(directory, segment_bytes=SMALL_SEGMENT)
    log.append(block(1, 3))
    log.append(block(4, 5))
    assert (log.durable_lsn, log.last.lsn) == (3, 5)
    log.close()


@pytest.mark.parametrize("first_lsn", [1, 3])
def test_a_block_larger_than_a_segment_gets_one_that_fits_it(directory: Path, first_lsn: int) -> None:
    log = open_log(directory, segment_bytes=SMALL_SEGMENT)
    if first_lsn > 1:
        log.append(block(1, first_lsn - 1))
    large = block(first_lsn, first_lsn + 8)
    log.append(large)
    log.append(block(first_lsn + 9, first_lsn + 9))
    assert log.sync() == first_lsn + 9
    log.close()
    reopened = open_log(directory, segment_bytes=SMALL_SEGMENT)
    assert content(reopened) == block(1, first_lsn + 9)
    assert reopened.damage is None
    reopened.close()


def test_the_log_comes_back_as_it_was(directory: Path, small: ReplicationLog) -> None:
    before = (content(small), small.epochs, small.size_bytes)
    small.close()
    reopened = open_log(directory, segment_bytes=SMALL_SEGMENT)
    assert (content(reopened), reopened.epochs, reopened.size_bytes) == before
    assert (reopened.durable_lsn, reopened.damage, reopened.torn_bytes) == (9, None, 0)
    reopened.append(encoded(10, epoch=2))
    assert reopened.last == Position(2, 10)
    reopened.close()


def test_everything_recovered_is_synced_at_opening(
    directory: Path, small: ReplicationLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.close()
    monkeypatch.setattr(os, "fdatasync", failing(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        open_log(directory)


@pytest.mark.parametrize(("cluster_id", "group"), [("other", 0), ("cluster", 1)])
def test_the_log_of_another_cluster_or_group_is_refused_and_left_untouched(
    directory: Path, small: ReplicationLog, cluster_id: str, group: int
) -> None:
    small.close()
    with segment_files(directory)[1].open("r+b") as file:
        file.seek(HEADER_BYTES)
        file.write(b"damage that a recovery would repair")
    (directory / "00000000000000000099.new").write_bytes(b"a file that a recovery would remove")
    before = snapshot(directory)
    with pytest.raises(WrongCluster, match=r"durable\.mark belongs to"):
        ReplicationLog.open(directory, cluster_id=cluster_id, group=group)
    assert snapshot(directory) == before
