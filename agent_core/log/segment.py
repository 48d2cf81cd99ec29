"""One preallocated file of records.

A segment begins with this header, numbers big-endian; its records follow back to back, zeros behind them:

    ======  ====  ===========  ===================================================================
    offset  size  field        meaning
    ======  ====  ===========  ===================================================================
         0     8  magic        `HWSEGMNT`
         8     4  version      of the format: 1
        12     4  group        the shard group whose log this is
        16    16  cluster      xxh3_128 of the cluster's id
        32     8  generation   how often the log was begun anew; only the newest generation counts
        40     8  base epoch   the position before the segment's first record …
        48     8  base lsn     … which is where the segment before it ends
        56     4  checksum     CRC32C of everything before it
    ======  ====  ===========  ===================================================================

The file is named by the lsn of its first record. It comes into being under another name, is made durable and
then renamed: a segment's header is never torn.
"""

from __future__ import annotations

import os
import re
import struct
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import xxhash

from agent_core.errors import LogDamaged, WrongCluster
from agent_core.position import Position

MAGIC = b"HWSEGMNT"
FORMAT_VERSION = 1
NAME_PATTERN = re.compile(r"(\d{20})\.log")
UNFINISHED_SUFFIX = ".new"

_HEADER = struct.Struct(">8sII16sQQQ")
HEADER_BYTES = _HEADER.size + 4


@dataclass(frozen=True, slots=True)
class LogIdentity:
    """Whose log a segment belongs to."""

    cluster_id: str
    group: int

    @property
    def cluster_digest(self) -> bytes:
        """The cluster's id as a segment's header holds it."""
        return xxhash.xxh3_128_digest(self.cluster_id.encode())


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """The part of a segment's header that differs between the segments of one log."""

    generation: int
    base: Position

    def encode(self, identity: LogIdentity) -> bytes:
        """The header as it stands in the file."""
        header = _HEADER.pack(
            MAGIC, FORMAT_VERSION, identity.group, identity.cluster_digest, self.generation, *self.base
        )
        checksum: int = google_crc32c.value(header)
        return header + checksum.to_bytes(4, "big")


def read_segment_header(path: Path, identity: LogIdentity) -> SegmentHeader | None:
    """The header of the file at `path`; None when it is damaged.

    Raises:
        WrongCluster: The segment belongs to another cluster or group.
        LogDamaged: The segment was written by another version of the format.
    """
    with path.open("rb") as file:
        data = file.read(HEADER_BYTES)
    if len(data) < HEADER_BYTES or int.from_bytes(data[-4:], "big") != google_crc32c.value(data[:-4]):
        return None
    magic, version, group, cluster_digest, generation, epoch, lsn = _HEADER.unpack_from(data)
    if magic != MAGIC:
        return None
    if version != FORMAT_VERSION:
        raise LogDamaged(f"{path} has format version {version}; this build reads version {FORMAT_VERSION}")
    if cluster_digest != identity.cluster_digest:
        raise WrongCluster(f"{path} belongs to another cluster than {identity.cluster_id}")
    if group != identity.group:
        raise WrongCluster(f"{path} belongs to group {group}, not to group {identity.group}")
    return SegmentHeader(generation, Position(epoch, lsn))


