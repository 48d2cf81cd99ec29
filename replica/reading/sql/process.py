"""A worker process as the node holds it: start, ask, kill."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from typing import Any

from agent_core.uninterrupted import to_its_end
from replica.reading.sql.limits import SqlLimits
from replica.reading.sql.messages import LENGTHS

Process = subprocess.Popen[bytes]


class WorkerGone(Exception):
    """The process ended or its socket broke."""


class WorkerProcess:
    """One process, and the node's end of the socket that is its standard input and output."""

    def __init__(self, process: Process, answers: asyncio.StreamReader, requests: asyncio.StreamWriter) -> None:
        self._process = process
        self._answers = answers
        self._requests = requests
        self.reusable = False

    @classmethod
    async def start(cls, engine: str, limits: SqlLimits) -> WorkerProcess:
        """Start a process for a module's engine, within these limits; its first message says that it is ready."""
        ours, theirs = socket.socketpair()
        with theirs:
            answers, requests = await asyncio.open_unix_connection(sock=ours)
            try:
                process = await _started([engine, limits.to_argument()], theirs)
            except BaseException:
                requests.close()
                raise
        return cls(process, answers, requests)

    @property
    def alive(self) -> bool:
        """False once the process has ended."""
        return self._process.poll() is None

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
        """Close the socket, and wait until the process is gone."""
        self._requests.close()
        await asyncio.to_thread(self._process.wait)


async def _started(arguments: list[str], theirs: socket.socket) -> Process:
    """Start a process in a thread: until the new program runs, whoever started it stands still.

    That is short with `subprocess`, which lends the process its memory meanwhile (vfork). uvloop's way of starting
    processes stands still itself, and copies the tables of all memory: 20 ms in a node.
    """

    def start() -> Process:
        return subprocess.Popen(  # noqa: S603 - this interpreter, and arguments that are ours
            # -P: the directory in which the node runs holds no modules of ours, and maybe of somebody else
            (sys.executable, "-P", "-m", "replica.reading.sql", *arguments),
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            start_new_session=True,  # an interrupt at the terminal is for the node, which stops its workers itself
        )

    starting = asyncio.get_running_loop().run_in_executor(None, start)
    try:
        return await to_its_end(starting)
    except asyncio.CancelledError:
        if starting.exception() is None:
            process = starting.result()
            process.kill()
            await to_its_end(asyncio.to_thread(process.wait))
        raise
