"""A large data set for the benchmarks of reading, written straight into shard files.

The files are what a primary would have made: its schema, its folding, a tail. They stand at no position at all, as
before a cluster's first record, so every node can start on a copy, and replication goes on from there.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from agent_core.database.build import Connection, open_for_writing
from agent_core.database.schema import fold_tail, migrate, shard_path
from agent_core.routing import ShardLayout
from ops.benchmarks.load import payloads
from ops.data_directory import DataDirectory, Identity
from ops.settings import NodeConfiguration

LONG_SESSION = "long-session"
LONG_SESSION_ENTRIES = 500
TAIL_ENTRIES = 200
"""Entries of each shard that are not folded yet, each of another session."""
KINDS = ("message", "message", "message", "tool_execution", "tool_execution", "custom")
PAYLOAD_BYTES = 400
STARTED_AT_MS = 1_700_000_000_000

_INSERT_SESSION = (
    "INSERT INTO sessions (id, session_id, workspace, title, status, model, created_at, folded_updated_at)"
    " VALUES (?,?,?,?,?,?,?,?)"
)
_INSERT_ENTRY = "INSERT INTO entries (session, seq, kind, created_at, payload) VALUES (?,?,?,?,?)"


@dataclass(frozen=True, slots=True)
class ReadData:
    """How much there is to read.

    Attributes:
        sessions: Over all shards, beside the long one.
        entries: Over all shards, in all sessions but the long one, which has 500.
    """

    sessions: int = 100_000
    entries: int = 1_000_000


def prepare(
    nodes: Sequence[NodeConfiguration], data: ReadData, on_share: Callable[[float], None] = lambda _share: None
) -> None:
    """Give every node of a cluster that never ran the same shard files; tells the share that is done."""
    first, *others = nodes
    with DataDirectory.claim(first.node.data_directory, Identity.of(first)) as written:
        _write_shards(written.path, first.cluster_map.layout, first.cluster.id, data, on_share)
        for other in others:
            with DataDirectory.claim(other.node.data_directory, Identity.of(other)) as copied:
                shutil.copytree(written.path / "shards", copied.path / "shards")


def _write_shards(
    directory: Path, layout: ShardLayout, cluster_id: str, data: ReadData, on_share: Callable[[float], None]
) -> None:
    by_shard: list[list[str]] = [[] for _ in range(layout.shard_count + 1)]
    for session_id in (LONG_SESSION, *(f"session-{number}" for number in range(data.sessions))):
        by_shard[layout.shard_of(session_id)].append(session_id)
    texts = [text.decode() for text in payloads(PAYLOAD_BYTES)]
    for shard, session_ids in enumerate(by_shard):
        path = shard_path(directory, layout.shard_file_name(shard))
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(open_for_writing(path)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            migrate(connection, cluster_id=cluster_id, shard=shard)
            if session_ids:
                _fill(connection, session_ids, data.entries // data.sessions, texts, random.Random(shard))  # noqa: S311 - a benchmark repeats itself
            connection.execute("COMMIT")
        on_share((shard + 1) / len(by_shard))


def _fill(
    connection: Connection, session_ids: list[str], entries_each: int, texts: list[str], chance: random.Random
) -> None:
    connection.executemany(
        _INSERT_SESSION,
        (
            (
                number,
                session_id,
                f"workspace-{chance.randrange(50)}",
                f"Fix {session_id} in the parser",
                "running" if chance.random() < 0.02 else "idle",
                f"model-{chance.randrange(5)}",
                STARTED_AT_MS + number,
                STARTED_AT_MS + chance.randrange(10**9),
            )
            for number, session_id in enumerate(session_ids, start=1)
        ),
    )
    lengths = [LONG_SESSION_ENTRIES if one == LONG_SESSION else entries_each for one in session_ids]
    connection.executemany(_INSERT_ENTRY, _entries(lengths, texts, chance))
    fold_tail(connection)
    tail = ((session, length + 1) for session, length in enumerate(lengths[:TAIL_ENTRIES], start=1))
    connection.executemany(_INSERT_ENTRY, (_entry(session, seq, texts, chance) for session, seq in tail))


Entry = tuple[int, int, str, int, str]


def _entries(lengths: list[int], texts: list[str], chance: random.Random) -> Iterator[Entry]:
    """Entries for the sessions 1, 2, … in turn, as when all of them run at once."""
    for seq in range(1, max(lengths) + 1):
        for session, length in enumerate(lengths, start=1):
            if seq <= length:
                yield _entry(session, seq, texts, chance)


def _entry(session: int, seq: int, texts: list[str], chance: random.Random) -> Entry:
    return session, seq, chance.choice(KINDS), STARTED_AT_MS + seq * 60_000 + session, chance.choice(texts)
