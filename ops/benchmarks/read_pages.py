"""The first page of a long session list by filter, and a transcript, over HTTP from one standby."""

from __future__ import annotations

import asyncio
import http.client
import time
from collections.abc import Callable
from concurrent.futures import Executor
from urllib.parse import urlencode

from agent_core.cluster import HostPort
from ops.benchmarks.figures import Figures, Progress, percentile
from ops.benchmarks.read_data import LONG_SESSION, LONG_SESSION_ENTRIES, STARTED_AT_MS

FILTERS: dict[str, dict[str, str]] = {
    "none": {},
    "workspace": {"workspace": "workspace-7"},
    "status": {"status": "running"},
    "model": {"model": "model-3"},
    "all_three": {"workspace": "workspace-7", "status": "running", "model": "model-1"},
    "time": {"updated_before_ms": str(STARTED_AT_MS + 5 * 10**8)},
    "text_often": {"text": "parser"},
    "text_once": {"text": "session-99999 "},
    "text_never": {"text": "nowhere"},
    "by_creation": {"sort": "created", "status": "running"},
    "by_title": {"sort": "title", "workspace": "workspace-7"},
}
TRANSCRIPT_PATH = f"/v1/sessions/{LONG_SESSION}/transcript?{urlencode({'limit': LONG_SESSION_ENTRIES})}"
WARM_REQUESTS = 20


async def measure_pages(address: str, readers: Executor, requests: int, progress: Progress) -> Figures:
    """Milliseconds from a request to its whole answer, over one kept connection from another process."""
    loop = asyncio.get_running_loop()

    async def measured(path: str) -> dict[str, float]:
        seconds = await loop.run_in_executor(readers, ask, address, [path], requests)
        return {
            "p50_ms": round(percentile(seconds, 0.5) * 1e3, 2),
            "p99_ms": round(percentile(seconds, 0.99) * 1e3, 2),
        }

    by_filter = {}
    for number, (name, asked) in enumerate(FILTERS.items()):
        progress("session list", 0.2 + 0.2 * number / len(FILTERS))
        by_filter[name] = await measured(f"/v1/sessions?{urlencode(asked)}")
    return {
        "requests": requests,
        "session_list": {
            "worst_p50_ms": max(figures["p50_ms"] for figures in by_filter.values()),
            "worst_p99_ms": max(figures["p99_ms"] for figures in by_filter.values()),
            "by_filter": by_filter,
        },
        "transcript": {"entries": LONG_SESSION_ENTRIES, **await measured(TRANSCRIPT_PATH)},
    }


def ask(address: str, paths: list[str], requests: int) -> list[float]:
    """Ask for paths in turn, one after another over one connection; how many seconds each request took."""
    return _ask(address, paths, lambda seconds: len(seconds) < requests)


def ask_for(address: str, paths: list[str], seconds: float) -> list[float]:
    """The same for some seconds, without pause."""
    ends_at = time.perf_counter() + seconds
    return _ask(address, paths, lambda _: time.perf_counter() < ends_at)


def _ask(address: str, paths: list[str], going_on: Callable[[list[float]], bool]) -> list[float]:
    host, port = HostPort.parse(address)
    connection = http.client.HTTPConnection(host, port, timeout=30)
    for number in range(WARM_REQUESTS):
        _answer(connection, paths[number % len(paths)])
    seconds: list[float] = []
    while going_on(seconds):
        started = time.perf_counter()
        _answer(connection, paths[len(seconds) % len(paths)])
        seconds.append(time.perf_counter() - started)
    connection.close()
    return seconds


def _answer(connection: http.client.HTTPConnection, path: str) -> None:
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != http.HTTPStatus.OK:
        raise RuntimeError(f"the node answered {path} with {answer.status}: {body[:200]!r}")
