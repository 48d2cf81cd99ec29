"""A worker process for SQL as the node holds it, seen from the node's event loop."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import threading
from typing import Any

import pytest

from replica.reading.sql.limits import SqlLimits
from replica.reading.sql.process import WorkerProcess
from replica.reading.sql.workers import SQLITE_ENGINE
from tests.waiting import until

Popen = subprocess.Popen[bytes]


class HeldUp:
    """Holds up every start of a process until it is told to go on, and keeps what was started."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.in_time: list[bool] = []
        self.started: list[Popen] = []
        start = subprocess.Popen

        def held_up(*arguments: Any, **settings: Any) -> Popen:
            self.begun.set()
            self.in_time.append(self.go_on.wait(10))
            self.started.append(start(*arguments, **settings))
            return self.started[-1]

        monkeypatch.setattr(subprocess, "Popen", held_up)


async def test_the_event_loop_goes_on_while_a_process_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    held_up = HeldUp(monkeypatch)
    starting = asyncio.create_task(WorkerProcess.start(SQLITE_ENGINE, SqlLimits()))
    await until(held_up.begun.is_set)
    held_up.go_on.set()
    worker = await starting
    assert held_up.in_time == [True]
    assert await worker.receive() == ({"ready": True}, b"")
    assert worker.kill()
    await worker.ended()


async def test_a_process_whose_start_is_called_off_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    held_up = HeldUp(monkeypatch)
    starting = asyncio.create_task(WorkerProcess.start(SQLITE_ENGINE, SqlLimits()))
    await until(held_up.begun.is_set)
    starting.cancel()
    held_up.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert held_up.started[0].returncode is not None
    del starting
    gc.collect()  # a socket that was left open would be told now, as a warning, which fails the test


async def test_a_process_ends_when_its_node_does() -> None:
    worker = await WorkerProcess.start(SQLITE_ENGINE, SqlLimits())
    await worker.receive()
    await worker.ended()  # closes the node's end, as the end of the node would, and waits
    assert not worker.alive
    assert not worker.kill()
