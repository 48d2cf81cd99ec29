"""Tasks that shall run for as long as the node does.

A task that ends takes its error with it: nobody waits for it, so what it was for just stops. Whatever a node relies
on for its whole life is therefore started here. If it ends by itself, with an error or without, that is logged and
told in /healthz, and it is started again after a pause: a node goes on with its other groups meanwhile, and whoever
watches /healthz may restart it where that does not help.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import structlog

log = structlog.get_logger(__name__)

RESTART_SECONDS = 1.0
"""The pause before a task that ended is started again."""
STEADY_SECONDS = 10.0
"""How long it must run again until it counts as mended."""


class LastingTask:
    """One such task. Made by `LastingTasks.start`."""

    def __init__(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._name = name
        self._work = work
        self._loop = asyncio.get_running_loop()
        self._reason = ""
        self._mended_at = float("-inf")
        self._task = asyncio.create_task(self._run(), name=name)

    @property
    def trouble(self) -> str | None:
        """How the task ended by itself, until it has run well for a while again; None when it did not."""
        if self._loop.time() >= self._mended_at:
            return None
        return f"{self._name} ended by itself and is started again: {self._reason}"

    async def stop(self) -> None:
        """End the task; returns once it has ended."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                await self._work()
                self._reason = "its work was over"
                log.error("a task ended by itself", task=self._name)
            except (Exception, asyncio.CancelledError) as error:
                # What the task waited for may have been cancelled, and not the task itself.
                if self._told_to_end:
                    raise
                self._reason = f"{type(error).__name__}: {error}"
                log.exception("a task ended by itself", task=self._name)
            self._mended_at = self._loop.time() + RESTART_SECONDS + STEADY_SECONDS
            await asyncio.sleep(RESTART_SECONDS)

    @property
    def _told_to_end(self) -> bool:
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0


class LastingTasks:
    """All of a node's lasting tasks."""

    def __init__(self) -> None:
        self._tasks: list[LastingTask] = []

    def start(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> LastingTask:
        """Run `work()` until the task is stopped, or this process ends.

        Args:
            name: What stands in the log and in /healthz.
            work: Called once more whenever it ended by itself.
        """
        task = LastingTask(name, work)
        self._tasks.append(task)
        return task

    def troubles(self) -> Iterator[str]:
        """What ended by itself lately, in a sentence each."""
        return (task.trouble for task in self._tasks if task.trouble is not None)
