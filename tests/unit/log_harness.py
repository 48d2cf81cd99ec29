"""Records and logs small enough to damage byte by byte."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from agent_core.log.log import ReplicationLog
from agent_core.log.record import Record, RecordCodec, RecordKind
from agent_core.log.segment import HEADER_BYTES
from agent_core.position import Position

CODEC = RecordCodec()


def record(lsn: int, *, epoch: int = 1, frames: bytes | None = None, group: int = 0) -> Record:
    """A transaction; its frames tell its position."""
    content = f"frames of {epoch}:{lsn}".encode() if frames is None else frames
    return Record(RecordKind.TRANSACTION, group, lsn % 7, Position(epoch, lsn), 3, 1_700_000_000_000 + lsn, content)


def encoded(lsn: int, *, epoch: int = 1, frames: bytes | None = None, group: int = 0) -> bytes:
    return CODEC.encode(record(lsn, epoch=epoch, frames=frames, group=group))


def block(first_lsn: int, last_lsn: int, *, epoch: int = 1) -> bytes:
    return b"".join(encoded(lsn, epoch=epoch) for lsn in range(first_lsn, last_lsn + 1))


RECORD_BYTES = len(encoded(1))
"""The length of every record of one digit's lsn and epoch that `encoded` makes without frames given."""

SMALL_SEGMENT = HEADER_BYTES + 4 * RECORD_BYTES
"""Four records fit."""


def open_log(directory: Path, *, segment_bytes: int = 4096, tail_bytes: int = 1 << 20) -> ReplicationLog:
    return ReplicationLog.open(
        directory, cluster_id="cluster", group=0, segment_bytes=segment_bytes, tail_bytes=tail_bytes
    )


def blocks(log: ReplicationLog, *, max_bytes: int = 1 << 20) -> Iterator[bytes]:
    """Everything that the log holds, as it is read."""
    after_lsn = log.base.lsn
    while (found := log.read(after_lsn, max_bytes)) is not None:
        assert found.first_lsn == after_lsn + 1
        yield found.data
        after_lsn = found.last_lsn


def content(log: ReplicationLog) -> bytes:
    return b"".join(blocks(log))


def segment_files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.log"))


def snapshot(directory: Path) -> dict[str, bytes]:
    """Every file of a directory by its name."""
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def failing(code: int) -> Callable[..., None]:
    """A system call that fails with this errno, whatever it is asked."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail
