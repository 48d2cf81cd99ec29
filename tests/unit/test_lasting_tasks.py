"""What a node relies on for its whole life does not end in silence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from unittest.mock import MagicMock

import pytest
from structlog.testing import capture_logs

from ops import lasting_tasks
from ops.lasting_tasks import LastingTask, LastingTasks
from tests.waiting import until


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lasting_tasks, "RESTART_SECONDS", 0.001)


class Work:
    """Ends by itself in its first runs, as it is told to, and then runs on."""

    def __init__(self, *endings: BaseException | None) -> None:
        self._endings = list(endings)
        self.runs = 0

    async def __call__(self) -> None:
        self.runs += 1
        if not self._endings:
            await asyncio.Event().wait()
        ending = self._endings.pop(0)
        if ending is not None:
            raise ending


@pytest.fixture
async def tasks() -> AsyncIterator[LastingTasks]:
    tasks = LastingTasks()
    yield tasks
    for task in tasks._tasks:
        await task.stop()


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        (ValueError("an odd value"), "ValueError: an odd value"),
        (AssertionError("never"), "AssertionError: never"),
        (asyncio.CancelledError("what it waited for"), "CancelledError: what it waited for"),
        (None, "its work was over"),
    ],
)
async def test_a_task_that_ends_by_itself_is_logged_told_and_started_again(
    tasks: LastingTasks, ending: BaseException | None, reason: str
) -> None:
    work = Work(ending)
    with capture_logs() as logs:
        tasks.start("sweep", work)
        await until(lambda: work.runs == 2)
    assert [(entry["event"], entry["task"], entry["log_level"]) for entry in logs] == [
        ("a task ended by itself", "sweep", "error")
    ]
    assert list(tasks.troubles()) == [f"sweep ended by itself and is started again: {reason}"]


async def test_a_task_that_runs_well_again_is_no_trouble_any_more(
    tasks: LastingTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work(ValueError("once"))
    task = tasks.start("sweep", work)
    await until(lambda: work.runs == 2)
    now = asyncio.get_running_loop().time()
    clock = MagicMock(time=lambda: now + 0.9 * lasting_tasks.STEADY_SECONDS)
    monkeypatch.setattr(task, "_loop", clock)
    assert list(tasks.troubles())
    clock.time = lambda: now + 1.1 * lasting_tasks.STEADY_SECONDS
    assert not list(tasks.troubles())


async def test_a_task_that_fails_again_and_again_stays_a_trouble(tasks: LastingTasks) -> None:
    work = Work(*[ValueError("again")] * 5)
    tasks.start("sweep", work)
    await until(lambda: work.runs > 1)
    while work.runs < 5:
        assert list(tasks.troubles())
        await asyncio.sleep(0)


async def test_a_task_that_is_told_to_end_ends_and_is_no_trouble(tasks: LastingTasks) -> None:
    work = Work()
    task: LastingTask = tasks.start("sweep", work)
    await until(lambda: work.runs == 1)
    await task.stop()
    assert task._task.cancelled()
    assert list(tasks.troubles()) == []
    assert work.runs == 1
