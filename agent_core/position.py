"""Positions in a group's history, and where two histories part.

A position is `(epoch, lsn)`. Records are numbered by lsn from 1 without gaps; each carries the epoch that
wrote it. Two logs that hold a record with the same lsn and epoch are identical up to it (the log-matching
property of Raft), so the table of epochs with their first lsns is enough to find where two logs part.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple


class Position(NamedTuple):
    """A place in a group's history, ordered as a pair. `(0, 0)` is the place before the first record."""

    epoch: int
    lsn: int

    def __str__(self) -> str:
        """`epoch:lsn`, as the command line and the HTTP interface write it."""
        return f"{self.epoch}:{self.lsn}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read `epoch:lsn`.

        Raises:
            ValueError: The text is not two decimal numbers with a colon between them.
        """
        epoch, separator, lsn = text.partition(":")
        if not (separator and epoch.isdecimal() and lsn.isdecimal()):
            raise ValueError(f"a position is written epoch:lsn, for example 3:1204; got {text!r}")
        return cls(int(epoch), int(lsn))


START = Position(0, 0)


class EpochStart(NamedTuple):
    """The first lsn that an epoch wrote."""

    epoch: int
    first_lsn: int


@dataclass(frozen=True, slots=True)
class EpochTable:
    """Which epoch wrote which records of a log that reaches from `base` (exclusive) to `last` (inclusive).

    Attributes:
        base: The position before the log's first record; what the log no longer holds ends here.
        starts: Epochs with their first lsns, both strictly ascending; every first lsn is past `base.lsn`.
        last: The end of the log; equal to `base` when the log holds nothing.
    """

    base: Position
    starts: tuple[EpochStart, ...]
    last: Position

    def epoch_at(self, lsn: int) -> int | None:
        """The epoch of the record at `lsn` (or of `base`); None when the log does not hold it."""
        if lsn == self.base.lsn:
            return self.base.epoch
        if not self.base.lsn < lsn <= self.last.lsn:
            return None
        return max(start.epoch for start in self.starts if start.first_lsn <= lsn)

    def contains(self, position: Position) -> bool:
        """Whether a position is in this history; what lies before `base` is, as far as the log can still tell."""
        return position.lsn < self.base.lsn or self.epoch_at(position.lsn) == position.epoch

    def replaces(self, position: Position) -> bool:
        """Whether the log has gone past `position` without containing it, as far as it can still tell."""
        return position <= self.last and not self.contains(position)

    def runs(self) -> Iterable[tuple[int, int, int]]:
        """`(epoch, first lsn, last lsn)` of each epoch's records, newest first."""
        last = self.last.lsn
        for start in reversed(self.starts):
            yield start.epoch, start.first_lsn, last
            last = start.first_lsn - 1


def shared_point(ours: EpochTable, theirs: EpochTable) -> Position | None:
    """The last position that both logs hold; None when what either still holds does not show one.

    Either table's base counts as held: it was, and identical, before it was dropped.
    """
    for epoch, first, last in ours.runs():
        for their_epoch, their_first, their_last in theirs.runs():
            if epoch == their_epoch:
                end = min(last, their_last)
                if end >= max(first, their_first):
                    return Position(epoch, end)
    for held, base in ((ours, theirs.base), (theirs, ours.base)):
        if held.epoch_at(base.lsn) == base.epoch:
            return base
    return None
