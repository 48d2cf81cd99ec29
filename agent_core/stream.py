"""What both ends of the replication stream agree on: its limits, and how positions stand in messages."""

from __future__ import annotations

from itertools import pairwise

from agent_core.log.record import HEADER_BYTES, MAX_FRAMES_BYTES
from agent_core.position import START, EpochStart, EpochTable, Position
from agent_core.rpc import replication_pb2 as pb

MESSAGE_BYTES = 1 << 20
"""Record bytes that one message carries at most; a larger record goes in parts of this size."""

MAX_RECORD_BYTES = HEADER_BYTES + MAX_FRAMES_BYTES
"""The largest record that a standby puts together from parts."""

WINDOW_BYTES = 16 << 20
"""Record bytes that may be sent and not yet durable at a standby. One larger record travels alone."""

HEARTBEAT_SECONDS = 0.1
"""How long a stream stays silent at most."""


def to_message(position: Position) -> pb.Position:
    """A position as messages carry it."""
    return pb.Position(epoch=position.epoch, lsn=position.lsn)


def from_message(message: pb.Position) -> Position:
    """A position out of a message."""
    return Position(message.epoch, message.lsn)


def epoch_table(hello: pb.Hello) -> EpochTable:
    """The table of epochs of the log whose owner says hello.

    The message does not carry the epoch of a log's base. A base in the middle of history counts as unknown, so
    it is never taken for a shared point; the worst that comes of it is a resync.

    Raises:
        ValueError: The epochs are not ascending, or contradict the end of the log.
    """
    last = from_message(hello.last)
    starts = tuple(EpochStart(start.epoch, start.first_lsn) for start in hello.epochs)
    if not starts:
        return EpochTable(base=last, starts=(), last=last)
    for earlier, later in pairwise(starts):
        if not (earlier.epoch < later.epoch and earlier.first_lsn < later.first_lsn):
            raise ValueError(f"epochs must ascend, epoch and first_lsn alike; {later} follows {earlier}")
    if starts[0].first_lsn < 1 or starts[-1].first_lsn > last.lsn or starts[-1].epoch != last.epoch:
        raise ValueError(f"the epochs {[tuple(start) for start in starts]} do not end at the log's end {last}")
    base_lsn = starts[0].first_lsn - 1
    return EpochTable(base=START if base_lsn == 0 else Position(0, base_lsn), starts=starts, last=last)
