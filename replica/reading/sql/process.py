"""A worker process as the node holds it: start, ask, kill."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from replica.reading.sql.limits import SqlLimits
from replica.reading.sql.messages import LENGTHS


class WorkerGone(Exception):
    """The process ended or its pipes broke."""


class WorkerProcess:
    """One process and the two ends of its pipes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._requests = process.stdin
        self._answers = process.stdout
        self.reusable = False

    @classmethod
    async def start(cls, engine: str, limits: SqlLimits) -> WorkerProcess:
        """Start a process for a module's engine, within these limits; its first message says that it is ready."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # the directory in which the node runs holds no modules of ours, and maybe of somebody else
            "-m",
            "replica.reading.sql",
            engine,
            limits.to_argument(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # an interrupt at the terminal is for the node, which stops its workers itself
        )
        return cls(process)

    @property
    def alive(self) -> bool:
        """False once the process is known to have ended."""
        return self._process.returncode is None

    async def ask(self, request: bytes) -> tuple[dict[str, Any], bytes]:
        """Hand over a request and wait for its answer."""
        try:
            self._requests.write(request)
            await self._requests.drain()
        except (ConnectionError, RuntimeError) as error:
            raise WorkerGone(str(error)) from error
        return await self.receive()

    async def receive(self) -> tuple[dict[str, Any], bytes]:
        """The next message of the process."""
        try:
            head_length, body_length = LENGTHS.unpack(await self._answers.readexactly(LENGTHS.size))
            head = await self._answers.readexactly(head_length)
            body = await self._answers.readexactly(body_length)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise WorkerGone("its process ended") from error
        return json.loads(head), body

    def kill(self) -> bool:
        """End the process at once; False when it has ended already."""
        alive = self.alive
        if alive:
            self._process.kill()
        return alive

    async def ended(self) -> None:
        """Wait until the process is gone, and close its pipes."""
        self._requests.close()
        await self._process.wait()
