"""Shards for the tests of the read side, written with plain SQL the way a primary would."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent_core.database.build import Connection, open_for_writing
from agent_core.database.schema import fold_tail, migrate, set_position, shard_path
from agent_core.position import Position
from agent_core.routing import ShardLayout

CLUSTER_ID = "test-cluster"


class WrittenShards:
    """The shard files of one node; each change is a transaction with the next lsn of its group."""

    def __init__(self, data_directory: Path, layout: ShardLayout) -> None:
        self.data_directory = data_directory
        self.layout = layout
        self.epoch = 1
        self.lsns = [0] * layout.shard_group_count
        self.rows: dict[int, Position] = {}
        self.connections: dict[int, Connection] = {}

    def create_every_shard(self) -> None:
        for shard in range(self.layout.shard_count + 1):
            with self.writing(shard):
                pass

    def path(self, shard: int) -> Path:
        return shard_path(self.data_directory, self.layout.shard_file_name(shard))

    def position(self, shard: int) -> Position:
        return Position(self.epoch, self.lsns[self.layout.group_of(shard)])

    @contextmanager
    def writing(self, shard: int) -> Iterator[Connection]:
        connection = self.connections.get(shard)
        if connection is None:
            self.path(shard).parent.mkdir(parents=True, exist_ok=True)
            connection = self.connections[shard] = open_for_writing(self.path(shard))
        connection.execute("BEGIN IMMEDIATE")
        is_workspace = shard == self.layout.workspace_shard
        migrate(connection, cluster_id=CLUSTER_ID, shard=shard, is_workspace=is_workspace)
        yield connection
        self.lsns[self.layout.group_of(shard)] += 1
        set_position(connection, self.position(shard), 1000)
        connection.execute("COMMIT")
        self.rows[shard] = self.position(shard)

    def create(self, session_id: str, *, created_at: int = 1000, **columns: Any) -> None:
        values = {
            "session_id": session_id,
            "created_at": created_at,
            "folded_updated_at": created_at,
            **columns,
        }
        names = ", ".join(values)
        marks = ", ".join("?" for _ in values)
        with self.writing(self.layout.shard_of(session_id)) as connection:
            connection.execute(f"INSERT INTO sessions ({names}) VALUES ({marks})", tuple(values.values()))

    def append(self, session_id: str, *payloads: str, at: int = 2000) -> None:
        with self.writing(self.layout.shard_of(session_id)) as connection:
            (session,) = connection.execute("SELECT id FROM sessions WHERE session_id=?", (session_id,)).fetchone()
            (last,) = connection.execute(
                "SELECT coalesce(max(seq), 0) FROM entries WHERE session=?", (session,)
            ).fetchone()
            connection.executemany(
                "INSERT INTO entries (session, seq, kind, created_at, idempotency_key, payload)"
                " VALUES (?, ?, 'message', ?, ?, ?)",
                [
                    (session, last + number, at, f"key-{last + number}", payload)
                    for number, payload in enumerate(payloads, start=1)
                ],
            )

    def fold(self, shard: int) -> None:
        with self.writing(shard) as connection:
            fold_tail(connection)

    def close(self) -> None:
        for connection in self.connections.values():
            connection.close()
