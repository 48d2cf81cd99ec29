"""Which entry an idempotency key made: a hash table over 64-bit hashes, in flat arrays.

A set of integers takes about 80 bytes for each. Here a key takes 8 for its hash and 6 to 12 for its slot.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
import xxhash

ENTRY_OVERHEAD_BYTES = 20
"""What an entry costs: its key's hash, and its share of the table and of what arrays hold ahead."""

_SMALLEST = 8


def key_hash(idempotency_key: str) -> int:
    """64 bits that stand for a key in memory, never 0; the entry itself settles a collision."""
    return xxhash.xxh3_64_intdigest(idempotency_key.encode()) or 1


class KeyIndex:
    """The idempotency keys of a session's entries, by their hashes. Both methods cost the same at any length.

    Linear probing (Knuth, Art of Computer Programming, volume 3, 6.4); at most two thirds of the slots are taken.
    """

    __slots__ = ("_hashes", "_mask", "_room", "_slots")

    def __init__(self) -> None:
        # The key's hash of each entry by seq - 1, 0 for none; a slot holds a seq, 0 for none.
        self._hashes = array("Q")
        self._slots = array("I", bytes(4 * _SMALLEST))
        self._mask = _SMALLEST - 1
        self._room = 2 * _SMALLEST // 3

    def append(self, idempotency_key: str) -> None:
        """The next entry has this key; an empty one: none."""
        if not idempotency_key:
            self._hashes.append(0)
            return
        digest = key_hash(idempotency_key)
        self._hashes.append(digest)
        if not self._room:
            self._grow()
            return
        self._room -= 1
        slots, mask = self._slots, self._mask
        slot = digest & mask
        while slots[slot]:
            slot = (slot + 1) & mask
        slots[slot] = len(self._hashes)

    def candidates(self, idempotency_key: str) -> Sequence[int]:
        """The seqs of entries whose keys have this key's hash: nearly always none or the one."""
        digest = key_hash(idempotency_key)
        slots, mask = self._slots, self._mask
        slot = digest & mask
        seq = slots[slot]
        if not seq:
            return ()
        found = []
        while seq:
            if self._hashes[seq - 1] == digest:
                found.append(seq)
            slot = (slot + 1) & mask
            seq = slots[slot]
        return found

    def _grow(self) -> None:
        """Twice the slots. All keys move at once: in each round, one for each slot that is free yet."""
        mask = 2 * self._mask + 1
        table = np.zeros(mask + 1, np.uint32)
        hashes = np.frombuffer(self._hashes, np.uint64)
        seqs = (np.flatnonzero(hashes) + 1).astype(np.uint32)
        slots = hashes[seqs - 1] & np.uint64(mask)
        placed = seqs.size
        while seqs.size:
            free = table[slots] == 0
            table[slots[free]] = seqs[free]
            waiting = table[slots] != seqs
            seqs = seqs[waiting]
            slots = (slots[waiting] + np.uint64(1)) & np.uint64(mask)
        self._slots = array("I", table.tobytes())
        self._mask = mask
        self._room = 2 * (mask + 1) // 3 - placed
