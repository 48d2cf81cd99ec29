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
    """Take the lowest niceness, for good; what else runs leaves a process still some share."""
    os.nice(NICENESS)
    # There is no such file without autogroups, and none that can be written in some containers.
    with contextlib.suppress(OSError):
        AUTOGROUP.write_text(str(NICENESS), encoding="ascii")


def give_way_to_all() -> None:
    """Take the policy for idle work, for good: run where nobody else would.

    The kernel looks at a processor that only such a process uses as at a free one, and where processors are not
    shared out by session, whoever wakes takes it at once, not at the end of the process's slice.
    """
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def processors() -> int:
    """How many processors this process, and what it starts, may use."""
    return len(os.sched_getaffinity(0))
