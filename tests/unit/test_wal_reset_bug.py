"""No interleaving of a writer and checkpoints beside it meets SQLite's WAL-reset bug.

The model has what matters of `wal.c` up to SQLite 3.51.2: a transaction begins the WAL anew if it found everything
moved when it began; a checkpoint looks at the WAL's length first, and copies and notes how far later, without
looking again.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

from agent_core.database.checkpoints import WalBacklog

SCHEDULES = st.lists(st.booleans(), max_size=80)
"""Who does the next step: the writer, or else the checkpoints."""


class Wal:
    """One shard's WAL; every `yield` is a place where the other thread may run."""

    def __init__(self, *, careful: bool) -> None:
        self.backlog = WalBacklog.of_opened(0, 0)
        self.frames = 0
        self.moved = 0
        self.times_begun_anew = 0
        self.is_read_without_frames = False
        self.went_wrong = False
        self._careful = careful

    def transactions(self) -> Iterator[None]:
        lsn = 0
        while True:
            self.backlog.begins()
            yield
            self.is_read_without_frames = self.moved == self.frames
            yield
            if self.is_read_without_frames and self.moved:
                self.frames = self.moved = 0
                self.times_begun_anew += 1
            self.frames += 1
            lsn += 1
            self.is_read_without_frames = False
            yield
            self.backlog.wrote(1, lsn)
            yield

    def checkpoints(self) -> Iterator[None]:
        while True:
            if self._careful and not self.backlog.lacks_some_for_certain:
                yield
                continue
            yield
            began_at = self.backlog.written
            yield
            found, anew = self.frames, self.times_begun_anew
            yield
            if self.moved < found and not self.is_read_without_frames:
                self.went_wrong |= anew != self.times_begun_anew
                self.moved = found
            yield
            moved_all = self.moved == found
            self.backlog.has_run()
            yield
            self.backlog.ended(began_at, moved_all=moved_all)


def run(schedule: list[bool], *, careful: bool) -> Wal:
    wal = Wal(careful=careful)
    threads = {True: wal.transactions(), False: wal.checkpoints()}
    for writer in schedule:
        next(threads[writer])
    return wal


@settings(max_examples=1000)
@given(SCHEDULES)
def test_no_interleaving_notes_frames_as_moved_that_are_not(schedule: list[bool]) -> None:
    assert not run(schedule, careful=True).went_wrong


def test_without_care_the_model_meets_the_bug() -> None:
    found = find(SCHEDULES, lambda schedule: run(schedule, careful=False).went_wrong)
    assert not run(found, careful=True).went_wrong


@pytest.mark.parametrize("steps", [3, 5, 7])
def test_checkpoints_still_run_and_the_wal_still_begins_anew(steps: int) -> None:
    schedule = ([True] * steps + [False] * 7) * 40
    assert run(schedule, careful=True).times_begun_anew > 5
