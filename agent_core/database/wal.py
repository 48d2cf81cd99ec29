"""The format of SQLite's write-ahead log, as pure functions over bytes (https://www.sqlite.org/fileformat2.html#walformat).

A WAL is a header and frames; a frame is a header and a page. A frame belongs to the WAL's present run if it
repeats the header's salts and carries the checksum of everything up to it; behind the present run lie
frames of former runs, and frames of transactions that were rolled back after they had been spilled. The
last frame of a transaction, and only that, holds the size of the database: the commit mark.

The checksum takes two 32-bit words at a time: `first += word + second; second += next_word + first`. That is
linear modulo 2**32, so over a whole frame it is what the words weigh plus what the checksum before it weighs,
with Fibonacci numbers as weights.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agent_core.database.build import PAGE_SIZE
from agent_core.errors import ShardDamaged

HEADER_SIZE = 32
FRAME_HEADER_SIZE = 24
FRAME_SIZE = FRAME_HEADER_SIZE + PAGE_SIZE

FORMAT_VERSION = 3007000
MAGIC_LITTLE_ENDIAN = 0x377F0682
MAGIC_BIG_ENDIAN = 0x377F0683

_MODULUS = 1 << 32
_MASK = _MODULUS - 1
_WORDS = FRAME_SIZE // 4
_CHECKSUMMED_WORDS = (0, 1, *range(FRAME_HEADER_SIZE // 4, _WORDS))
"""Of a frame's header only the page number and the commit mark are checksummed; salts and checksum are not."""

_read_frame_header = struct.Struct(">4I").unpack_from
_read_frame_checksum = struct.Struct(">16x2I").unpack_from

Buffer = bytes | bytearray | memoryview


class Checksum(NamedTuple):
    """A running checksum: of the WAL from its header up to some frame."""

    first: int
    second: int


@dataclass(frozen=True, slots=True)
class WalHeader:
    """The header of a WAL: what the frames of its present run must agree with.

    Attributes:
        big_endian: Checksums read words in big-endian order (they are stored in it in either case).
        page_size: Bytes per page.
        checkpoint_sequence: How often the WAL was restarted.
        salts: Two numbers that change with every restart.
        checksum: The header's own; the first frame continues it.
    """

    big_endian: bool
    page_size: int
    checkpoint_sequence: int
    salts: tuple[int, int]
    checksum: Checksum

    @classmethod
    def parse(cls, data: bytes) -> WalHeader:
        """Read a header.

        Raises:
            ShardDamaged: It is none that SQLite would accept.
        """
        if len(data) < HEADER_SIZE:
            raise ShardDamaged(f"WAL header: {len(data)} bytes; a whole one has {HEADER_SIZE}")
        magic, version, page_size, sequence, salt_1, salt_2, *stored = struct.unpack_from(">8I", data)
        if magic not in (MAGIC_LITTLE_ENDIAN, MAGIC_BIG_ENDIAN):
            raise ShardDamaged(
                f"WAL header: magic is {magic:#x}; allowed are {MAGIC_LITTLE_ENDIAN:#x} and {MAGIC_BIG_ENDIAN:#x}"
            )
        big_endian = magic == MAGIC_BIG_ENDIAN
        checksum = header_checksum(data, big_endian=big_endian)
        if checksum != tuple(stored):
            raise ShardDamaged(f"WAL header: its checksum is {tuple(stored)}, its content's {tuple(checksum)}")
        if version != FORMAT_VERSION:
            raise ShardDamaged(f"WAL header: format version is {version}; allowed is {FORMAT_VERSION}")
        return cls(big_endian, page_size, sequence, (salt_1, salt_2), checksum)


class FrameHeader(NamedTuple):
    """The header of one frame, as it stands there: nothing of it is checked.

    Attributes:
        page_number: Which page the frame holds.
        page_count: The commit mark: the database's size in pages after the transaction; 0 within one.
        salts: The run to which it belongs.
        checksum: Of the WAL up to the frame's end.
    """

    page_number: int
    page_count: int
    salts: tuple[int, int]
    checksum: Checksum

    @classmethod
    def parse(cls, frame: Buffer) -> FrameHeader:
        """Read the header of a frame that begins with `frame`, of at least 24 bytes."""
        page_number, page_count, *salts = _read_frame_header(frame)
        return cls(page_number, page_count, (salts[0], salts[1]), Checksum(*_read_frame_checksum(frame)))


