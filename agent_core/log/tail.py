"""The newest records in memory, bounded in bytes, so that streaming does not read the disk."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from typing import NamedTuple


class _Piece(NamedTuple):
    offset: int
    data: bytes


class Tail:
    """Blocks as they were appended, found by the number of log bytes that lie before them.

    Attributes:
        start: The log offset of the first byte that is still here.
        end: The log offset behind the last.
    """

    def __init__(self, *, limit_bytes: int, end: int) -> None:
        self._limit_bytes = limit_bytes
        self._pieces: deque[_Piece] = deque()
        self.start = end
        self.end = end

    def append(self, data: bytes) -> None:
        """Add a block and let go of the oldest ones past the limit."""
        self._pieces.append(_Piece(self.end, data))
        self.end += len(data)
        while self.end - self.start > self._limit_bytes:
            self.start += len(self._pieces.popleft().data)

    def slice(self, start: int, stop: int) -> bytes | None:
        """The bytes from `start` to `stop`; None when some of them are no longer here."""
        if not self.start <= start < stop <= self.end:
            return None
        index = bisect_right(self._pieces, start, key=lambda piece: piece.offset) - 1
        parts: list[bytes] = []
        while start < stop:
            offset, data = self._pieces[index]
            # A slice of a whole `bytes` is that same object: the usual read copies nothing.
            part = data[start - offset : stop - offset]
            parts.append(part)
            start += len(part)
            index += 1
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def cut(self, end: int) -> None:
        """Let go of everything from the log offset `end` on."""
        while self._pieces and self._pieces[-1].offset >= end:
            self._pieces.pop()
        if self._pieces:
            offset, data = self._pieces.pop()
            self._pieces.append(_Piece(offset, data[: end - offset]))
        self.end = end
        self.start = min(self.start, end)
