"""The table of epochs as a log grows at its end, is cut back there, and is dropped from the front.

Tables are immutable, so whoever holds one sees one moment of the log.
"""

from __future__ import annotations

from agent_core.errors import LogDamaged, PositionCompacted
from agent_core.log.record import RecordHeader
from agent_core.position import EpochStart, EpochTable, Position


class HistoryBuilder:
    """Extends a table record by record, and refuses whatever does not follow."""

    def __init__(self, table: EpochTable, *, group: int) -> None:
        self._base = table.base
        self._starts = table.starts
        self._group = group
        self.last = table.last

    def add(self, header: RecordHeader) -> None:
        """Take the next record in.

        Raises:
            LogDamaged: It belongs to another group, its lsn does not follow, or its epoch is lower.
        """
        position = header.position
        if header.group != self._group:
            raise LogDamaged(f"record {position} belongs to group {header.group}; this is the log of {self._group}")
        if position.lsn != self.last.lsn + 1:
            raise LogDamaged(f"record {position} does not follow {self.last}: its lsn must be {self.last.lsn + 1}")
        if position.epoch < self.last.epoch:
            raise LogDamaged(f"record {position} does not follow {self.last}: its epoch is lower")
        if not self._starts or self._starts[-1].epoch != position.epoch:
            self._starts = (*self._starts, EpochStart(position.epoch, position.lsn))
        self.last = position

    def build(self) -> EpochTable:
        """The table with everything that was added."""
        return EpochTable(self._base, self._starts, self.last)


def cut_to(table: EpochTable, to: Position) -> EpochTable:
    """The table of a log whose records after `to` are gone.

    Raises:
        PositionCompacted: `to` lies before what the log still holds.
        LogDamaged: `to` is not in the log's history.
    """
    if to.lsn < table.base.lsn:
        raise PositionCompacted(f"cannot cut back to {to}: the log begins after {table.base}")
    if table.epoch_at(to.lsn) != to.epoch:
        raise LogDamaged(f"cannot cut back to {to}: the log from {table.base} to {table.last} does not hold it")
    return EpochTable(table.base, tuple(start for start in table.starts if start.first_lsn <= to.lsn), to)


def drop_to(table: EpochTable, base: Position) -> EpochTable:
    """The table of a log whose records up to `base`, which it holds, are gone from its front."""
    starts = tuple(start for start in table.starts if start.first_lsn > base.lsn)
    first_lsn = base.lsn + 1
    goes_on = base.lsn < table.last.lsn and (not starts or starts[0].first_lsn > first_lsn)
    return EpochTable(base, (EpochStart(base.epoch, first_lsn), *starts) if goes_on else starts, table.last)