class Run(NamedTuple):
    """Leading frames that belong to one transaction of the present run.

    Attributes:
        frame_count: How many; fewer than were looked at when a commit mark or another run's frame ends them.
        page_count: The commit mark: the database's size in pages after the transaction; 0 if none was reached.
    """

    frame_count: int
    page_count: int


def leading_run(frames: Buffer, count: int, salts: tuple[int, int]) -> Run:
    """Follow `count` frames by their headers up to the first commit mark, or to a frame of another run.

    Two runs never share a salt but by a chance of 1 in 2**32, so a frame that repeats one of two is damaged.

    Raises:
        ShardDamaged: A frame has one of its two salts from this run, or no page number.
    """
    for index in range(count):
        page_number, page_count, salt_1, salt_2 = _read_frame_header(frames, index * FRAME_SIZE)
        if (salt_1, salt_2) != salts:
            if salt_1 == salts[0] or salt_2 == salts[1]:
                raise ShardDamaged(f"WAL frame: its salts are {(salt_1, salt_2)}, its WAL's {salts}")
            return Run(index, 0)
        if page_number == 0:
            raise ShardDamaged("WAL frame: its page number is 0; pages are numbered from 1")
        if page_count:
            return Run(index + 1, page_count)
    return Run(count, 0)


def verify_frames(
    frames: Buffer, count: int, checksum: Checksum, *, big_endian: bool = False
) -> tuple[int, Checksum]:
    """How many of `count` leading frames continue `checksum` as they say, and the checksum after those."""
    words: NDArray[np.uint32] = np.frombuffer(frames, np.uint32, count * _WORDS).reshape(count, _WORDS)
    if big_endian != (sys.byteorder == "big"):
        words = words.byteswap()
    # Of numpy's ways to multiply integers modulo 2**32, einsum has the quickest loop: three times that of dot.
    weighed: list[list[int]] = np.einsum("ij,kj->ik", words, _WORD_WEIGHTS).tolist()
    first, second = checksum
    for index, (words_first, words_second) in enumerate(weighed):
        next_first = (words_first + _FIRST_BY_FIRST * first + _FIRST_BY_SECOND * second) & _MASK
        next_second = (words_second + _FIRST_BY_SECOND * first + _SECOND_BY_SECOND * second) & _MASK
        if _read_frame_checksum(frames, index * FRAME_SIZE) != (next_first, next_second):
            return index, Checksum(first, second)
        first, second = next_first, next_second
    return count, Checksum(first, second)


def header_checksum(data: Buffer, *, big_endian: bool) -> Checksum:
    """The checksum that a WAL header must carry: of its first 24 bytes."""
    first = second = 0
    words = struct.unpack_from(">6I" if big_endian else "<6I", data)
    for word, next_word in zip(words[::2], words[1::2], strict=True):
        first = (first + word + second) & _MASK
        second = (second + next_word + first) & _MASK
    return Checksum(first, second)


def _fibonacci(count: int) -> list[int]:
    """The first Fibonacci numbers from F(0) = 0, modulo 2**32."""
    numbers = [0, 1]
    while len(numbers) < count:
        numbers.append((numbers[-2] + numbers[-1]) % _MODULUS)
    return numbers


def _word_weights() -> NDArray[np.uint32]:
    """The weight of each word of a frame in either half of the checksum; 0 for a word that is left out.

    Of n words the one at j weighs F(n-1-j) in the first half and F(n-j) in the second.
    """
    weights = np.zeros((2, _WORDS), np.uint32)
    descending = _fibonacci(len(_CHECKSUMMED_WORDS) + 1)[::-1]
    weights[0, _CHECKSUMMED_WORDS] = descending[1:]
    weights[1, _CHECKSUMMED_WORDS] = descending[:-1]
    return weights


_WORD_WEIGHTS = _word_weights()
# What the checksum before a frame of n words weighs in the one after it: F(n-1), F(n) and F(n+1).
_FIRST_BY_FIRST, _FIRST_BY_SECOND, _SECOND_BY_SECOND = _fibonacci(len(_CHECKSUMMED_WORDS) + 2)[-3:]
