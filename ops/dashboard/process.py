"""Starts the dashboard as a process of its own, for the demonstration and the tests."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from ops import dies_with_parent

COMMAND = (sys.executable, "-P", "-m", "ops.cli.main", "dashboard")
START_SECONDS = 30.0
STOP_SECONDS = 5.0
LAST_WORDS_CHARACTERS = 2000
ANSWERS = "dashboard: "
"""Begins the line that it prints once it answers; its address follows."""


class DashboardFailed(Exception):
    """The dashboard did not start; the message shows what it said."""


@asynccontextmanager
async def running_dashboard(
    nodes: Sequence[str], listen: str, log: Path, *, allowed_hosts: Sequence[str] = ()
) -> AsyncIterator[str]:
    """A dashboard that answers; yields its URL, and ends it.

    Args:
        nodes: HTTP addresses of nodes.
        listen: Where it serves, `host:port`.
        log: Where its complaints go.
        allowed_hosts: Further names by which browsers may ask it.

    Raises:
        DashboardFailed: It ended, or did not answer in time.
    """
    with log.open("wb") as complaints:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", dies_with_parent.__file__, str(os.getpid())),
            *COMMAND,
            *("--nodes", ",".join(nodes), "--listen", listen),
            *(part for host in allowed_hosts for part in ("--allowed-host", host)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=complaints,
            start_new_session=True,
        )
    try:
        yield await _address(process, log)
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()


async def _address(process: asyncio.subprocess.Process, log: Path) -> str:
    assert process.stdout is not None, "it is a pipe"
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), START_SECONDS)).decode()
    except TimeoutError:
        line = ""
    if not line.startswith(ANSWERS):
        raise DashboardFailed(f"the dashboard did not start: {_last_words(log)}")
    return line.removeprefix(ANSWERS).strip()


def _last_words(log: Path) -> str:
    return log.read_text(errors="replace").strip()[-LAST_WORDS_CHARACTERS:] or "it said nothing"
