"""Reads each transaction from its shard's WAL right after SQLite committed it.

The `-wal` file is read by hand; the shard file never is, since closing it would drop SQLite's locks.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from agent_core.database.build import PAGE_SIZE
from agent_core.database.wal import (
    FRAME_HEADER_SIZE,
    FRAME_SIZE,
    HEADER_SIZE,
    Checksum,
    FrameHeader,
    WalHeader,
    leading_run,
    verify_frames,
)
from agent_core.errors import ShardDamaged

FIRST_READ = 8
"""Frames read at once in the hope that a transaction ends within them; most have 2 to 6."""

FURTHER_READ = 64
"""Frames per read in the search for the end of a larger transaction."""


@dataclass(frozen=True, slots=True)
class CapturedTransaction:
    """One committed transaction.

    Attributes:
        frames: Raw WAL frames in file order; of several of one page the last counts.
        frame_count: How many.
        page_count: The database's size in pages after the transaction.
    """

    frames: bytes
    frame_count: int
    page_count: int


class _Boundary(NamedTuple):
    """A place between two transactions: its offset in the WAL, and the checksum up to it."""

    offset: int
    checksum: Checksum


class _Extent(NamedTuple):
    """Where a transaction ends, and what its commit mark says."""

    frame_count: int
    page_count: int
    end: _Boundary


class WalCapture:
    """Follows one shard's WAL, transaction by transaction; belongs to the thread that writes the shard.

    Made after the writing connection was opened and dropped with it: while that is open the `-wal` file is
    neither deleted nor replaced. Between two captures at most one transaction commits.
    """

    def __init__(self, wal_path: Path, *, in_use: bool = False) -> None:
        """Find the end of the last committed transaction, as SQLite's own recovery does.

        Args:
            wal_path: The `-wal` file.
            in_use: This process has had the WAL open since it began, so that it most likely ends with the last
                frame that has its salts. That is presumed at once, where checking every frame would take 6 µs for
                each, and made sure of by the first capture, which must not come before a transaction that changed
                something.

        Raises:
            OSError: The WAL exists and cannot be read.
        """
        self._path = wal_path
        self._file: int | None = None
        self._buffer = bytearray(FURTHER_READ * FRAME_SIZE)
        self._view = memoryview(self._buffer)
        self._header_bytes = b""
        self._header: WalHeader | None = None
        self._last_begin: _Boundary | None = None
        self._end: _Boundary | None = None
        self._end_is_presumed = in_use and self._presume_end()
        if not self._end_is_presumed:
            self._skip_what_is_there()
        self._end_is_read_from_file = self._last_begin is not None

    @property
    def wal_bytes(self) -> int:
        """Bytes of the WAL in use, up to the last captured transaction; 0 once a checkpoint truncated it."""
        if self._file is None or self._end is None or self._read_header(self._file) != self._header_bytes:
            return 0
        return self._end.offset

    def capture(self) -> CapturedTransaction | None:
        """The transaction that was committed since the last call; None if it changed nothing.

        A commit mark that was damaged to read "no commit" looks like a spilled transaction that was rolled back. So
        a caller that knows that its transaction changed something must take None for damage.

        Raises:
            ShardDamaged: What was committed contradicts the WAL's salts or checksum, or the WAL its header.
        """
        self._follow_restart()
        if self._end_is_presumed:
            self._end_is_presumed = False
            return self._capture_after_presumed_end()
        if self._end_is_read_from_file:
            self._end_is_read_from_file = False
            self._step_back_if_overwritten()
        if self._end is None:
            return None
        extent = self._find_end(self._end)
        if extent is None:
            return None
        transaction = self._load(self._end, extent)
        self._last_begin, self._end = self._end, extent.end
        return transaction

    def last_transaction(self) -> CapturedTransaction | None:
        """The last committed transaction that is in the WAL, captured before or not; None if there is none.

        After a crash this is what may have been committed without being logged. Where another process kept the
        shard open, it can even be one that SQLite does not show, because the crash fell between its frames and
        its entry in the shared index. So look for it only if the shard reads a position past its log's end.

        Raises:
            ShardDamaged: It contradicts the WAL's salts or checksum, or the WAL its header.
        """
        self._follow_restart()
        if self._end_is_presumed:
            self._end_is_presumed = False
            self._skip_everything()
        if self._last_begin is None:
            return None
        extent = self._find_end(self._last_begin)
        return None if extent is None else self._load(self._last_begin, extent)

    def close(self) -> None:
        """Release the file; may be called twice."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _presume_end(self) -> bool:
        """Take the last frame with the WAL's salts for its last transaction's end; False when it ends none.

        What lies behind it is older: it was written before the WAL began anew.
        """
        try:
            self._follow_restart()
        except ShardDamaged:
            return False
        if self._file is None or self._header is None:
            return False
        salts = self._header.salts
        in_file = range((os.fstat(self._file).st_size - HEADER_SIZE) // FRAME_SIZE)
        frames = bisect_left(in_file, True, key=lambda number: self._read_frame_header(number).salts != salts)
        if frames == 0:
            return False
        last = self._read_frame_header(frames - 1)
        if not last.page_count:
            return False
        self._end = _Boundary(HEADER_SIZE + frames * FRAME_SIZE, last.checksum)
        return True

    def _capture_after_presumed_end(self) -> CapturedTransaction | None:
        """The transaction behind the presumed end.

        If none that continues the frame there is found, SQLite did not end its WAL there: behind its end lay what
        had been spilled and rolled back. Then the transaction is the last one of all that the WAL holds.
        """
        if self._end is None:
            return None
        begin = self._end
        try:
            extent = self._find_end(begin)
        except ShardDamaged:
            extent = None
        if extent is None:
            self._skip_everything()
            return self.last_transaction()
        self._last_begin, self._end = begin, extent.end
        return self._load(begin, extent)

    def _skip_everything(self) -> None:
        """Find the end of the last transaction as if the WAL had been opened now, frame by frame."""
        self._last_begin = None
        self._end = None if self._header is None else _Boundary(HEADER_SIZE, self._header.checksum)
        self._skip_what_is_there()

    def _skip_what_is_there(self) -> None:
        """Move past every transaction that holds; the first thing that does not is the end, as for SQLite."""
        try:
            self._follow_restart()
            while self._end is not None and (extent := self._find_end(self._end)) is not None:
                self._last_begin, self._end = self._end, extent.end
        except ShardDamaged:
            assert self._file is not None
            # If it is the header that does not hold, the next commit writes another.
            self._header_bytes = self._read_header(self._file)

    def _follow_restart(self) -> None:
        """Begin anew if the WAL was created, truncated or restarted since the last look.

        Raises:
            ShardDamaged: It has a new header that is not sound.
        """
        if self._file is None:
            try:
                self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return
        header_bytes = self._read_header(self._file)
        if header_bytes == self._header_bytes:
            return
        header = WalHeader.parse(header_bytes) if len(header_bytes) == HEADER_SIZE else None
        self._header_bytes, self._header = header_bytes, header
        self._last_begin = None
        self._end = None if header is None else _Boundary(HEADER_SIZE, header.checksum)

    def _step_back_if_overwritten(self) -> None:
        """Drop the last transaction that the file showed at the start if SQLite did not know it and wrote over it.

        That is so if another process kept the shared index alive over the crash of a writer that had written
        the transaction's frames but not yet entered them.
        """
        if self._last_begin is None:
            return
        extent = self._find_end(self._last_begin)
        if extent is None or extent.end != self._end:
            self._last_begin, self._end = None, self._last_begin

    def _find_end(self, begin: _Boundary) -> _Extent | None:
        """Find the end of the transaction that begins at a boundary; None if no commit mark follows.

        Without a commit mark, broken checksums prove nothing: what a rolled-back transaction spilled may have
        been rewritten in place, or overwritten in part, and then lies there with checksums that no longer chain.

        Raises:
            ShardDamaged: A commit mark follows, but the frames before it do not hold; or the pages have a size
                that this project does not use.
        """
        assert self._header is not None
        if self._header.page_size != PAGE_SIZE:
            raise ShardDamaged(f"{self._path.name}: page size is {self._header.page_size}; allowed is {PAGE_SIZE}")
        frame_count = sound_count = 0
        checksum = begin.checksum
        wanted = FIRST_READ
        try:
            while (count := self._read(begin.offset + frame_count * FRAME_SIZE, wanted)) > 0:
                run = leading_run(self._buffer, count, self._header.salts)
                sound, checksum = verify_frames(
                    self._buffer, run.frame_count, checksum, big_endian=self._header.big_endian
                )
                sound_count += sound  # past a frame that does not continue the checksum none does
                frame_count += run.frame_count
                if run.page_count:
                    break
                if run.frame_count < count:
                    return None
                wanted = FURTHER_READ
            else:
                return None
        except ShardDamaged as error:
            raise ShardDamaged(f"{self._path.name}, transaction at byte {begin.offset}: {error}") from error
        if sound_count < frame_count:
            raise ShardDamaged(
                f"{self._path.name}, transaction at byte {begin.offset}: frame {sound_count + 1} of {frame_count} "
                "contradicts its checksum"
            )
        end = _Boundary(begin.offset + frame_count * FRAME_SIZE, checksum)
        return _Extent(frame_count, run.page_count, end)

    @staticmethod
    def _read_header(file: int) -> bytes:
        return os.pread(file, HEADER_SIZE, 0)

    def _read_frame_header(self, number: int) -> FrameHeader:
        assert self._file is not None
        return FrameHeader.parse(os.pread(self._file, FRAME_HEADER_SIZE, HEADER_SIZE + number * FRAME_SIZE))

    def _read(self, offset: int, count: int) -> int:
        """Read up to `count` frames into the buffer; return how many whole ones there were."""
        assert self._file is not None
        return os.preadv(self._file, [self._view[: count * FRAME_SIZE]], offset) // FRAME_SIZE

    def _load(self, begin: _Boundary, extent: _Extent) -> CapturedTransaction:
        """The frames of a transaction whose end was just found.

        Raises:
            ShardDamaged: The file is shorter by now, or the transaction is longer than one read (2 GiB).
        """
        length = extent.frame_count * FRAME_SIZE
        if extent.frame_count <= FIRST_READ:
            frames = bytes(self._view[:length])
        else:
            assert self._file is not None
            frames = os.pread(self._file, length, begin.offset)
            if len(frames) < length:
                raise ShardDamaged(
                    f"{self._path.name}, transaction at byte {begin.offset}: {length} bytes long, but only "
                    f"{len(frames)} can be read at once"
                )
        return CapturedTransaction(frames, extent.frame_count, extent.page_count)
