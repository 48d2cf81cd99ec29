"""One committed transaction as bytes, and back.

A record is a header and a payload, numbers big-endian:

    ======  ====  ===================  ==========================================================
    offset  size  field                meaning
    ======  ====  ===================  ==========================================================
         0     4  magic                `HWR1`
         4     4  checksum             CRC32C of everything from offset 8 to the record's end
         8     4  length               bytes of the whole record, this header included
        12     4  uncompressed length  bytes of the frames before compression, at most 1 GiB
        16     8  epoch                the epoch that wrote the record
        24     8  lsn                  its number in the group's log, from 1 without gaps
        32     8  committed at         milliseconds since 1970 (UTC), by the primary's clock
        40     4  page count           pages of the shard after the transaction
        44     2  group                the shard group whose log this is
        46     2  shard                the shard that was changed; 0 when the kind concerns none
        48     1  kind                 1 transaction, 2 reset, 3 epoch
        49     1  flags                bit 0: the payload is one zstd frame; the others are zero
        50     …  payload              the frames, compressed only when that made them smaller
    ======  ====  ===================  ==========================================================

The frames are the transaction's raw WAL frames in file order; the log does not look into them. Records lie
back to back, in segments, in memory and on the wire alike: a *block* is several of them in one `bytes`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

import google_crc32c
import zstandard

from agent_core.errors import LogDamaged
from agent_core.position import Position

MAGIC = b"HWR1"
MAX_FRAMES_BYTES = 1 << 30
"""The largest transaction that a record can carry, in bytes of frames."""
COMPRESSION_LEVEL = -3
"""Of zstd: against its level 1 less than half the time, for a quarter more bytes of transcripts."""

_CHECKED_FROM = 8
_CHECKED_AT_ONCE = 1 << 20
_COMPRESSED = 1
_SUMMED = struct.Struct(">IIQQQIHHBB")
_HEADER = struct.Struct(">4sIIIQQQIHHBB")
HEADER_BYTES = _HEADER.size


class RecordKind(IntEnum):
    """What a record does to those who follow the log."""

    TRANSACTION = 1
    """Carries the frames of one committed transaction of one shard."""
    RESET = 2
    """The shard left the log's history: a standby resyncs it before it acknowledges past this record."""
    EPOCH = 3
    """Opens an epoch; concerns no shard."""


_KINDS = {int(kind): kind for kind in RecordKind}


class Record(NamedTuple):
    """A record as the rest of the project sees it.

    Attributes:
        kind: What it does.
        group: The shard group whose log holds it.
        shard: The shard that was changed; 0 when the kind concerns none.
        position: Its epoch and lsn.
        page_count: Pages of the shard after the transaction.
        committed_at_ms: Milliseconds since 1970 (UTC), by the primary's clock.
        frames: The transaction's raw WAL frames; empty unless it is a transaction.
    """

    kind: RecordKind
    group: int
    shard: int
    position: Position
    page_count: int
    committed_at_ms: int
    frames: bytes


class RecordHeader(NamedTuple):
    """What a record says about itself, without its frames.

    Attributes:
        kind: As in `Record`, like `group`, `shard`, `position`, `page_count` and `committed_at_ms`.
        length: Bytes of the whole encoded record, header included.
        uncompressed_length: Bytes of its frames.
        compressed: Whether its payload is a zstd frame.
        checksum: CRC32C of everything behind it.
    """

    kind: RecordKind
    group: int
    shard: int
    position: Position
    page_count: int
    committed_at_ms: int
    length: int
    uncompressed_length: int
    compressed: bool
    checksum: int


