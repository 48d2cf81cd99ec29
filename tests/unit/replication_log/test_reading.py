"""Reading from memory and from the disk, also while the log grows, is cut or dropped."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from agent_core.errors import LogDamaged, PositionCompacted
from agent_core.log.log import ReplicationLog
from agent_core.log.segment import HEADER_BYTES
from agent_core.position import Position
from tests.unit.log_harness import (
    RECORD_BYTES,
    SMALL_SEGMENT,
    block,
    blocks,
    encoded,
    open_log,
    record,
    segment_files,
)


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
