"""A node whose disk can become slow and whose wall clock can step, as files beside its configuration say.

Slowed are the syncs that promises rest on: those of the replication log, the seals and the marks. SQLite's own, at
checkpoints, are not. Stepped is the wall clock that Python code reads; the monotonic one goes on, as it should.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ops.cli.main import main as run_command

SYNC_FILE = "sync-seconds"
"""Each sync takes so much longer."""
CLOCK_FILE = "clock-seconds"
"""The wall clock is so far from the true time."""
NANOSECONDS = 1_000_000_000


def weaken(folder: Path) -> None:
    """Slow the syncs and step the clock of this process from now on, as the folder's files say at each moment."""

    def told(file: str) -> float:
        return float((folder / file).read_text(encoding="ascii"))

    def slowed(sync: Callable[[Any], None]) -> Callable[[Any], None]:
        def slow(descriptor: Any) -> None:
            time.sleep(told(SYNC_FILE))
            sync(descriptor)

        return slow

    true_time, true_time_ns = time.time, time.time_ns
    replaced: dict[Any, dict[str, Any]] = {
        os: {"fsync": slowed(os.fsync), "fdatasync": slowed(os.fdatasync)},
        time: {
            "time": lambda: true_time() + told(CLOCK_FILE),
            "time_ns": lambda: true_time_ns() + int(told(CLOCK_FILE) * NANOSECONDS),
        },
    }
    for module, functions in replaced.items():
        for name, function in functions.items():
            setattr(module, name, function)


def main() -> None:
    """Run the node that the command line names."""
    weaken(Path(sys.argv[-1]).parent)
    run_command(args=["node", *sys.argv[1:]])


if __name__ == "__main__":
    main()