class RecordCodec:
    """Encodes and decodes records. It holds zstd's objects and therefore belongs to one thread."""

    def __init__(self) -> None:
        self._compressor = zstandard.ZstdCompressor(
            level=COMPRESSION_LEVEL, write_checksum=False, write_content_size=True
        )
        self._decompressor = zstandard.ZstdDecompressor()

    def encode(self, record: Record) -> bytes:
        """The record as it stands in the log and on the wire.

        Raises:
            ValueError: The frames are larger than a record can carry, or a kind without frames has some.
        """
        payload = record.frames
        uncompressed_length = len(payload)
        if uncompressed_length > MAX_FRAMES_BYTES:
            raise ValueError(
                f"frames hold {uncompressed_length} bytes; a record carries at most {MAX_FRAMES_BYTES}"
            )
        flags = 0
        if payload:
            if record.kind is not RecordKind.TRANSACTION:
                raise ValueError(f"a record of kind {record.kind.name} carries no frames; got {len(payload)} bytes")
            compressed = self._compressor.compress(payload)
            if len(compressed) < uncompressed_length:
                payload, flags = compressed, _COMPRESSED
        epoch, lsn = record.position
        summed = _SUMMED.pack(
            HEADER_BYTES + len(payload),
            uncompressed_length,
            epoch,
            lsn,
            record.committed_at_ms,
            record.page_count,
            record.group,
            record.shard,
            record.kind,
            flags,
        )
        checksum = google_crc32c.extend(google_crc32c.value(summed), payload)
        return b"".join((MAGIC, checksum.to_bytes(4, "big"), summed, payload))

    def decode(self, buffer: bytes, offset: int = 0) -> tuple[Record, int]:
        """The record at `offset`, and the offset behind it.

        Raises:
            LogDamaged: There is no whole record, or it contradicts its checksum or its header.
        """
        header = read_header(buffer, offset)
        check_checksum(buffer, offset, header)
        end = offset + header.length
        if header.compressed:
            frames = self._decompress(memoryview(buffer)[offset + HEADER_BYTES : end], header)
        else:
            frames = buffer[offset + HEADER_BYTES : end]
        record = Record(
            header.kind,
            header.group,
            header.shard,
            header.position,
            header.page_count,
            header.committed_at_ms,
            frames,
        )
        return record, end

    def _decompress(self, payload: memoryview, header: RecordHeader) -> bytes:
        # zstd allocates what the frame announces: the frame is held to the header, which has a limit.
        try:
            announced = zstandard.frame_content_size(payload)
            if announced != header.uncompressed_length:
                raise LogDamaged(
                    f"record {header.position}: its payload announces {announced} bytes of frames, its header "
                    f"{header.uncompressed_length}"
                )
            return self._decompressor.decompress(payload, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise LogDamaged(f"record {header.position}: its payload does not decompress: {error}") from error


def read_header(buffer: bytes, offset: int) -> RecordHeader:
    """The header of the record at `offset`; the whole record must lie within `buffer`. Its checksum is not checked.

    Raises:
        LogDamaged: There is no whole record, or a field holds what no record can hold.
    """
    available = len(buffer) - offset
    if available < HEADER_BYTES:
        raise LogDamaged(
            f"a record header takes {HEADER_BYTES} bytes; {max(available, 0)} are there at offset {offset}"
        )
    (
        magic,
        checksum,
        length,
        uncompressed_length,
        epoch,
        lsn,
        committed_at_ms,
        page_count,
        group,
        shard,
        kind_number,
        flags,
    ) = _HEADER.unpack_from(buffer, offset)
    kind = _KINDS.get(kind_number)
    if magic != MAGIC:
        raise LogDamaged(f"no record begins at offset {offset}: {magic!r} stands there, not {MAGIC!r}")
    if kind is None or flags > _COMPRESSED or uncompressed_length > MAX_FRAMES_BYTES:
        raise LogDamaged(
            f"record at offset {offset}: kind {kind_number}, flags {flags}, {uncompressed_length} bytes of frames; "
            f"allowed are kinds {sorted(_KINDS)}, flags 0 or 1, up to {MAX_FRAMES_BYTES} bytes"
        )
    payload_length = length - HEADER_BYTES
    compressed = flags == _COMPRESSED
    if not (0 < payload_length < uncompressed_length if compressed else payload_length == uncompressed_length):
        raise LogDamaged(
            f"record at offset {offset}: {length} bytes in all do not go with {uncompressed_length} "
            f"{'compressed' if compressed else 'plain'} bytes of frames"
        )
    if length > available:
        raise LogDamaged(f"record at offset {offset} takes {length} bytes; {available} are there")
    if uncompressed_length and kind is not RecordKind.TRANSACTION:
        raise LogDamaged(
            f"record at offset {offset}: kind {kind.name} carries {uncompressed_length} bytes of frames"
        )
    return RecordHeader(
        kind,
        group,
        shard,
        Position(epoch, lsn),
        page_count,
        committed_at_ms,
        length,
        uncompressed_length,
        compressed,
        checksum,
    )


def check_checksum(buffer: bytes, offset: int, header: RecordHeader) -> None:
    """Check a record against its checksum.

    Raises:
        LogDamaged: They disagree.
    """
    found, end = 0, offset + header.length
    # CRC32C takes `bytes` only: a large record is not copied as a whole.
    for start in range(offset + _CHECKED_FROM, end, _CHECKED_AT_ONCE):
        found = google_crc32c.extend(found, buffer[start : min(start + _CHECKED_AT_ONCE, end)])
    if found != header.checksum:
        raise LogDamaged(
            f"record {header.position} at offset {offset}: its checksum is {header.checksum:08x}, "
            f"its bytes give {found:08x}"
        )


def headers(buffer: bytes, *, verify: bool = True) -> Iterator[tuple[RecordHeader, int]]:
    """The header and the offset of each record of a block, in order.

    Args:
        buffer: Whole records, back to back.
        verify: Check each record's checksum before it is yielded.

    Raises:
        LogDamaged: Something in the block is not a whole record, or contradicts its checksum.
    """
    offset = 0
    while offset < len(buffer):
        header = read_header(buffer, offset)
        if verify:
            check_checksum(buffer, offset, header)
        yield header, offset
        offset += header.length
