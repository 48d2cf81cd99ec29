"""How worker processes give way to replication when processors are short."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

NICENESS = 19
AUTOGROUP = Path("/proc/self/autogroup")
"""Linux's autogroups share out processors by session, and a process's niceness counts only within one: a worker,
which has a session of its own, would get as much as the whole node. So a session has a niceness too."""


def give_way() -> None:
    """Take the lowest priority, for good.

    The policy for idle work has the kernel look at a processor that only a worker uses as at a free one, and where
    processors are not shared out by session, whoever wakes takes it at once, not at the end of the worker's slice.
    """
    os.nice(NICENESS)
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    # There is no such file without autogroups, and none that can be written in some containers.
    with contextlib.suppress(OSError):
        AUTOGROUP.write_text(str(NICENESS), encoding="ascii")


def processors() -> int:
    """How many processors this process, and what it starts, may use."""
    return len(os.sched_getaffinity(0))
