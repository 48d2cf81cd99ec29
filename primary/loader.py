"""Reads one session from its shard, to bring up its actor.

On a thread of its own with read-only connections, so that a long transcript delays no batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agent_core.database.build import Connection, open_for_reading
from agent_core.database.schema import shard_path
from agent_core.errors import ShardDamaged
from agent_core.routing import ShardLayout
from agent_core.rpc.session_pb2 import Entry, Session
from primary.actor import SessionActor

SESSION = (
    "SELECT id, session_id, workspace, title, status, provider, model, parent_session_id, created_at, metadata"
    " FROM sessions WHERE session_id = ?"
)
FOLDED = (
    "SELECT e.seq, e.kind, e.payload, e.created_at, e.idempotency_key"
    " FROM entry_index i JOIN entries e ON e.id = i.entry WHERE i.session = ? AND i.seq > ? ORDER BY i.seq"
)
TAIL = (
    "SELECT seq, kind, payload, created_at, idempotency_key FROM entries"
    " WHERE id >= (SELECT first_entry FROM entry_tail) AND session = ? AND seq > ? ORDER BY id"
)

CACHE_KIB = 256
"""SQLite's page cache of one shard's connection: a transcript is read once, and stays in its actor."""


@dataclass(slots=True)
class SessionLoader:
    """Read-only connections to shards, opened on first use; owned by one thread."""

    data_directory: Path
    layout: ShardLayout
    _connections: dict[int, Connection] = field(default_factory=dict)

    def load(self, session_id: str, prepared: SessionActor | None = None) -> SessionActor | None:
        """The session as its shard has it; None when there is none.

        Args:
            session_id: The session.
            prepared: The same session as it was before: only what was appended since is read.

        Raises:
            DatabaseError: The shard cannot be read.
            ShardDamaged: It holds of the session what no primary wrote.
        """
        shard = self.layout.shard_of(session_id)
        connection = self._connections.get(shard)
        if connection is None:
            connection = open_for_reading(shard_path(self.data_directory, self.layout.shard_file_name(shard)))
            connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
            self._connections[shard] = connection
        connection.execute("BEGIN")
        try:
            if prepared is None:
                return read_session(connection, session_id, shard, self.layout.group_of(shard))
            read_on(connection, prepared)
            return prepared
        finally:
            connection.execute("COMMIT")

    def release(self, group: int) -> None:
        """Close the connections to a group's shards, whose files may be replaced from now on."""
        for shard in self.layout.shards_of(group):
            connection = self._connections.pop(shard, None)
            if connection is not None:
                connection.close()

    def close(self) -> None:
        """Close every connection."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()


def read_session(connection: Connection, session_id: str, shard: int, group: int) -> SessionActor | None:
    """The session as a shard has it, within one snapshot; None when there is none.

    Raises:
        DatabaseError: The shard cannot be read.
        ShardDamaged: It holds of the session what no primary wrote.
    """
    row = connection.execute(SESSION, (session_id,)).fetchone()
    if row is None:
        return None
    with _as_damage(shard, session_id):
        session = Session(
            session_id=row[1],
            workspace=row[2],
            title=row[3],
            status=row[4],
            provider=row[5],
            model=row[6],
            parent_session_id=row[7],
            created_at_ms=row[8],
            updated_at_ms=row[8],
            metadata_json=row[9].encode(),
        )
    actor = SessionActor(session, shard, group, row[0])
    read_on(connection, actor)
    return actor


def read_on(connection: Connection, actor: SessionActor) -> None:
    """Bring an actor that nobody uses yet up to what its shard holds.

    Raises:
        DatabaseError: The shard cannot be read.
        ShardDamaged: It holds of the session what no primary wrote.
    """
    session_id = actor.session.session_id
    behind = (actor.row, actor.visible_seq)
    for statement in (FOLDED, TAIL):
        rows = connection.execute(statement, behind).fetchall()
        with _as_damage(actor.shard, session_id):
            actor.remember(
                Entry(seq=seq, kind=kind, payload_json=payload.encode(), created_at_ms=created, idempotency_key=key)
                for seq, kind, payload, created, key in rows
            )
        if rows and rows[-1][0] != actor.visible_seq:
            raise ShardDamaged(
                f"shard {actor.shard} does not hold session {session_id!r} whole: "
                f"entry {rows[-1][0]} stands where {actor.visible_seq} entries end"
            )


@contextmanager
def _as_damage(shard: int, session_id: str) -> Iterator[None]:
    """A shard's tables take values of their own types only; another one comes from a rotten page."""
    try:
        yield
    except (AttributeError, TypeError, ValueError) as error:
        raise ShardDamaged(
            f"shard {shard} holds a row of session {session_id!r} with a value of the wrong type: {error}"
        ) from error
