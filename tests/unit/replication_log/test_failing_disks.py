"""What a failing disk does to the log, and what the log refuses afterwards."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agent_core.errors import LogDamaged, Unavailable
from agent_core.log.log import ReplicationLog
from agent_core.log.segment import SegmentHeader
from agent_core.position import START, Position
from tests.unit.log_harness import (
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


def test_after_a_failed_sync_the_log_goes_on_only_once_it_is_opened_again(
    directory: Path, log: ReplicationLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.append(block(1, 2))
    log.sync()
    log.append(block(3, 3))
    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", failing(errno.EIO))
        with pytest.raises(OSError, match="Input/output"):
            log.sync()
    for attempt in (
        log.sync,
        lambda: log.append(block(4, 4)),
        lambda: log.cut_back(Position(1, 2)),
        lambda: log.reset(START),
    ):
        with pytest.raises(LogDamaged, match=r"could not be made durable: .*until the log is opened again"):
            attempt()
    assert (log.durable_lsn, log.last.lsn) == (2, 3)
    assert content(log) == block(1, 3)
    log.close()
    reopened = open_log(directory)
    assert (reopened.durable_lsn, content(reopened)) == (3, block(1, 3))
    reopened.close()


def test_a_failed_sync_at_the_end_of_a_segment_stops_the_log_too(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_log(directory, segment_bytes=SMALL_SEGMENT)
    log.append(block(1, 4))
    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", failing(errno.EIO))
        with pytest.raises(OSError, match="Input/output"):
            log.append(block(5, 5))
    with pytest.raises(LogDamaged, match="could not be made durable"):
        log.append(block(5, 5))
    log.close()


def test_a_full_disk_leaves_the_log_as_it_was_and_it_goes_on_when_there_is_room(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_log(directory, segment_bytes=SMALL_SEGMENT)
    log.append(block(1, 4))
    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", failing(errno.ENOSPC))
        with pytest.raises(OSError, match="No space left"):
            log.append(block(5, 5))
        with pytest.raises(OSError, match="No space left"):
            log.reset(Position(5, 50))
    assert (log.last.lsn, content(log)) == (4, block(1, 4))
    assert segment_files(directory) == [directory / f"{1:020d}.log"]
    log.append(block(5, 5))
    assert log.sync() == 5
    log.close()


@pytest.mark.parametrize("room", [True, False])
def test_a_write_that_failed_halfway_leaves_nothing_that_could_be_read_as_a_record(
    directory: Path, monkeypatch: pytest.MonkeyPatch, room: bool
) -> None:
    log = open_log(directory)
    log.append(block(1, 2))
    real = os.pwrite

    def write_two_records_then_fail(descriptor: int, data: bytes, offset: int) -> int:
        if len(data) == 3 * RECORD_BYTES:
            return real(descriptor, data[: 2 * RECORD_BYTES], offset)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", write_two_records_then_fail)
        if not room:
            patched.setattr(os, "posix_fallocate", failing(errno.ENOSPC))
        with pytest.raises(OSError, match="Input/output"):
            log.append(block(3, 5))
    assert (log.last.lsn, content(log)) == (2, block(1, 2))
    log.append(encoded(3, epoch=2))
    log.close()
    reopened = open_log(directory)
    assert content(reopened) == block(1, 2) + encoded(3, epoch=2)
    assert (reopened.damage, reopened.torn_bytes) == (None, 0)
    reopened.close()


def test_a_write_that_can_neither_be_finished_nor_taken_back_stops_the_log(
    log: ReplicationLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", failing(errno.EIO))
        patched.setattr(os, "ftruncate", failing(errno.EIO))
        with pytest.raises(OSError, match="Input/output"):
            log.append(block(1, 1))
    with pytest.raises(LogDamaged, match="so did taking it back"):
        log.append(block(1, 1))


def test_a_write_that_the_system_cuts_short_is_continued(
    log: ReplicationLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: real(descriptor, data[:7], offset))
    log.append(block(1, 3))
    monkeypatch.undo()
    assert log._contents.segments[0].read(0, 3 * RECORD_BYTES) == block(1, 3)


@pytest.mark.parametrize(
    "change", [lambda log: log.cut_back(Position(1, 1)), lambda log: log.reset(Position(7, 7))]
)
def test_a_cut_or_reset_that_failed_halfway_stops_the_log(
    small: ReplicationLog, monkeypatch: pytest.MonkeyPatch, change: Callable[[ReplicationLog], None]
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("agent_core.log.segment.sync_directory", failing(errno.EIO))
        patched.setattr("agent_core.log.recovery.sync_directory", failing(errno.EIO))
        with pytest.raises(OSError, match="Input/output"):
            change(small)
    assert small.durable_lsn <= small.last.lsn
    with pytest.raises(LogDamaged, match="until the log is opened again"):
        small.append(encoded(2, epoch=9))


def test_a_closed_log_takes_nothing_more_and_closes_twice(log: ReplicationLog) -> None:
    log.append(block(1, 1))
    log.close()
    log.close()
    for attempt in (log.sync, lambda: log.append(block(2, 2)), lambda: log.cut_back(START)):
        with pytest.raises(Unavailable, match="is closed"):
            attempt()


def test_a_segment_of_a_later_format_is_refused_and_left_untouched(
    directory: Path, log: ReplicationLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_core.log.segment.FORMAT_VERSION", 2)
    header = SegmentHeader(1, START).encode(log._identity)
    monkeypatch.undo()
    with segment_files(directory)[0].open("r+b") as file:
        file.write(header)
    before = snapshot(directory)
    with pytest.raises(LogDamaged, match="format version 2; this build reads version 1"):
        open_log(directory)
    assert snapshot(directory) == before
