"""A shard as a primary writes it, with the records of its transactions taken naively from its WAL."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

from agent_core.database.build import Connection, open_for_writing
from agent_core.database.pages import PageSnapshot, comparable
from agent_core.database.schema import migrate, set_position
from agent_core.database.wal import FRAME_SIZE, HEADER_SIZE
from agent_core.log.record import Record, RecordKind
from agent_core.position import Position

CLUSTER = "test-cluster"
SHARD = 3


class History:
    """One shard and the records of what was done to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connection = open_for_writing(path)
        self.records: list[Record] = []
        self._salts = b""
        self._frames_seen = 0
        self.commit(lambda connection: migrate(connection, cluster_id=CLUSTER, shard=SHARD))

    @property
    def position(self) -> Position:
        return self.records[-1].position

    def commit(self, *changes: str | Callable[[Connection], object]) -> Record:
        """One transaction, and its record."""
        lsn = len(self.records) + 1
        self.connection.execute("BEGIN IMMEDIATE")
        for change in changes:
            if isinstance(change, str):
                self.connection.execute(change)
            else:
                change(self.connection)
        set_position(self.connection, Position(1, lsn), lsn)
        self.connection.execute("COMMIT")
        return self._capture()

    def vacuum(self) -> Record:
        self.connection.execute("VACUUM")
        return self._capture()

    def checkpoint(self) -> None:
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def fill(self, rows: int, size: int = 3000, table: str = "filling") -> Record:
        """A transaction that grows the shard by about a page per row; what it writes does not compress."""
        return self.commit(
            f"CREATE TABLE IF NOT EXISTS {table} (id INTEGER PRIMARY KEY, body BLOB)",
            lambda connection: connection.executemany(
                f"INSERT INTO {table} (body) VALUES (?)", ((os.urandom(size),) for _ in range(rows))
            ),
        )

    def close(self) -> None:
        self.connection.close()

    def _capture(self) -> Record:
        data = self.path.with_name(self.path.name + "-wal").read_bytes()
        salts = data[16:24]
        if salts != self._salts:
            self._salts, self._frames_seen = salts, 0
        first = self._frames_seen
        while True:
            start = HEADER_SIZE + self._frames_seen * FRAME_SIZE
            _, page_count = struct.unpack_from(">II", data, start)
            assert data[start + 8 : start + 16] == salts
            self._frames_seen += 1
            if page_count:
                break
        frames = data[HEADER_SIZE + first * FRAME_SIZE : HEADER_SIZE + self._frames_seen * FRAME_SIZE]
        lsn = len(self.records) + 1
        record = Record(RecordKind.TRANSACTION, 0, SHARD, Position(1, lsn), page_count, lsn, frames)
        self.records.append(record)
        return record


def pages_of(path: Path) -> bytes:
    """Every page of a shard, as a fresh connection sees it, without SQLite's own bookkeeping in page 1."""
    snapshot = PageSnapshot.open(path)
    try:
        return comparable(snapshot.pages(1, snapshot.page_count), 1)
    finally:
        snapshot.close()
