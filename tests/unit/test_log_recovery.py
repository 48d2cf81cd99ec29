"""What a log finds when it is opened after a crash, or after its files went bad: tried at every byte."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from agent_core.log import recovery
from agent_core.log.record import HEADER_BYTES as RECORD_HEADER_BYTES
from agent_core.log.record import MAGIC, RecordHeader, check_checksum
from agent_core.log.segment import HEADER_BYTES
from agent_core.position import START
from tests.unit.log_harness import RECORD_BYTES, block, content, encoded, open_log, segment_files

RECORDS = 5
SEGMENT_BYTES = HEADER_BYTES + (RECORDS + 1) * RECORD_BYTES
"""Room for one record is left: a change there hits nothing but zeros."""

Image = list[tuple[str, bytes]]
"""The segment files of a closed log, in order."""


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return build_image(tmp_path / "source", segments=1)


def build_image(directory: Path, *, segments: int) -> Image:
    log = open_log(directory, segment_bytes=SEGMENT_BYTES)
    last_lsn = 0
    for _ in range(segments):
        # Two such blocks do not fit into one segment.
        log.append(block(last_lsn + 1, last_lsn + RECORDS))
        last_lsn += RECORDS
    log.sync()
    log.close()
    return [(path.name, path.read_bytes()) for path in segment_files(directory)]


class Reopened:
    """What is found in a log whose files hold `image`; closed again after an append that must last."""

    def __init__(self, directory: Path, image: Image) -> None:
        directory.mkdir()
        for name, data in image:
            (directory / name).write_bytes(data)
        log = open_log(directory, segment_bytes=SEGMENT_BYTES)
        assert log.durable_lsn == log.last.lsn
        self.content = content(log)
        self.damage = log.damage
        self.torn_bytes = log.torn_bytes
        following = encoded(log.last.lsn + 1, epoch=8) + encoded(log.last.lsn + 2, epoch=8)
        log.append(following)
        log.sync()
        log.close()
        again = open_log(directory, segment_bytes=SEGMENT_BYTES)
        assert content(again) == self.content + following
        assert (again.damage, again.torn_bytes) == (None, 0)
        again.close()
        assert {path.suffix for path in directory.iterdir()} == {".log", ".mark"}


def whole_records_before(offset: int) -> int:
    return min(max(offset - HEADER_BYTES, 0) // RECORD_BYTES, RECORDS)


def test_a_file_cut_at_any_byte_keeps_the_records_before_the_cut(tmp_path: Path, image: Image) -> None:
    ((name, data),) = image
    for offset in range(len(data) + 1):
        found = Reopened(tmp_path / str(offset), [(name, data[:offset])])
        kept = whole_records_before(offset)
        assert found.content == block(1, kept), offset
        if offset < HEADER_BYTES:
            assert found.damage == f"{name} has a damaged header"
        else:
            assert found.damage is None
            torn = data[HEADER_BYTES + kept * RECORD_BYTES : offset]
            assert found.torn_bytes == len(torn.rstrip(b"\0"))


def test_a_tail_that_never_reached_the_disk_is_cut_at_the_first_bad_record(tmp_path: Path, image: Image) -> None:
    ((name, data),) = image
    for offset in range(HEADER_BYTES, len(data) + 1):
        torn = data[:offset] + bytes(len(data) - offset)
        found = Reopened(tmp_path / str(offset), [(name, torn)])
        assert found.content == block(1, whole_records_before(offset)), offset
        assert found.damage is None


def test_garbage_behind_the_last_record_is_cut_away(tmp_path: Path, image: Image) -> None:
    ((name, data),) = image
    for offset in range(HEADER_BYTES, len(data), 7):
        torn = data[:offset] + os.urandom(len(data) - offset)
        found = Reopened(tmp_path / str(offset), [(name, torn)])
        assert found.content == block(1, whole_records_before(offset)), offset
        assert found.damage is None


def test_a_byte_flipped_anywhere_ends_the_log_before_it_and_shows_unless_it_is_in_the_last_record(
    tmp_path: Path, image: Image
) -> None:
    ((name, data),) = image
    for offset in range(len(data)):
        flipped = bytearray(data)
        flipped[offset] ^= 0xFF
        found = Reopened(tmp_path / str(offset), [(name, bytes(flipped))])
        kept = whole_records_before(offset)
        if offset < HEADER_BYTES:
            assert (found.content, found.damage) == (b"", f"{name} has a damaged header")
            continue
        assert found.content == block(1, kept), offset
        assert (found.damage is not None) == (kept < RECORDS - 1), offset
        assert found.torn_bytes > 0


@pytest.mark.parametrize("cut", [True, False], ids=["cut", "flipped"])
@pytest.mark.parametrize("index", [0, 1])
def test_a_segment_that_went_bad_amid_the_log_ends_it_there_and_shows(
    tmp_path: Path, index: int, cut: bool
) -> None:
    whole = build_image(tmp_path / "source", segments=3)
    name, data = whole[index]
    for offset in range(0, HEADER_BYTES + RECORDS * RECORD_BYTES, 5):
        changed = bytearray(data[:offset] if cut else data)
        if not cut:
            changed[offset] ^= 1
        found = Reopened(tmp_path / str(offset), [*whole[:index], (name, bytes(changed)), *whole[index + 1 :]])
        assert found.content == block(1, index * RECORDS + whole_records_before(offset)), offset
        assert found.damage is not None


@pytest.mark.parametrize("later", [b"", encoded(3)], ids=["torn", "rotten"])
def test_an_older_record_in_the_frames_of_a_bad_one_is_not_taken_for_a_later_one_and_hides_none(
    tmp_path: Path, later: bytes
) -> None:
    log = open_log(tmp_path / "source")
    log.append(encoded(1) + encoded(2, frames=encoded(1) + os.urandom(100)) + later)
    log.close()
    ((name, data),) = ((path.name, path.read_bytes()) for path in segment_files(tmp_path / "source"))
    flipped = bytearray(data)
    flipped[HEADER_BYTES + RECORD_BYTES + RECORD_HEADER_BYTES + RECORD_BYTES + 10] ^= 1
    found = Reopened(tmp_path / "flipped", [(name, bytes(flipped))])
    assert found.content == encoded(1)
    assert (found.damage is not None) == bool(later)


def test_a_segment_that_is_missing_ends_the_log_before_it_and_shows(tmp_path: Path) -> None:
    first, second, third = build_image(tmp_path / "source", segments=3)
    found = Reopened(tmp_path / "gap", [first, third])
    assert found.content == block(1, RECORDS)
    assert found.damage == f"{third[0]} begins after 1:{2 * RECORDS}, but the log before it ends at 1:{RECORDS}"
    # Without its first segment a log looks like one whose front was dropped.
    later = Reopened(tmp_path / "front", [second, third])
    assert (later.content, later.damage) == (block(RECORDS + 1, 3 * RECORDS), None)


def test_a_segment_under_another_segments_name_is_damaged(tmp_path: Path, image: Image) -> None:
    ((_, data),) = image
    found = Reopened(tmp_path / "renamed", [(f"{7:020d}.log", data)])
    assert (found.content, found.damage) == (b"", f"{7:020d}.log has a damaged header")


def test_a_log_whose_every_segment_is_lost_begins_at_the_start_and_shows_it(tmp_path: Path, image: Image) -> None:
    ((name, _),) = image
    (tmp_path / "lost").mkdir()
    (tmp_path / "lost" / name).write_bytes(b"")
    log = open_log(tmp_path / "lost")
    assert (log.last, log.damage) == (START, f"{name} has a damaged header")
    log.close()


def test_a_segment_whose_creation_was_cut_short_is_removed(tmp_path: Path, image: Image) -> None:
    unfinished = (f"{RECORDS + 1:020d}.new", b"half a head")
    found = Reopened(tmp_path / "unfinished", [*image, unfinished])
    assert (found.content, found.damage) == (block(1, RECORDS), None)


def test_files_of_other_names_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "notes.txt").write_text("not ours")
    open_log(tmp_path / "log").close()
    assert (tmp_path / "log" / "notes.txt").read_text() == "not ours"


def test_a_bad_record_full_of_made_up_records_does_not_make_the_search_endless(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    claimed_frames = 100_000
    lengths = struct.pack(">III", 0, RECORD_HEADER_BYTES + claimed_frames, claimed_frames)
    claim = MAGIC + lengths + bytes(32) + b"\x01\x00"
    data = claim * 4000 + bytes(claimed_frames)
    checked_bytes = 0

    def count(buffer: bytes, offset: int, header: RecordHeader) -> None:
        nonlocal checked_bytes
        checked_bytes += header.length
        check_checksum(buffer, offset, header)

    monkeypatch.setattr(recovery, "check_checksum", count)
    assert not recovery._holds_record_beyond(data, 0, 0)
    assert len(data) < checked_bytes < 5 * len(data)
