"""Whether a Raft journal is one that a run of Raft left, and room for it on the disk.

Pysyncobj has no checksums; what a power cut tore mostly shows in the numbering. It writes through a memory map and
grows the file by a hole: on a full disk the write to that would end the process with SIGBUS.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

JOURNAL_BYTES = 4 << 20
"""Far more than the journal holds before it is replaced by a dump."""


class JournalEntry(NamedTuple):
    """Where an entry of the journal stands."""

    number: int
    term: int


def check_journal(entries: Sequence[JournalEntry], term: int) -> None:
    """Check a journal whose entries were read in order, and the term that stands beside them.

    Raises:
        ValueError: No run of Raft wrote this.
    """
    for before, after in pairwise(entries):
        if after.number != before.number + 1 or after.term < before.term:
            raise ValueError(f"entry {after.number} of term {after.term} follows {before.number} of {before.term}")
    if entries and entries[-1].term > term:
        raise ValueError("its last entry is of a term that never began")


def allocate_journal(path: Path) -> None:
    """Allocate the blocks of a journal's file.

    Raises:
        OSError: The disk has no room for it.
    """
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, JOURNAL_BYTES)
