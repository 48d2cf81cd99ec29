"""Count and average over all entries, by a node's SQL over all shards and by one connection of SQLite.

SQLite is asked twice: the node's own statement over a view of all files, and one written for SQLite, which takes
only what it needs from each file before the UNION ALL.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import statistics
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from urllib.parse import quote

from agent_core.database.schema import shard_path
from agent_core.routing import ShardLayout
from ops.benchmarks.figures import Figures, Progress

SQL = "SELECT kind, count(*), avg(length(payload)) FROM entries GROUP BY kind"
TIMEOUT_MS = 30_000
MAX_ATTACHED = 8
"""SQLite attaches ten databases at most, so that it takes the files in portions of this many."""

WHOLE_ENTRIES = "SELECT * FROM {schema}.entries"
NEEDED_OF_ENTRIES = "SELECT kind, length(payload) AS characters FROM {schema}.entries"

Averages = dict[str, tuple[int, float]]
"""By kind: how many entries, and the average length of their payloads in characters."""


async def measure_aggregate(
    address: str, data_directory: Path, layout: ShardLayout, runs: int, progress: Progress
) -> Figures:
    """Seconds of each, as medians of runs in turn; the first of each fills caches and does not count.

    Raises:
        RuntimeError: They came to different results.
    """
    paths = [shard_path(data_directory, layout.shard_file_name(shard)) for shard in range(layout.shard_count)]
    asked: dict[str, Callable[[], Averages]] = {
        "headwater": partial(_over_http, address),
        "sqlite": partial(_with_sqlite, paths, WHOLE_ENTRIES, "length(payload)"),
        "sqlite_written_for_it": partial(_with_sqlite, paths, NEEDED_OF_ENTRIES, "characters"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in asked}
    for run in range(runs + 1):
        progress("count and average", 0.4 + 0.1 * run / runs)
        answers: dict[str, Averages] = {}
        for name, ask in asked.items():
            started = time.perf_counter()
            answers[name] = await asyncio.to_thread(ask)
            if run:
                seconds[name].append(time.perf_counter() - started)
        if any(answer != answers["headwater"] for answer in answers.values()):
            raise RuntimeError(f"the answers differ: {answers}")
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    figures: Figures = {}
    for name, taken in seconds.items():
        figures[f"{name}_seconds"] = round(medians[name], 3)
        figures[f"{name}_seconds_all"] = [round(each, 3) for each in taken]
    figures["share_of_sqlite"] = round(medians["headwater"] / medians["sqlite"], 3)
    figures["share_of_sqlite_written_for_it"] = round(medians["headwater"] / medians["sqlite_written_for_it"], 3)
    return figures


def _over_http(address: str) -> Averages:
    body = json.dumps({"sql": SQL, "timeout_ms": TIMEOUT_MS}).encode()
    request = urllib.request.Request(f"http://{address}/v1/query", data=body)
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - as above
        return {kind: (count, average) for kind, count, average in json.load(answer)["rows"]}


def _with_sqlite(paths: list[Path], of_each: str, characters: str) -> Averages:
    """`of_each` is what is taken of each file's table, and `characters` the length of a payload in it."""
    totals: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    with closing(sqlite3.connect(":memory:", uri=True, isolation_level=None)) as connection:
        for start in range(0, len(paths), MAX_ATTACHED):
            portion = paths[start : start + MAX_ATTACHED]
            for number, path in enumerate(portion):
                connection.execute(f"ATTACH ? AS shard_{number}", (f"file:{quote(str(path))}?mode=ro",))
            tables = (of_each.format(schema=f"shard_{number}") for number in range(len(portion)))
            connection.execute(f"CREATE TEMP VIEW entries AS {' UNION ALL '.join(tables)}")
            for kind, count, total in connection.execute(
                f"SELECT kind, count(*), sum({characters}) FROM entries GROUP BY kind"  # noqa: S608 - our own
            ):
                totals[kind][0] += count
                totals[kind][1] += total
            connection.execute("DROP VIEW temp.entries")
            for number in range(len(portion)):
                connection.execute(f"DETACH shard_{number}")
    return {kind: (count, total / count) for kind, (count, total) in totals.items()}
