"""What a log holds, in memory: its segments, its table of epochs, its tail. No I/O happens here."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from agent_core.errors import PositionCompacted
from agent_core.log.history import cut_to, drop_to
from agent_core.log.segment import Segment
from agent_core.log.tail import Tail
from agent_core.position import EpochTable, Position


@dataclass(frozen=True, slots=True)
class Block:
    """Whole records in order, as they stand in the log."""

    first_lsn: int
    last_lsn: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Extent:
    """Where whole records stand: within one segment, from offset `start` to `stop`."""

    first_lsn: int
    last_lsn: int
    segment: Segment
    start: int
    stop: int
    cuts: int


class LogContents:
    """Extended and cut by one thread at a time, dropped from the front and read by any.

    Each method sees and leaves one moment of the log.

    Attributes:
        table: Which epoch wrote which records; replaced as a whole.
        segments: In order, at least one.
    """

    def __init__(self, segments: list[Segment], table: EpochTable, *, tail_bytes: int) -> None:
        self._lock = threading.Lock()
        self._tail_bytes = tail_bytes
        self._tail = Tail(limit_bytes=tail_bytes, end=_end(segments))
        self._cuts = 0
        self.segments = segments
        self.table = table

    @property
    def last_segment(self) -> Segment:
        """The segment that is appended to."""
        return self.segments[-1]

    @property
    def end(self) -> int:
        """The log offset behind the last record."""
        return _end(self.segments)

    @property
    def size_bytes(self) -> int:
        """Bytes of all records."""
        with self._lock:
            return self.end - self.segments[0].origin

    def bytes_after(self, lsn: int) -> int:
        """Bytes of the records after `lsn`; of all when it lies before them."""
        with self._lock:
            if lsn >= self.table.last.lsn:
                return 0
            lsn = max(lsn, self.table.base.lsn)
            segment = self._segment_after(lsn)
            return self.end - segment.origin - segment.offset_after(lsn)

    def find(self, after_lsn: int, max_bytes: int) -> tuple[Extent, bytes | None] | None:
        """Where the records after `lsn` stand, and their bytes if they are in memory; None at the end of the log.

        Raises:
            PositionCompacted: The first of them is no longer held.
        """
        with self._lock:
            if after_lsn < self.table.base.lsn:
                raise PositionCompacted(
                    f"the records after lsn {after_lsn} are gone: the log begins after {self.table.base}"
                )
            if after_lsn >= self.table.last.lsn:
                return None
            segment = self._segment_after(after_lsn)
            last_lsn = segment.last_lsn_within(after_lsn, max_bytes)
            start, stop = segment.offset_after(after_lsn), segment.offset_after(last_lsn)
            data = self._tail.slice(segment.origin + start, segment.origin + stop)
            return Extent(after_lsn + 1, last_lsn, segment, start, stop, self._cuts), data

    def still_holds(self, extent: Extent) -> bool:
        """Whether nothing was cut or dropped since `extent` was found that might concern it."""
        with self._lock:
            return extent.cuts == self._cuts and extent.segment in self.segments

    def extend(self, block: bytes, lengths: Sequence[int], table: EpochTable) -> None:
        """Take in records of these lengths that were written to the last segment, and the table with them."""
        with self._lock:
            self.last_segment.extend(lengths)
            self._tail.append(block)
            # Since the table was made, another thread may have dropped records from the front.
            base = self.table.base
            self.table = table if table.base == base else drop_to(table, base)

    def add_segment(self, segment: Segment) -> None:
        """Go on in a new segment."""
        with self._lock:
            self.segments.append(segment)

    def cut_back(self, to: Position) -> list[Segment]:
        """Forget every record after `to`; the segments that hold nothing else, in order.

        Raises:
            PositionCompacted: `to` lies before the first record.
            LogDamaged: `to` is not in the log's history.
        """
        with self._lock:
            self.table = cut_to(self.table, to)
            kept = self._segment_after(to.lsn)
            count = self.segments.index(kept) + 1
            removed = self.segments[count:]
            del self.segments[count:]
            kept.forget_after(to.lsn)
            self._tail.cut(self.end)
            self._cuts += 1
            return removed

    def begin_anew(self, first: Segment) -> list[Segment]:
        """Forget everything and begin with an empty segment; the segments that were held, in order."""
        with self._lock:
            removed = self.segments
            self.segments = [first]
            self.table = EpochTable(first.base, (), first.base)
            self._tail = Tail(limit_bytes=self._tail_bytes, end=self.end)
            self._cuts += 1
            return removed

    def drop_through(self, lsn: int) -> list[Segment]:
        """Forget the segments, all but the last, whose every record is at most `lsn`; these, in order."""
        with self._lock:
            count = 0
            while count < len(self.segments) - 1 and self.segments[count].last_lsn <= lsn:
                count += 1
            dropped = self.segments[:count]
            if dropped:
                del self.segments[:count]
                self.table = drop_to(self.table, self.segments[0].base)
            return dropped

    def _segment_after(self, lsn: int) -> Segment:
        """The segment that holds the record after `lsn`; the last one when there is none."""
        return self.segments[bisect_right(self.segments, lsn, key=lambda segment: segment.base.lsn) - 1]


def _end(segments: Sequence[Segment]) -> int:
    return segments[-1].origin + segments[-1].used_bytes
