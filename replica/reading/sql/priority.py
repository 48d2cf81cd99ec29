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
    """Take the lowest priority, for good."""
    os.nice(NICENESS)
    # There is no such file without autogroups, and none that can be written in some containers.
    with contextlib.suppress(OSError):
        AUTOGROUP.write_text(str(NICENESS), encoding="ascii")
