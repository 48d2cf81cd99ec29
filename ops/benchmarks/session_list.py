"""What `headwater bench sessions` measures: the first page of a long session list over HTTP, by filter."""

from __future__ import annotations

import asyncio
import http.client
import random
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

from agent_core.cluster import HostPort
from agent_core.database.build import open_for_writing
from agent_core.database.schema import migrate, set_position, shard_path
from agent_core.position import Position
from agent_core.routing import ShardLayout
from ops.benchmarks.figures import Figures, Progress, unheard
from ops.cluster_files import free_ports
from ops.http import HttpServer, build_app
from ops.node_snapshot import NodeSnapshot
from replica.reading.http import reading_routes
from replica.reading.positions import AppliedPositions
from replica.reading.reading import Reading

FILTERS: dict[str, dict[str, str]] = {
    "none": {},
    "workspace": {"workspace": "workspace-7"},
    "status": {"status": "running"},
    "model": {"model": "model-3"},
    "all_three": {"workspace": "workspace-7", "status": "running", "model": "model-1"},
    "time": {"updated_before_ms": "500000000"},
    "text_often": {"text": "parser"},
    "text_once": {"text": "number 99999 "},
    "text_never": {"text": "nowhere"},
}
TAIL_ENTRIES = 200
"""Entries of each shard that are not folded yet, each of another session."""
CLUSTER_ID = "benchmark"

_INSERT_SESSION = (
    "INSERT INTO sessions (session_id, workspace, title, status, model, created_at, folded_updated_at)"
    " VALUES (?,?,?,?,?,?,?)"
)
_INSERT_ENTRY = "INSERT INTO entries (session, seq, kind, created_at, payload) VALUES (?, 1, 'message', ?, '{}')"


async def measure_session_list(
    directory: Path, *, sessions: int, requests: int, progress: Progress = unheard
) -> Figures:
    """Milliseconds from a request to its whole answer, over one kept connection to a server in this process."""
    layout = ShardLayout(shard_count=16)
    progress("writing sessions", 0.0)
    _write_shards(directory, layout, sessions)
    progress("asking", 0.5)
    reading = Reading.open(directory, layout, AppliedPositions(layout.shard_group_count))
    snapshot = NodeSnapshot(cluster_id=CLUSTER_ID, node_id="node-1", version="benchmark")
    address = f"127.0.0.1:{free_ports(1)[0]}"
    server = await HttpServer.start(build_app(lambda: snapshot, routes=reading_routes(reading)), address)
    try:
        figures = {name: await asyncio.to_thread(_ask, address, asked, requests) for name, asked in FILTERS.items()}
    finally:
        await server.stop()
        await reading.close()
    return {"sessions": sessions, "shards": layout.shard_count, "requests": requests, "filters": figures}


def _ask(address: str, asked: dict[str, str], requests: int) -> dict[str, float]:
    host, port = HostPort.parse(address)
    connection = http.client.HTTPConnection(host, port, timeout=30)
    seconds = []
    for _ in range(requests):
        started = time.perf_counter()
        connection.request("GET", f"/v1/sessions?{urlencode(asked)}")
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != http.HTTPStatus.OK:
            raise RuntimeError(f"the node answered {answer.status}: {body[:200]!r}")
        seconds.append(time.perf_counter() - started)
    connection.close()
    seconds.sort()
    return {
        "p50_ms": round(seconds[len(seconds) // 2] * 1e3, 2),
        "p99_ms": round(seconds[int(len(seconds) * 0.99)] * 1e3, 2),
    }


def _write_shards(directory: Path, layout: ShardLayout, sessions: int) -> None:
    chance = random.Random(7)  # noqa: S311 - a benchmark repeats itself
    by_shard: dict[int, list[tuple[object, ...]]] = {shard: [] for shard in range(layout.shard_count + 1)}
    for session_id, row in _sessions(sessions, chance):
        by_shard[layout.shard_of(session_id)].append((session_id, *row))
    for shard, rows in by_shard.items():
        path = shard_path(directory, layout.shard_file_name(shard))
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = open_for_writing(path)
        connection.execute("BEGIN IMMEDIATE")
        migrate(connection, cluster_id=CLUSTER_ID, shard=shard)
        connection.executemany(_INSERT_SESSION, rows)
        connection.executemany(
            _INSERT_ENTRY, [(number, 10**9 + number) for number in range(1, 1 + min(TAIL_ENTRIES, len(rows)))]
        )
        set_position(connection, Position(1, 1), 0)
        connection.execute("COMMIT")
        connection.close()


def _sessions(count: int, chance: random.Random) -> Iterator[tuple[str, tuple[object, ...]]]:
    for number in range(count):
        yield (
            f"session-{number}",
            (
                f"workspace-{chance.randrange(50)}",
                f"Fix thing number {number} in the parser",
                "running" if chance.random() < 0.02 else "idle",
                f"model-{chance.randrange(5)}",
                number,
                chance.randrange(10**9),
            ),
        )
