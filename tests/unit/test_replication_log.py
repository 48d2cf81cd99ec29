"""The log as its users see it: append, sync, read, cut back, reset, drop; and what a failing disk does to it."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent_core.errors import LogDamaged, PositionCompacted, Unavailable, WrongCluster
from agent_core.log.log import ReplicationLog
from agent_core.log.record import Record, RecordKind
from agent_core.log.segment import HEADER_BYTES, SegmentHeader
from agent_core.position import START, EpochStart, EpochTable, Position
from tests.unit.log_harness import (
    CODEC,
    RECORD_BYTES,
    block,
    blocks,
    content,
    encoded,
    open_log,
    record,
    segment_files,
)

SMALL_SEGMENT = HEADER_BYTES + 4 * RECORD_BYTES
"""Four records fit."""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "group-000"


@pytest.fixture
def log(directory: Path) -> Iterator[ReplicationLog]:
    opened = open_log(directory)
    yield opened
    opened.close()


@pytest.fixture
def small(directory: Path) -> Iterator[ReplicationLog]:
    """Nine records of two epochs in three segments, each appended by itself; only the newest is in memory."""
    opened = open_log(directory, segment_bytes=SMALL_SEGMENT, tail_bytes=RECORD_BYTES)
    for lsn in range(1, 10):
        opened.append(encoded(lsn, epoch=1 if lsn < 6 else 2))
    yield opened
    opened.close()


def snapshot(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def failing(code: int) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


# --- appending and syncing


def test_a_new_log_is_empty_and_durable(log: ReplicationLog) -> None:
    assert (log.base, log.last, log.durable_lsn, log.first_lsn) == (START, START, 0, 1)
    assert (log.size_bytes, log.segment_count, log.damage, log.torn_bytes) == (0, 1, None, 0)
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


# --- segments


def test_a_full_segment_is_followed_by_another_named_by_its_first_lsn(
    directory: Path, small: ReplicationLog
) -> None:
    assert [path.name for path in segment_files(directory)] == [f"{lsn:020d}.log" for lsn in (1, 5, 9)]
    assert {path.stat().st_size for path in segment_files(directory)} == {SMALL_SEGMENT}
    assert small.segment_count == 3


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


# --- reading


@pytest.mark.parametrize("max_bytes", [0, 1, RECORD_BYTES, RECORD_BYTES * 2, RECORD_BYTES * 2 + 1, 1 << 20])
@pytest.mark.parametrize("tail_bytes", [0, RECORD_BYTES * 3, 1 << 20])
def test_a_read_gives_whole_records_within_the_limit_but_at_least_one(
    directory: Path, max_bytes: int, tail_bytes: int
) -> None:
    log = open_log(directory, segment_bytes=SMALL_SEGMENT, tail_bytes=tail_bytes)
    for first in (1, 4, 7):
        log.append(block(first, first + 2))
    pieces = list(blocks(log, max_bytes=max_bytes))
    assert b"".join(pieces) == block(1, 9)
    assert all(len(piece) <= max(max_bytes, RECORD_BYTES) for piece in pieces)
    assert log.read(9, max_bytes) is None
    assert log.read(12, max_bytes) is None
    log.close()


def test_only_what_left_memory_is_read_from_the_disk(small: ReplicationLog) -> None:
    assert small.read(8, 1000) is not None
    assert small.disk_reads == 0
    assert small.read(7, RECORD_BYTES) is not None
    assert small.disk_reads == 1


def test_rot_that_comes_after_opening_is_found_by_a_read(directory: Path, small: ReplicationLog) -> None:
    with segment_files(directory)[0].open("r+b") as file:
        file.seek(HEADER_BYTES + RECORD_BYTES * 2 - 1)
        file.write(b"?")
    assert small.read(0, RECORD_BYTES) is not None
    with pytest.raises(LogDamaged, match=r"00000000000000000001\.log, lsn 1 to 4: .*its checksum is"):
        small.read(0, 1000)


def test_a_segment_file_that_was_taken_away_or_cut_short_is_damage(directory: Path, small: ReplicationLog) -> None:
    first, second, _ = segment_files(directory)
    first.unlink()
    os.truncate(second, HEADER_BYTES + 1)
    with pytest.raises(LogDamaged, match="No such file"):
        small.read(0, 1000)
    with pytest.raises(LogDamaged, match="ends amid its records"):
        small.read(4, 1000)


def test_records_are_replayed_in_order(small: ReplicationLog) -> None:
    expected = [record(lsn, epoch=1 if lsn < 6 else 2) for lsn in range(4, 10)]
    assert list(small.records(3)) == expected


def test_the_bytes_behind_a_reader_are_exact_at_every_record(small: ReplicationLog) -> None:
    assert [small.bytes_after(lsn) for lsn in range(11)] == [RECORD_BYTES * max(9 - lsn, 0) for lsn in range(11)]
    assert small.size_bytes == 9 * RECORD_BYTES


def test_a_reader_on_another_thread_sees_every_record_once_while_the_log_grows_and_is_synced(
    directory: Path,
) -> None:
    log = open_log(directory, segment_bytes=2000, tail_bytes=500)
    total, seen, problems = 150, [], []

    def follow() -> None:
        after_lsn = 0
        try:
            while after_lsn < total:
                found = log.read(after_lsn, 300)
                if found is not None:
                    seen.append(found.data)
                    after_lsn = found.last_lsn
        except Exception as error:
            problems.append(error)

    def keep_syncing() -> None:
        try:
            while log.sync() < total:
                pass
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=follow), threading.Thread(target=keep_syncing)]
    for thread in threads:
        thread.start()
    for lsn in range(1, total + 1):
        log.append(encoded(lsn))
    for thread in threads:
        thread.join(timeout=30)
        assert not thread.is_alive()
    assert problems == []
    assert b"".join(seen) == block(1, total)
    assert log.durable_lsn == total
    log.close()


def test_a_cut_while_the_file_is_read_makes_the_reader_look_again(
    small: ReplicationLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = small._contents.segments[0]
    read_file = type(segment).read

    def read_amid_a_cut(self: object, start: int, stop: int) -> bytes:
        monkeypatch.undo()
        data = read_file(segment, start, stop)
        small.cut_back(Position(1, 2))
        return data

    monkeypatch.setattr(type(segment), "read", read_amid_a_cut)
    found = small.read(0, 1000)
    assert found is not None
    assert found.data == block(1, 2)


def test_a_segment_dropped_while_it_is_read_is_compacted_not_damaged(
    small: ReplicationLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = small._contents.segments[0]
    read_file = type(segment).read

    def read_after_a_drop(self: object, start: int, stop: int) -> bytes:
        monkeypatch.undo()
        small.drop_through(4)
        return read_file(segment, start, stop)

    monkeypatch.setattr(type(segment), "read", read_after_a_drop)
    with pytest.raises(PositionCompacted):
        small.read(0, 1000)


# --- cutting back, resetting, dropping


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


# --- disks that fail


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
