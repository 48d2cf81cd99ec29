"""The encoded entries of one session, back to back in a few buffers instead of one object each."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator

BUFFER_BYTES = 32 << 10
"""A buffer takes entries up to this; a larger entry has one of its own."""

ENTRY_OVERHEAD_BYTES = 5
"""What an entry costs beyond its own bytes: where it ends, in an array that grows ahead of its use."""


class Transcript:
    """An append-only sequence of byte strings. Appending costs the same whatever its length."""

    __slots__ = ("_ends", "_firsts", "_full", "_open")

    def __init__(self) -> None:
        self._full: list[bytes] = []
        self._open = bytearray()
        # The index of the first entry of each buffer; where each entry ends in its own.
        self._firsts = array("I", [0])
        self._ends = array("I")

    def __len__(self) -> int:
        """How many there are."""
        return len(self._ends)

    def __getitem__(self, index: int) -> bytes:
        """The one at `index`, from 0.

        Raises:
            IndexError: There is none.
        """
        if not 0 <= index < len(self._ends):
            raise IndexError(f"index is {index}; allowed are 0 to {len(self._ends) - 1}")
        return next(self.since(index))

    def append(self, encoded: bytes) -> None:
        """Put one at the end."""
        buffer = self._open
        if buffer and len(buffer) + len(encoded) > BUFFER_BYTES:
            self._full.append(bytes(buffer))
            buffer = self._open = bytearray()
            self._firsts.append(len(self._ends))
        buffer += encoded
        self._ends.append(len(buffer))

    def since(self, index: int) -> Iterator[bytes]:
        """Those from `index` on, from 0, as far as there are any now."""
        number = bisect_right(self._firsts, index) - 1
        while index < len(self._ends):
            is_full = number < len(self._full)
            buffer = self._full[number] if is_full else self._open
            stop = self._firsts[number + 1] if is_full else len(self._ends)
            start = 0 if index == self._firsts[number] else self._ends[index - 1]
            for end in self._ends[index:stop]:
                yield bytes(buffer[start:end])
                start = end
            index, number = stop, number + 1
