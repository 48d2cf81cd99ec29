"""Which processors the parts of a benchmark may use."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class Cores:
    """Sets of processors. With two there are two sides: the standby and who reads from it, and everything else.

    Attributes:
        apart: Whether there is more than one processor, so that the sets differ.
        primary: The primary's.
        standby: The standby's that is read from.
        readers: Of those who read from it.
        rest: Of other standbys and of those who append.
    """

    apart: bool
    primary: frozenset[int]
    standby: frozenset[int]
    readers: frozenset[int]
    rest: frozenset[int]

    @classmethod
    def of_this_machine(cls) -> Self:
        """Share out the processors that this process may use."""
        allowed = sorted(os.sched_getaffinity(0))
        primary, standby, readers, rest = {1: (0, 0, 0, 0), 2: (0, 1, 1, 0), 3: (0, 1, 1, 2)}.get(
            len(allowed), (0, 1, 2, 3)
        )
        others = frozenset(allowed[rest:]) if len(allowed) > rest > 1 else frozenset(allowed[rest : rest + 1])
        return cls(
            apart=len(allowed) > 1,
            primary=frozenset(allowed[primary : primary + 1]),
            standby=frozenset(allowed[standby : standby + 1]),
            readers=frozenset(allowed[readers : readers + 1]),
            rest=others,
        )


def pin(cores: frozenset[int]) -> None:
    """Keep this process, and what it starts from now on, to some processors."""
    pin_node(os.getpid(), cores)


def pin_node(pid: int | None, cores: frozenset[int]) -> None:
    """Keep every thread of a process to some processors; threads that it starts later inherit that."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), cores)
