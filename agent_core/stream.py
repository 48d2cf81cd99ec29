"""What both ends of the replication stream agree on: its limits, and how positions stand in messages."""

from __future__ import annotations

from itertools import pairwise

from agent_core.log.record import HEADER_BYTES, MAX_FRAMES_BYTES
from agent_core.position import EpochStart, EpochTable, Position
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

    Raises:
        ValueError: The epochs are not ascending, or contradict where the log begins or ends.
    """
    base, last = from_message(hello.base), from_message(hello.last)
    starts = tuple(EpochStart(start.epoch, start.first_lsn) for start in hello.epochs)
    if not starts:
        if base != last:
            raise ValueError(f"a log without epochs must end at its base {base}, not at {last}")
        return EpochTable(base, (), last)
    for earlier, later in pairwise(starts):
        if not (earlier.epoch < later.epoch and earlier.first_lsn < later.first_lsn):
            raise ValueError(f"epochs must ascend, epoch and first_lsn alike; {later} follows {earlier}")
    if starts[0].first_lsn < 1 or starts[-1].first_lsn > last.lsn or starts[-1].epoch != last.epoch:
        raise ValueError(f"the epochs {[tuple(start) for start in starts]} do not end at the log's end {last}")
    if base.lsn != starts[0].first_lsn - 1 or base.epoch > starts[0].epoch:
        raise ValueError(f"the first epoch {starts[0]} does not follow the base {base}")
    return EpochTable(base, starts, last)
