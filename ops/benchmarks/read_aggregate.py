"""Count and average over all entries, by a node's SQL over all shards and by one connection of SQLite."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import statistics
import time
import urllib.request
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from agent_core.database.schema import shard_path
from agent_core.routing import ShardLayout
from ops.benchmarks.figures import Figures, Progress

SQL = "SELECT kind, count(*), avg(length(payload)) FROM entries GROUP BY kind"
TIMEOUT_MS = 30_000
MAX_ATTACHED = 8
"""SQLite attaches ten databases at most, so that it takes the files in portions of this many."""

Averages = dict[str, tuple[int, float]]
"""By kind: how many entries, and the average length of their payloads in characters."""


async def measure_aggregate(
    address: str, data_directory: Path, layout: ShardLayout, runs: int, progress: Progress
) -> Figures:
    """Seconds of each, as medians of runs in turn; the first of each fills caches and does not count.

    Raises:
        RuntimeError: The two came to different results.
    """
    paths = [shard_path(data_directory, layout.shard_file_name(shard)) for shard in range(layout.shard_count)]
    ours, sqlites = [], []
    for run in range(runs + 1):
        progress("count and average", 0.4 + 0.1 * run / runs)
        started = time.perf_counter()
        answered = await asyncio.to_thread(_over_http, address)
        between = time.perf_counter()
        counted = await asyncio.to_thread(_with_sqlite, paths)
        ended = time.perf_counter()
        if answered != counted:
            raise RuntimeError(f"the node answered {answered}, and SQLite {counted}")
        if run:
            ours.append(between - started)
            sqlites.append(ended - between)
    return {
        "headwater_seconds": round(statistics.median(ours), 3),
        "headwater_seconds_all": [round(seconds, 3) for seconds in ours],
        "sqlite_seconds": round(statistics.median(sqlites), 3),
        "sqlite_seconds_all": [round(seconds, 3) for seconds in sqlites],
        "share_of_sqlite": round(statistics.median(ours) / statistics.median(sqlites), 3),
    }


def _over_http(address: str) -> Averages:
    body = json.dumps({"sql": SQL, "timeout_ms": TIMEOUT_MS}).encode()
    request = urllib.request.Request(f"http://{address}/v1/query", data=body)
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - as above
        return {kind: (count, average) for kind, count, average in json.load(answer)["rows"]}


def _with_sqlite(paths: list[Path]) -> Averages:
    totals: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    with closing(sqlite3.connect(":memory:", uri=True, isolation_level=None)) as connection:
        for start in range(0, len(paths), MAX_ATTACHED):
            portion = paths[start : start + MAX_ATTACHED]
            for number, path in enumerate(portion):
                connection.execute(f"ATTACH ? AS shard_{number}", (f"file:{quote(str(path))}?mode=ro",))
            tables = (f"SELECT * FROM shard_{number}.entries" for number in range(len(portion)))  # noqa: S608 - ours
            connection.execute(f"CREATE TEMP VIEW entries AS {' UNION ALL '.join(tables)}")
            for kind, count, total in connection.execute(
                "SELECT kind, count(*), sum(length(payload)) FROM entries GROUP BY kind"
            ):
                totals[kind][0] += count
                totals[kind][1] += total
            connection.execute("DROP VIEW temp.entries")
            for number in range(len(portion)):
                connection.execute(f"DETACH shard_{number}")
    return {kind: (count, total / count) for kind, (count, total) in totals.items()}
