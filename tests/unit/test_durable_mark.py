"""How far a log once reached is remembered: what rots at its end is not taken for what was never written."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_core.log.durable_mark import MARK_FILE, LogEnd
from agent_core.log.segment import HEADER_BYTES
from agent_core.position import START, Position
from tests.unit.log_harness import RECORD_BYTES, block, encoded, open_log, segment_files

positions = st.builds(Position, st.integers(0, 4), st.integers(0, 40))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A log that held five records with fsync and whose last one has rotted."""
    directory = tmp_path / "log"
    log = open_log(directory)
    log.append(block(1, 5))
    log.note_committed(4)
    log.sync()
    log.close()
    rot(directory, record=5)
    return directory


def rot(directory: Path, *, record: int) -> None:
    with segment_files(directory)[0].open("r+b") as file:
        file.seek(HEADER_BYTES + (record - 1) * RECORD_BYTES + 60)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))


def test_rot_in_the_very_last_record_is_told_from_a_torn_tail(directory: Path) -> None:
    log = open_log(directory)
    assert log.damage is None
    assert log.end == LogEnd(held=Position(1, 4), marked=Position(1, 5))
    assert log.end.lost
    log.close()


def test_a_tail_that_was_never_synced_is_no_loss(tmp_path: Path) -> None:
    log = open_log(tmp_path / "log")
    log.append(block(1, 4))
    log.sync()
    log.append(encoded(5))
    log.close()
    rot(tmp_path / "log", record=5)
    again = open_log(tmp_path / "log")
    assert (again.end, again.torn_bytes > 0) == (LogEnd(Position(1, 4), Position(1, 4)), True)
    again.close()


def test_the_mark_survives_a_process_that_never_closed_its_log(tmp_path: Path) -> None:
    killed = open_log(tmp_path / "log")
    killed.append(block(1, 5))
    killed.sync()
    rot(tmp_path / "log", record=5)
    again = open_log(tmp_path / "log")
    assert again.end.lost
    again.close()
    killed.close()


def test_a_loss_is_remembered_over_restarts_until_the_log_holds_as_much_again(directory: Path) -> None:
    log = open_log(directory)
    log.sync()
    log.close()
    log = open_log(directory)
    assert log.end.lost
    log.append(encoded(5))
    log.sync()
    assert log.end == LogEnd(Position(1, 5), Position(1, 5))
    log.close()


def test_a_later_epoch_ends_the_loss_at_whatever_lsn(directory: Path) -> None:
    log = open_log(directory)
    log.cut_back(Position(1, 2))
    assert log.end == LogEnd(Position(1, 2), Position(1, 5))
    log.append(encoded(3, epoch=2))
    log.sync()
    assert log.end == LogEnd(Position(2, 3), Position(2, 3))
    log.close()


def test_beginning_anew_does_not_make_a_loss_forgotten(directory: Path) -> None:
    log = open_log(directory)
    log.reset(Position(1, 3))
    assert log.end == LogEnd(Position(1, 3), Position(1, 5))
    log.reset(Position(1, 9))
    assert not log.end.lost
    log.close()


@pytest.mark.parametrize("to", [Position(1, 2), START])
def test_a_cut_on_purpose_is_no_loss(tmp_path: Path, to: Position) -> None:
    log = open_log(tmp_path / "log")
    log.append(block(1, 5))
    log.sync()
    log.cut_back(to)
    log.close()
    again = open_log(tmp_path / "log")
    assert again.end == LogEnd(to, to)
    again.close()


def test_what_is_committed_is_known_again_after_a_restart(directory: Path) -> None:
    log = open_log(directory)
    assert log.noted_committed_lsn == 4
    log.close()


def test_a_lost_log_is_told_too(directory: Path) -> None:
    segment_files(directory)[0].unlink()
    log = open_log(directory)
    assert log.end == LogEnd(START, Position(1, 5))
    log.close()


def test_a_damaged_mark_counts_as_none_and_is_told_whichever_byte_is_bad(directory: Path) -> None:
    path = directory / MARK_FILE
    good = path.read_bytes()
    for offset in range(len(good)):
        path.write_bytes(good[:offset] + bytes([good[offset] ^ 1]) + good[offset + 1 :])
        log = open_log(directory)
        assert log.mark_damage is not None
        assert not log.end.lost
        log.close()
        again = open_log(directory)
        assert again.mark_damage is None
        again.close()


@given(positions, positions)
def test_a_voter_votes_as_though_it_still_held_what_it_lost(held: Position, marked: Position) -> None:
    end = LogEnd(held, marked)
    assert end.for_votes == max(held, marked)
    assert end.lost == (end.for_votes > held)
