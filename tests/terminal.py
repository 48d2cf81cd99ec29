"""Commands as a person sees them, on a terminal, and as a script does, through a pipe."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import signal
import sys
import termios
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

# What a shell runs in its background, as tests may be, begins with interrupts ignored.
HEADWATER = ("env", "--default-signal=INT", sys.executable, "-P", "-m", "ops.cli.main")
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Shown:
    """A command that runs, and what it has shown."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._drawn = bytearray()
        self._complete = asyncio.Event()

    @property
    def text(self) -> str:
        """What it showed, without what moves the cursor or sets colours: one picture after the other."""
        return CONTROL.sub("", self._drawn.decode(errors="replace"))

    def take(self, written: bytes) -> None:
        """Add what it wrote; nothing: that was all."""
        self._drawn += written
        if not written:
            self._complete.set()

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)

    async def end(self) -> int:
        """Wait until it has ended and all that it wrote is here; returns its exit code."""
        await self._complete.wait()
        return await self._process.wait()


@asynccontextmanager
async def on_terminal(*arguments: str, columns: int = 80, lines: int = 24) -> AsyncIterator[tuple[Shown, int]]:
    """`headwater` with these arguments on a terminal, and a file descriptor to type on; killed if it still runs."""
    controller, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (lines, columns))
    process = await asyncio.create_subprocess_exec(
        *HEADWATER,
        *arguments,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm-256color"},
    )
    os.close(terminal)
    shown, loop = Shown(process), asyncio.get_running_loop()

    def read() -> None:
        try:
            written = os.read(controller, 65536)
        except OSError:  # so a terminal ends whose last process is gone
            written = b""
        shown.take(written)
        if not written:
            loop.remove_reader(controller)

    loop.add_reader(controller, read)
    try:
        yield shown, controller
    finally:
        loop.remove_reader(controller)
        await _killed(process)
        os.close(controller)


@asynccontextmanager
async def through_a_pipe(*arguments: str) -> AsyncIterator[Shown]:
    """`headwater` with these arguments and its output in a pipe; killed if it still runs."""
    process = await asyncio.create_subprocess_exec(*HEADWATER, *arguments, stdin=DEVNULL, stdout=PIPE)
    shown, printed = Shown(process), process.stdout
    assert printed is not None

    async def read() -> None:
        while written := await printed.read(65536):
            shown.take(written)
        shown.take(b"")

    reading = asyncio.create_task(read())
    try:
        yield shown
    finally:
        await _killed(process)
        await reading


async def _killed(process: Process) -> None:
    if process.returncode is None:
        process.kill()
        await process.wait()
