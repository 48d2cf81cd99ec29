"""How much of a log may be dropped: a pure decision."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class StandbyNeed(NamedTuple):
    """What one standby still has to read.

    Attributes:
        durable_lsn: It holds everything up to here durably; 0 for one that was not heard yet.
        bytes_behind: Bytes of the log after that lsn.
    """

    durable_lsn: int
    bytes_behind: int


def droppable_through(
    *,
    committed_lsn: int,
    checkpointed_lsns: Iterable[int | None],
    standbys: Iterable[StandbyNeed],
    holds: Iterable[int],
    standby_bytes: int,
) -> int:
    """The lsn through which the log may be dropped: everything up to it is needed by nobody.

    Args:
        committed_lsn: Nothing past it is ever dropped.
        checkpointed_lsns: For each shard the lsn up to which its file is durable without the log; None when it
            has nothing to replay. Needed however large the log grows: a shard that lost its last transactions
            is brought up again from here.
        standbys: What each standby has to read. One that is more than `standby_bytes` behind is not waited for:
            it is resynced.
        holds: Lsns after which someone reads the log who cannot be resynced instead, because that is what it is
            busy with (or a backup). They outlast the bound on bytes; who takes one bounds it in time.
        standby_bytes: The most log that is kept for standbys.
    """
    floors = [committed_lsn, *holds]
    floors += [lsn for lsn in checkpointed_lsns if lsn is not None]
    floors += [need.durable_lsn for need in standbys if need.bytes_behind <= standby_bytes]
    return min(floors)
