"""How far a log once reached: a note beside its segments, so that a lost end is not taken for a torn one.

A record that rots at the very end of a log looks like one that was never written whole. The mark tells them apart:
after each fsync of the log, and before anyone hears of it, the position that became durable is written here. That
write has no fsync of its own. It survives the process; after a power cut the mark may be older, by as long as the
kernel keeps a written page (Linux: half a minute), but it never claims what was not durable. Where a log is cut
back on purpose, the mark is lowered first, with an fsync.

The file is 64 bytes, numbers big-endian:

    ======  ====  =============  =================================================================
    offset  size  field          meaning
    ======  ====  =============  =================================================================
         0     8  magic          `HWDURMRK`
         8     4  version        of the format: 1
        12     4  group          the shard group whose log this is
        16    16  cluster        xxh3_128 of the cluster's id
        32     8  epoch          the position that the log held with fsync …
        40     8  lsn            … last
        48     8  committed lsn  everything up to here was known to be committed
        56     4  zero
        60     4  checksum       CRC32C of everything before it
    ======  ====  =============  =================================================================
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import google_crc32c

from agent_core.errors import WrongCluster
from agent_core.log.segment import LogIdentity, sync_directory
from agent_core.position import START, Position

MARK_FILE = "durable.mark"

_MAGIC = b"HWDURMRK"
_VERSION = 1
_BODY = struct.Struct(">8sII16sQQQI")
MARK_BYTES = _BODY.size + 4


@dataclass(frozen=True, slots=True)
class LogEnd:
    """Where a log ends, and where it once ended. Pure.

    Attributes:
        held: The position of the last record that the log holds.
        marked: The furthest position that it ever held with fsync, and was not cut back from since.
    """

    held: Position
    marked: Position

    @property
    def lost(self) -> bool:
        """Whether the disk lost records at the end that others may count on.

        It ends by itself: once the log ends at or past the mark in a later primary's history, it holds whatever of
        the lost records was committed.
        """
        return self.held < self.marked

    @property
    def for_votes(self) -> Position:
        """Where the log ends as far as elections go.

        This node's acknowledgement may be what committed a record that it lost since. So it votes as though it
        still held it: for nobody who lacks it, and for itself neither. Every majority without this node's vote has
        another node in it that holds what is committed.
        """
        return max(self.held, self.marked)

    def __str__(self) -> str:
        """What was lost, as a sentence goes on."""
        return f"it held {self.marked} with fsync and now ends at {self.held}"


class DurableMark:
    """The mark of one log.

    Attributes:
        position: The furthest position that the log held with fsync.
        committed_lsn: Everything up to here was known to be committed when the mark was written last.
        damage: What was wrong with the file, which counts as none then; None: nothing.
    """

    def __init__(self, directory: Path, identity: LogIdentity) -> None:
        """Read the mark in the log's directory; none means that nothing was ever durable.

        Raises:
            WrongCluster: It is the mark of another cluster's or group's log.
            OSError: It cannot be read.
        """
        self._path = directory / MARK_FILE
        self._identity = identity
        self._descriptor = -1
        self.position = START
        self.committed_lsn = 0
        self.damage: str | None = None
        if self._path.exists():
            self._read(self._path.read_bytes())

    def open(self, end: Position) -> None:
        """Begin to write: the log was recovered up to `end`, durably.

        Raises:
            OSError: The disk is full or failed.
        """
        is_new = not self._path.exists()
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if is_new or self.damage is not None:
            # Durable at once: an empty file after a power cut would be taken for a damaged one.
            self._write(end, durably=True)
            sync_directory(self._path.parent)
        else:
            self.reach(end)

    def reach(self, position: Position) -> None:
        """The log holds `position` with fsync; a mark that lies further stays.

        Raises:
            OSError: The disk failed.
        """
        if position > self.position:
            self._write(position)

    def lower(self, position: Position) -> None:
        """The log is about to be cut back to `position` on purpose; durable when this returns.

        Raises:
            OSError: The disk failed.
        """
        if position < self.position:
            self._write(position, durably=True)

    def close(self) -> None:
        """Close the file; closing twice does nothing more."""
        if self._descriptor >= 0:
            # What a failed disk holds is an older mark, and no worse than after a power cut.
            with suppress(OSError):
                self._write(self.position, durably=True)
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, position: Position, *, durably: bool = False) -> None:
        identity = self._identity
        body = _BODY.pack(
            _MAGIC, _VERSION, identity.group, identity.cluster_digest, *position, self.committed_lsn, 0
        )
        checksum: int = google_crc32c.value(body)
        os.pwrite(self._descriptor, body + checksum.to_bytes(4, "big"), 0)
        if durably:
            os.fdatasync(self._descriptor)
        self.position = position

    def _read(self, data: bytes) -> None:
        if len(data) != MARK_BYTES or int.from_bytes(data[-4:], "big") != google_crc32c.value(data[:-4]):
            self.damage = f"{self._path} is damaged: how far the log once reached is unknown"
            return
        magic, version, group, cluster_digest, epoch, lsn, committed_lsn, _ = _BODY.unpack_from(data)
        if (magic, version) != (_MAGIC, _VERSION):
            self.damage = f"{self._path} is of format {magic!r} {version}; this build reads {_MAGIC!r} {_VERSION}"
            return
        if cluster_digest != self._identity.cluster_digest:
            raise WrongCluster(f"{self._path} belongs to another cluster than {self._identity.cluster_id}")
        if group != self._identity.group:
            raise WrongCluster(f"{self._path} belongs to group {group}, not to group {self._identity.group}")
        self.position = Position(epoch, lsn)
        self.committed_lsn = committed_lsn
