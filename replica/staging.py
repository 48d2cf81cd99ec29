"""A resync that may not go into its shard yet: its pages, safe in a file beside the shard until they are committed.

The file is complete or it does not exist: it is written under another name, and named `<shard>.staged` once it and
the shard that it continues are safe from a power cut. Numbers are big-endian:

    ======  ====  ==============  ==================================================================
    offset  size  field           meaning
    ======  ====  ==============  ==================================================================
         0     8  magic           `HWSTAGED`
         8     4  version         of the format: 1
        12     4  shard           the shard's number
        16     8  epoch           the position that the shard will contain …
        24     8  lsn
        32     4  page count      … and its pages then
        36     4  pages           how many pages follow
        40    16  base            the shard that they go into: xxh3_128 over its pages' hashes; 0: any
        56    16  checksum        xxh3_128 of everything before it
    ======  ====  ==============  ==================================================================

Then come blocks of up to 1024 pages, each with the count (4 bytes), the xxh3_128 of what follows, the numbers of
the pages (4 bytes each), and their images.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import xxhash

from agent_core.database.build import PAGE_SIZE
from agent_core.errors import ShardDamaged
from agent_core.log.segment import sync_directory
from agent_core.position import Position

STAGED_SUFFIX = ".staged"
UNFINISHED_SUFFIX = ".staging"

BLOCK_PAGES = 1024
"""4 MiB of pages are in memory at once."""

ANY_BASE = bytes(16)
"""All of the shard's pages are there, so it does not matter what they are written over."""

_MAGIC = b"HWSTAGED"
_VERSION = 1
_HEADER = struct.Struct(">8sIIQQII16s")
_BLOCK = struct.Struct(">I16s")
_digest = xxhash.xxh3_128_digest


@dataclass(frozen=True, slots=True)
class StagedPages:
    """A complete side file.

    Attributes:
        path: The file.
        position: What the shard contains once the pages are installed.
        page_count: The pages that it has then.
        pages: How many pages the file holds.
        base: The digest (`agent_core.database.pages.page_digest`) of the shard that they go into, or `ANY_BASE`.
    """

    path: Path
    position: Position
    page_count: int
    pages: int
    base: bytes

    @classmethod
    def write(
        cls,
        shard_path: Path,
        *,
        shard: int,
        position: Position,
        page_count: int,
        base: bytes,
        numbers: Sequence[int],
        page: Callable[[int], bytes],
    ) -> StagedPages:
        """Write the side file of a shard, durably; one that is there already is replaced in one step.

        Args:
            shard_path: The shard.
            shard: Its number.
            position: See above, as the next two.
            page_count: …
            base: …
            numbers: The pages to keep.
            page: Returns the image of a page by its number.

        Raises:
            OSError: The disk is full or failed; what was there before stays.
        """
        unfinished = shard_path.with_name(shard_path.name + UNFINISHED_SUFFIX)
        staged = cls(
            shard_path.with_name(shard_path.name + STAGED_SUFFIX), position, page_count, len(numbers), base
        )
        header = _HEADER.pack(_MAGIC, _VERSION, shard, *position, page_count, len(numbers), base)
        try:
            with unfinished.open("wb") as file:
                file.write(header + _digest(header))
                for start in range(0, len(numbers), BLOCK_PAGES):
                    block = numbers[start : start + BLOCK_PAGES]
                    content = struct.pack(f">{len(block)}I", *block) + b"".join([page(number) for number in block])
                    file.write(_BLOCK.pack(len(block), _digest(content)) + content)
                file.flush()
                os.fsync(file.fileno())
            _sync_wal(shard_path)
            unfinished.rename(staged.path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        sync_directory(shard_path.parent)
        return staged

    @classmethod
    def find(cls, shard_path: Path, shard: int) -> StagedPages | None:
        """The complete side file of a shard, if there is one; one that was never completed is dropped.

        Raises:
            ShardDamaged: It is not what `write` wrote.
        """
        shard_path.with_name(shard_path.name + UNFINISHED_SUFFIX).unlink(missing_ok=True)
        path = shard_path.with_name(shard_path.name + STAGED_SUFFIX)
        try:
            with path.open("rb") as file:
                return cls._read_header(path, file, shard)
        except FileNotFoundError:
            return None

    def blocks(self) -> Iterator[tuple[tuple[int, ...], bytes]]:
        """The pages: the numbers of up to 1024, and their images back to back.

        Raises:
            ShardDamaged: The file does not hold what was written.
        """
        left = self.pages
        with self.path.open("rb") as file:
            file.seek(_HEADER.size + 16)
            while left:
                count, digest = _BLOCK.unpack(self._exactly(file, _BLOCK.size))
                if not 1 <= count <= min(left, BLOCK_PAGES):
                    raise ShardDamaged(f"{self.path.name}: a block of {count} pages where {left} are left")
                content = self._exactly(file, count * (4 + PAGE_SIZE))
                if _digest(content) != digest:
                    raise ShardDamaged(f"{self.path.name}: a block contradicts its checksum")
                left -= count
                yield struct.unpack_from(f">{count}I", content), content[4 * count :]

    @classmethod
    def _read_header(cls, path: Path, file: BinaryIO, shard: int) -> StagedPages:
        data = file.read(_HEADER.size + 16)
        header, digest = data[: _HEADER.size], data[_HEADER.size :]
        if len(data) < _HEADER.size + 16 or _digest(header) != digest:
            raise ShardDamaged(f"{path.name}: the header contradicts its checksum")
        magic, version, owner, epoch, lsn, page_count, pages, base = _HEADER.unpack(header)
        if (magic, version, owner) != (_MAGIC, _VERSION, shard):
            raise ShardDamaged(
                f"{path.name} is {magic!r}, version {version}, of shard {owner}; allowed are {_MAGIC!r}, version "
                f"{_VERSION}, of shard {shard}"
            )
        return cls(path, Position(epoch, lsn), page_count, pages, base)

    def _exactly(self, file: BinaryIO, size: int) -> bytes:
        data = file.read(size)
        if len(data) < size:
            raise ShardDamaged(f"{self.path.name} ends before its {self.pages} pages")
        return data


def discard_staged(shard_path: Path) -> None:
    """Delete what is staged for a shard, durably; nothing need be there.

    One that came back after a power cut would be installed into another shard than it continues.
    """
    shard_path.with_name(shard_path.name + STAGED_SUFFIX).unlink(missing_ok=True)
    sync_directory(shard_path.parent)


def _sync_wal(shard_path: Path) -> None:
    """Make the shard itself durable as it stands: pages that are staged continue just this.

    SQLite has synced what it moved into the main file; the end of the WAL it has not (`synchronous=NORMAL`).
    """
    wal_path = shard_path.with_name(shard_path.name + "-wal")
    try:
        descriptor = os.open(wal_path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
