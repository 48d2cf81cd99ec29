"""The log against a list: any sequence of what can be done to it, crashes included."""

from __future__ import annotations

import shutil
import tempfile
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent_core.errors import LogDamaged, PositionCompacted
from agent_core.log.segment import HEADER_BYTES
from agent_core.position import START, EpochStart, EpochTable, Position
from tests.unit.log_harness import content, encoded, open_log, segment_files

SEGMENT_BYTES = 500
TAIL_BYTES = 300


class LogMachine(RuleBasedStateMachine):
    """`base` and `held` are the model: the position before the list, and the list of positions and records."""

    @initialize()
    def create(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.log = open_log(self.directory / "log", segment_bytes=SEGMENT_BYTES, tail_bytes=TAIL_BYTES)
        self.base = START
        self.held: list[tuple[Position, bytes]] = []
        self.durable_lsn = 0

    @property
    def last(self) -> Position:
        return self.held[-1][0] if self.held else self.base

    def position_at(self, lsn: int) -> Position:
        return self.base if lsn == self.base.lsn else self.held[lsn - self.base.lsn - 1][0]

    @rule(
        sizes=st.lists(st.integers(0, 120), min_size=1, max_size=5),
        raises=st.lists(st.sampled_from([0, 0, 0, 1, 3]), min_size=5, max_size=5),
        verify=st.booleans(),
    )
    def append(self, sizes: list[int], raises: list[int], verify: bool) -> None:
        epoch, lsn = self.last
        added = []
        for size, rise in zip(sizes, raises, strict=False):
            epoch, lsn = epoch + rise, lsn + 1
            frames = bytes((lsn * 31 + index * index) % 256 for index in range(size))
            added.append((Position(epoch, lsn), encoded(lsn, epoch=epoch, frames=frames)))
        segments = segment_files(self.directory / "log")
        self.log.append(b"".join(data for _, data in added), verify=verify)
        if segment_files(self.directory / "log") != segments:
            self.durable_lsn = self.last.lsn
        self.held += added

    @rule(lsn_step=st.integers(-3, 3), epoch_step=st.integers(-2, 2))
    def refuse_what_does_not_follow(self, lsn_step: int, epoch_step: int) -> None:
        epoch, lsn = self.last.epoch + epoch_step, self.last.lsn + 1 + lsn_step
        if epoch < 0 or lsn < 0 or (lsn_step == 0 and epoch_step >= 0):
            return
        with pytest.raises(LogDamaged):
            self.log.append(encoded(lsn, epoch=epoch))

    @rule()
    def sync(self) -> None:
        assert self.log.sync() == self.last.lsn
        self.durable_lsn = self.last.lsn

    @rule(data=st.data(), max_bytes=st.integers(0, 1000))
    def read(self, data: st.DataObject, max_bytes: int) -> None:
        after_lsn = data.draw(st.integers(0, self.last.lsn + 2), label="after_lsn")
        if after_lsn < self.base.lsn:
            with pytest.raises(PositionCompacted):
                self.log.read(after_lsn, max_bytes)
            return
        found = self.log.read(after_lsn, max_bytes)
        expected = [encoded_record for _, encoded_record in self.held[after_lsn - self.base.lsn :]]
        assert (found is None) == (not expected)
        if found is not None:
            count = found.last_lsn - after_lsn
            assert found.first_lsn == after_lsn + 1
            assert found.data == b"".join(expected[:count])
            assert count == 1 or len(found.data) <= max_bytes

    @rule(data=st.data())
    def cut_back(self, data: st.DataObject) -> None:
        to = self.position_at(data.draw(st.integers(self.base.lsn, self.last.lsn), label="to"))
        self.log.cut_back(to)
        del self.held[to.lsn - self.base.lsn :]
        self.durable_lsn = to.lsn

    @rule(epoch=st.integers(0, 20), lsn=st.integers(0, 40))
    def reset(self, epoch: int, lsn: int) -> None:
        self.base, self.held, self.durable_lsn = Position(epoch, lsn), [], lsn
        self.log.reset(self.base)

    @rule(data=st.data())
    def drop_through(self, data: st.DataObject) -> None:
        lsn = data.draw(st.integers(0, self.last.lsn + 1), label="lsn")
        names = [int(path.stem) for path in segment_files(self.directory / "log")]
        self.log.drop_through(lsn)
        # A segment may go when the next one begins at most one past the lsn.
        base_lsn = max([self.base.lsn, *(first - 1 for first in names[1:] if first - 1 <= lsn)])
        base = self.position_at(base_lsn)
        del self.held[: base_lsn - self.base.lsn]
        self.base = base

    @rule()
    def reopen(self) -> None:
        self.log.close()
        self.open_again()

    @precondition(lambda self: self.durable_lsn < self.last.lsn)
    @rule(data=st.data(), truncate=st.booleans())
    def lose_power(self, data: st.DataObject, truncate: bool) -> None:
        """Everything from some byte past the durable end on never reached the disk."""
        self.log.close()
        path = segment_files(self.directory / "log")[-1]
        written = path.read_bytes()
        segment_base_lsn = int(path.stem) - 1
        lengths = (len(encoded_record) for _, encoded_record in self.held[segment_base_lsn - self.base.lsn :])
        ends = list(accumulate(lengths, initial=HEADER_BYTES))
        offset = data.draw(st.integers(ends[self.durable_lsn - segment_base_lsn], ends[-1]), label="offset")
        path.write_bytes(written[:offset] + (b"" if truncate else bytes(len(written) - offset)))
        # A record whose lost bytes were zeros anyway is whole.
        whole = sum(end <= offset or not any(written[offset:end]) for end in ends[1:])
        if truncate:
            whole = sum(end <= offset for end in ends[1:])
        del self.held[segment_base_lsn - self.base.lsn + whole :]
        self.open_again()

    def open_again(self) -> None:
        self.log = open_log(self.directory / "log", segment_bytes=SEGMENT_BYTES, tail_bytes=TAIL_BYTES)
        self.durable_lsn = self.last.lsn

    @invariant()
    def the_log_is_the_list(self) -> None:
        log = self.log
        assert (log.base, log.last, log.durable_lsn) == (self.base, self.last, self.durable_lsn)
        assert log.first_lsn == self.base.lsn + 1
        assert log.damage is None
        lengths = [len(encoded_record) for _, encoded_record in self.held]
        assert log.size_bytes == sum(lengths)
        behind = list(accumulate(reversed(lengths), initial=0))
        assert [log.bytes_after(self.last.lsn - back) for back in range(len(behind))] == behind
        assert content(log) == b"".join(encoded_record for _, encoded_record in self.held)
        assert [found.position for found in log.records(self.base.lsn)] == [position for position, _ in self.held]

    @invariant()
    def the_table_of_epochs_tells_every_records_epoch(self) -> None:
        first_lsns: dict[int, int] = {}
        for (epoch, lsn), _ in self.held:
            first_lsns.setdefault(epoch, lsn)
        starts = tuple(EpochStart(epoch, lsn) for epoch, lsn in first_lsns.items())
        assert self.log.epochs == EpochTable(self.base, starts, self.last)

    def teardown(self) -> None:
        self.log.close()
        shutil.rmtree(self.directory)


TestLogMachine = LogMachine.TestCase
TestLogMachine.settings = settings(max_examples=60, stateful_step_count=30)
