"""Cutting the log back, resetting it, and dropping what nobody needs any more."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from agent_core.errors import LogDamaged, PositionCompacted
from agent_core.log.log import ReplicationLog
from agent_core.log.segment import HEADER_BYTES, Segment
from agent_core.position import START, EpochStart, EpochTable, Position
from tests.unit.log_harness import (
    RECORD_BYTES,
    SMALL_SEGMENT,
    block,
    content,
    encoded,
    failing,
    open_log,
    segment_files,
)


@pytest.mark.parametrize("lsn", range(10))
def test_a_cut_takes_everything_after_it_and_lasts(directory: Path, small: ReplicationLog, lsn: int) -> None:
    to = Position(0 if lsn == 0 else 1 if lsn < 6 else 2, lsn)
    held = content(small)[: lsn * RECORD_BYTES]
    small.cut_back(to)
    assert (small.last, small.durable_lsn, content(small)) == (to, lsn, held)
    small.append(encoded(lsn + 1, epoch=3))
    assert content(small) == held + encoded(lsn + 1, epoch=3)
    assert small.sync() == lsn + 1
    epochs = small.epochs
    small.close()
    reopened = open_log(directory, segment_bytes=SMALL_SEGMENT)
    assert (content(reopened), reopened.epochs) == (held + encoded(lsn + 1, epoch=3), epochs)
    assert reopened.damage is None
    reopened.close()


def test_records_that_take_the_place_of_cut_ones_are_what_is_read_from_memory(log: ReplicationLog) -> None:
    log.append(block(1, 3))
    log.append(block(4, 6))
    log.cut_back(Position(1, 2))
    log.append(block(3, 6, epoch=2))
    assert content(log) == block(1, 2) + block(3, 6, epoch=2)
    assert log.disk_reads == 0


def test_after_a_cut_to_what_had_left_memory_new_records_are_kept_there_again(small: ReplicationLog) -> None:
    small.cut_back(Position(1, 2))
    small.append(encoded(3, epoch=3))
    assert small.read(2, 1000) is not None
    assert small.disk_reads == 0


def test_a_crash_amid_a_cut_leaves_an_unbroken_log(
    directory: Path, small: ReplicationLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = content(small)
    real = Path.unlink
    removed: list[Path] = []

    def remove_only_one(path: Path, missing_ok: bool = False) -> None:
        if removed:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        removed.append(path)
        real(path, missing_ok=missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", remove_only_one)
        with pytest.raises(OSError, match="Input/output"):
            small.cut_back(Position(1, 2))
    small.close()
    reopened = open_log(directory, segment_bytes=SMALL_SEGMENT)
    assert (content(reopened), reopened.damage) == (whole[: 8 * RECORD_BYTES], None)
    reopened.close()


def test_a_cut_leaves_no_byte_of_what_it_took(directory: Path, small: ReplicationLog) -> None:
    small.cut_back(Position(1, 2))
    (path,) = segment_files(directory)
    assert path.read_bytes()[HEADER_BYTES:] == block(1, 2) + bytes(2 * RECORD_BYTES)


@pytest.mark.parametrize("to", [Position(1, 7), Position(2, 5), Position(2, 10), Position(3, 9), Position(1, 0)])
def test_a_cut_to_a_place_that_the_log_does_not_hold_is_refused(small: ReplicationLog, to: Position) -> None:
    before = content(small)
    with pytest.raises(LogDamaged, match="cannot cut back"):
        small.cut_back(to)
    assert content(small) == before


def test_a_dropped_log_is_not_cut_back_past_its_base(small: ReplicationLog) -> None:
    small.drop_through(4)
    with pytest.raises(PositionCompacted):
        small.cut_back(Position(1, 3))
    small.cut_back(Position(1, 4))
    assert (small.base, small.last) == (Position(1, 4), Position(1, 4))


@pytest.mark.parametrize("base", [START, Position(1, 4), Position(4, 8), Position(9, 500)])
def test_a_reset_log_is_empty_begins_after_its_base_and_stays_so(
    directory: Path, small: ReplicationLog, base: Position
) -> None:
    small.reset(base)
    assert (small.base, small.last, small.durable_lsn, small.size_bytes) == (base, base, base.lsn, 0)
    assert len(segment_files(directory)) == 1
    small.append(block(base.lsn + 1, base.lsn + 6, epoch=9))
    small.sync()
    small.close()
    reopened = open_log(directory, segment_bytes=SMALL_SEGMENT)
    assert (reopened.base, content(reopened)) == (base, block(base.lsn + 1, base.lsn + 6, epoch=9))
    assert reopened.epochs == EpochTable(base, (EpochStart(9, base.lsn + 1),), Position(9, base.lsn + 6))
    with pytest.raises(PositionCompacted if base.lsn else LogDamaged):
        reopened.cut_back(Position(3, base.lsn - 1 if base.lsn else 0))
    reopened.close()


@pytest.mark.parametrize("base", [Position(1, 2), Position(9, 500)])
def test_a_crash_amid_a_reset_leaves_the_new_log(
    directory: Path, small: ReplicationLog, base: Position, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("agent_core.log.log.remove_segments", lambda _: None)
        small.reset(base)
    small.append(encoded(base.lsn + 1, epoch=9))
    small.close()
    assert len(segment_files(directory)) == 4
    reopened = open_log(directory, segment_bytes=SMALL_SEGMENT)
    assert (reopened.base, content(reopened), reopened.damage) == (base, encoded(base.lsn + 1, epoch=9), None)
    assert len(segment_files(directory)) == 1
    reopened.close()


@pytest.mark.parametrize(("lsn", "base_lsn"), [(0, 0), (3, 0), (4, 4), (7, 4), (8, 8), (9, 8), (100, 8)])
def test_whole_segments_are_dropped_that_hold_nothing_past_the_lsn(
    directory: Path, small: ReplicationLog, lsn: int, base_lsn: int
) -> None:
    whole = content(small)
    small.drop_through(lsn)
    assert small.base.lsn == base_lsn
    assert content(small) == whole[base_lsn * RECORD_BYTES :]
    assert small.size_bytes == len(whole) - base_lsn * RECORD_BYTES
    if base_lsn:
        with pytest.raises(PositionCompacted):
            small.read(base_lsn - 1, 1000)
        with pytest.raises(PositionCompacted):
            list(small.records(0))
        assert small.bytes_after(0) == small.size_bytes
    epochs = small.epochs
    small.close()
    reopened = open_log(directory, segment_bytes=SMALL_SEGMENT)
    assert (reopened.epochs, reopened.damage) == (epochs, None)
    reopened.close()


def test_epochs_that_the_log_no_longer_holds_are_folded_into_its_base(small: ReplicationLog) -> None:
    small.drop_through(4)
    assert small.epochs == EpochTable(Position(1, 4), (EpochStart(1, 5), EpochStart(2, 6)), Position(2, 9))
    small.drop_through(8)
    assert small.epochs == EpochTable(Position(2, 8), (EpochStart(2, 9),), Position(2, 9))
    small.cut_back(Position(2, 8))
    assert small.epochs == EpochTable(Position(2, 8), (), Position(2, 8))


def test_an_epoch_that_began_with_the_first_record_kept_is_not_counted_twice(directory: Path) -> None:
    log = open_log(directory, segment_bytes=SMALL_SEGMENT)
    log.append(block(1, 4, epoch=1))
    log.append(block(5, 6, epoch=2))
    log.drop_through(4)
    assert log.epochs == EpochTable(Position(1, 4), (EpochStart(2, 5),), Position(2, 6))
    log.close()


def test_what_is_dropped_while_a_block_is_appended_stays_dropped(
    small: ReplicationLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread drops; the append has looked at the log before and adds to it after."""
    write = Segment.write

    def drops_meanwhile(segment: Segment, data: bytes) -> None:
        small.drop_through(8)
        write(segment, data)

    whole = content(small) + encoded(10, epoch=3)
    with monkeypatch.context() as patched:
        patched.setattr(Segment, "write", drops_meanwhile)
        small.append(encoded(10, epoch=3))
    assert small.epochs == EpochTable(Position(2, 8), (EpochStart(2, 9), EpochStart(3, 10)), Position(3, 10))
    assert content(small) == whole[8 * RECORD_BYTES :]
    assert small.bytes_after(0) == small.size_bytes == len(whole) - 8 * RECORD_BYTES


def test_a_drop_that_failed_halfway_is_finished_by_the_next(
    directory: Path, small: ReplicationLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", failing(errno.EIO))
        with pytest.raises(OSError, match="Input/output"):
            small.drop_through(4)
    assert small.base.lsn == 4
    small.drop_through(8)
    assert [path.name for path in segment_files(directory)] == [f"{9:020d}.log"]


def test_a_drop_that_failed_before_a_reset_does_not_touch_the_new_log(
    directory: Path, small: ReplicationLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", failing(errno.EIO))
        with pytest.raises(OSError, match="Input/output"):
            small.drop_through(4)
    small.reset(START)
    small.append(block(1, 2))
    small.drop_through(0)
    assert [path.name for path in segment_files(directory)] == [f"{1:020d}.log"]
    assert content(small) == block(1, 2)
