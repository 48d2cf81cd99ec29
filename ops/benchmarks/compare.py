"""Appends of two builds, measured in turns, so that what else the machine does meets both alike."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

import ops
from agent_core.errors import Unavailable
from ops.benchmarks.figures import Figures, Goal, Progress, judged, over_runs, unheard

APPEND_COMMAND = (sys.executable, "-P", "-m", "ops.cli.main", "bench", "append", "--runs", "1", "--json")
ERROR_BYTES = 2000
"""How much of what a run said last is told when it fails."""

GOALS = (Goal("ratio", at_least=1.0),)


@dataclass(frozen=True, slots=True)
class ComparePlan:
    """How two builds are compared.

    Attributes:
        before: A checkout of the other build, whose `bench append` runs with the packages installed here.
        writers: Sessions that append at once.
        seconds: The length of each run.
        runs: How often each build is measured, on a new cluster each time.
    """

    before: Path
    writers: int = 64
    seconds: float = 5.0
    runs: int = 5


async def compare_builds(_directory: Path, plan: ComparePlan, progress: Progress = unheard) -> Figures:
    """`bench append` of this build and of another in turns; `ratio` is the rate here divided by the rate there.

    Raises:
        Unavailable: A run failed; the message ends with what it said last.
    """
    here = Path(ops.__file__).parent.parent
    runs = []
    for run in range(plan.runs):
        rates = {}
        builds = (("before", plan.before.resolve()), ("now", here))
        for name, checkout in builds if run % 2 else builds[::-1]:
            progress(f"run {run + 1}, {name}", run / plan.runs)
            rates[name] = await _measure(checkout, plan)
        before, now = rates["before"], rates["now"]
        runs.append(
            {
                "ratio": now["appends_per_second"] / before["appends_per_second"],
                "appends_per_second": now["appends_per_second"],
                "appends_per_second_before": before["appends_per_second"],
                "p50_ms": now["p50_ms"],
                "p50_ms_before": before["p50_ms"],
            }
        )
    digits = {"ratio": 3, "appends_per_second": 0, "appends_per_second_before": 0, "p50_ms": 2, "p50_ms_before": 2}
    figures: Figures = {"writers": plan.writers, "seconds": plan.seconds, **over_runs(runs, digits)}
    return {**figures, "goals": judged(figures, GOALS)}


async def _measure(checkout: Path, plan: ComparePlan) -> dict[str, Any]:
    """One run of a checkout's `bench append`."""
    process = await asyncio.create_subprocess_exec(
        *APPEND_COMMAND,
        "--writers",
        f"{plan.writers}",
        "--seconds",
        f"{plan.seconds}",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        # What this build sets for gRPC is its own: the other one has what it sets itself.
        env={**dict(os.environ.items() - ops.GRPC_SETTINGS.items()), "PYTHONPATH": str(checkout)},
    )
    try:
        printed, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    if process.returncode != 0:
        raise Unavailable(f"bench append in {checkout} failed: {said[-ERROR_BYTES:].decode(errors='replace')}")
    figures: dict[str, Any] = orjson.loads(printed)
    return figures
