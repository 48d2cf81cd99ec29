"""Processes that stage a resync and install it, and each dies at one of its steps.

`python -m …` reads `STEP DIRECTORY` a line, and answers each with the exit code of a process for it. Those are
forks: importing would else take ten times as long as what they do.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from primary.resync_source import ResyncSource
from replica import apply, staging
from tests.unit.resync.harness import open_thread, resync_of
from tests.unit.shard_histories import CLUSTER, SHARD

CRASHED = 9


def crash_at(step: int) -> None:
    """Die before or after the steps that touch the disk, whichever is the one of this number."""
    steps = itertools.count()

    def maybe() -> None:
        if next(steps) == step:
            os._exit(CRASHED)

    def around(owner: Any, name: str) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        def instead(*arguments: Any, **named: Any) -> Any:
            maybe()
            result = original(*arguments, **named)
            maybe()
            return result

        setattr(owner, name, instead)

    around(os, "fsync")
    around(staging, "_sync_wal")
    around(staging, "sync_directory")
    around(Path, "rename")
    around(Path, "unlink")
    around(apply.ShardApplier, "_roll_back")
    around(apply.ShardApplier, "_truncate_and_commit")


async def run(directory: Path) -> None:
    async def never(_: int) -> None:
        raise TimeoutError

    source = ResyncSource(
        cluster_id=CLUSTER,
        group=0,
        shard_paths={SHARD: directory / "primary.db"},
        wait_committed=never,
        quorum_needs=lambda _: True,
    )
    thread = await open_thread(directory / "standby.db")
    await resync_of(thread).run(source.serve)
    await thread.run(thread.owned.install_staged)
    await thread.close()


def main() -> None:
    for line in sys.stdin:
        step, _, directory = line.rstrip("\n").partition(" ")
        child = os.fork()
        if child == 0:
            crash_at(int(step))
            asyncio.run(run(Path(directory)))
            return
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write(f"{code}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
