"""Appended entries become rows of their shard.

Each compiled statement of each shard keeps a copy of what it was last given. What the statements for many rows
may be given is therefore small, and the one for large entries is emptied after use.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent_core.database.build import Connection
from primary.mutation import Append

INSERT_ENTRY = "INSERT INTO entries (session, seq, kind, created_at, idempotency_key, payload) VALUES "
INSERT_ENTRIES = tuple(
    (rows, INSERT_ENTRY + ",".join(["(?,?,?,?,?,?)"] * rows)) for rows in (64, 32, 16, 8, 4, 2, 1)
)
"""A statement inserts one of these numbers of rows: few statements to keep compiled, few trips into SQLite."""
LARGE_ENTRY_BYTES = 64 << 10
INSERT_LARGE_ENTRY = INSERT_ENTRY.replace("VALUES ", "SELECT ?1,?2,?3,?4,?5,?6 WHERE ?1 IS NOT NULL")
"""For entries larger than that: without a session it inserts nothing, and lets go of the entry before."""


def insert_entries(connection: Connection, appends: Sequence[Append]) -> None:
    """Insert entries into their shard, in order, within its open transaction."""
    if any(len(append.payload) > LARGE_ENTRY_BYTES for append in appends):
        for append in appends:
            connection.execute(INSERT_LARGE_ENTRY, _entry_values([append]))
        connection.execute(INSERT_LARGE_ENTRY, [None] * 6)
        return
    start = 0
    for size, insert in INSERT_ENTRIES:
        while len(appends) - start >= size:
            connection.execute(insert, _entry_values(appends[start : start + size]))
            start += size


def _entry_values(appends: Sequence[Append]) -> list[object]:
    values: list[object] = []
    for append in appends:
        values += (
            append.actor.row,
            append.seq,
            append.kind,
            append.created_at_ms,
            append.idempotency_key,
            append.payload.decode(),
        )
    return values