def sync_directory(directory: Path) -> None:
    """Make the creation, renaming and removal of files in `directory` durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def segment_name(base: Position) -> str:
    """The file name of the segment that begins after `base`."""
    return f"{base.lsn + 1:020d}.log"


def prepare_segment(directory: Path, identity: LogIdentity, header: SegmentHeader, *, file_bytes: int) -> Path:
    """Write an empty segment, durably, under a name that recovery takes for unfinished; `Segment.publish` ends it.

    Raises:
        OSError: The disk is full or failed; nothing is left behind.
    """
    unfinished = (directory / segment_name(header.base)).with_suffix(UNFINISHED_SUFFIX)
    try:
        descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            os.posix_fallocate(descriptor, 0, file_bytes)
            _write_all(descriptor, header.encode(identity), 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    return unfinished


class Segment:
    """A segment file, and where each of its records ends.

    Offsets here count bytes of records, the segment's header left out.

    Attributes:
        path: The file.
        base: The position before the first record.
        origin: Bytes of records that the log's segments before this one hold.
        ends: The offset behind each record, in order.
    """

    def __init__(self, path: Path, base: Position, *, origin: int, ends: array[int]) -> None:
        self.path = path
        self.base = base
        self.origin = origin
        self.ends = ends
        self._descriptor = -1
        self._file_bytes = 0
        self.open_for_writing()

    @classmethod
    def publish(cls, unfinished: Path, header: SegmentHeader, *, origin: int) -> Segment:
        """Give a prepared segment its name, durably, replacing a file of that name.

        Raises:
            OSError: The disk failed; whether the segment is there after a crash is unknown.
        """
        path = unfinished.with_name(segment_name(header.base))
        unfinished.replace(path)
        sync_directory(path.parent)
        return cls(path, header.base, origin=origin, ends=array("Q"))

    @property
    def used_bytes(self) -> int:
        """Bytes of records that the segment holds."""
        return self.ends[-1] if self.ends else 0

    @property
    def last_lsn(self) -> int:
        """The lsn of the last record, or of the base when there is none."""
        return self.base.lsn + len(self.ends)

    def offset_after(self, lsn: int) -> int:
        """The offset behind the record `lsn`, which the segment holds or which is its base."""
        return self.ends[lsn - self.base.lsn - 1] if lsn > self.base.lsn else 0

    def last_lsn_within(self, after_lsn: int, max_bytes: int) -> int:
        """The last record that ends within `max_bytes` after `after_lsn`; at least the next one."""
        first = after_lsn - self.base.lsn
        fitting = bisect_right(self.ends, self.offset_after(after_lsn) + max_bytes, lo=first)
        return self.base.lsn + max(fitting, first + 1)

    def has_room(self, count: int) -> bool:
        """Whether `count` more bytes fit into what is preallocated."""
        return HEADER_BYTES + self.used_bytes + count <= self._file_bytes

    def reserve(self, file_bytes: int) -> None:
        """Preallocate the file up to `file_bytes`.

        Raises:
            OSError: The disk is full or failed; the segment is as it was.
        """
        if file_bytes > self._file_bytes:
            os.posix_fallocate(self._descriptor, 0, file_bytes)
            self._file_bytes = file_bytes

    def write(self, data: bytes) -> None:
        """Write records behind the last; `extend` makes them count.

        Raises:
            OSError: The write failed; `erase_rest` takes away what it left.
        """
        _write_all(self._descriptor, data, HEADER_BYTES + self.used_bytes)

    def extend(self, lengths: Sequence[int]) -> None:
        """Count records of these lengths, which were written behind the last."""
        end = self.used_bytes
        for length in lengths:
            end += length
            self.ends.append(end)

    def sync(self) -> None:
        """Make what was written durable.

        Raises:
            OSError: It did not become durable, and must not be taken to be so after a later success.
        """
        os.fdatasync(self._descriptor)

    def forget_after(self, lsn: int) -> None:
        """Count no record after `lsn` any more; `erase_rest` takes them out of the file."""
        del self.ends[lsn - self.base.lsn :]

    def erase_rest(self, *, file_bytes: int) -> None:
        """Take away whatever lies behind the last record, durably, so that it can never be read as one.

        The file is preallocated up to `file_bytes` again.

        Raises:
            OSError: The disk failed.
        """
        end = HEADER_BYTES + self.used_bytes
        os.ftruncate(self._descriptor, end)
        self._file_bytes = end
        # With the disk full the next append needs a segment of its own, and reports that.
        with suppress(OSError):
            self.reserve(file_bytes)
        os.fsync(self._descriptor)

    def read(self, start: int, stop: int) -> bytes:
        """The records from offset `start` to `stop`.

        The file is opened anew: a reader holds on to it even while another thread removes or closes it.

        Raises:
            FileNotFoundError: The segment was removed.
            LogDamaged: The file is shorter than that.
        """
        with self.path.open("rb") as file:
            file.seek(HEADER_BYTES + start)
            data = file.read(stop - start)
        if len(data) < stop - start:
            raise LogDamaged(f"{self.path} ends amid its records, at byte {HEADER_BYTES + start + len(data)}")
        return data

    def open_for_writing(self) -> None:
        """Open the file unless it is open."""
        if self._descriptor < 0:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
            self._file_bytes = os.fstat(self._descriptor).st_size

    def close(self) -> None:
        """Close the file unless it is closed. Reading goes on; writing does not."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    written = os.pwrite(descriptor, data, offset)
    while written < len(data):
        written += os.pwrite(descriptor, data[written:], offset + written)
