"""A shard's tables, as numbered migrations, and the few statements that belong to its layout.

Migrations run on the primary and reach standbys as pages.

The layout serves one aim: an append touches as few pages as possible, because pages are what is logged,
streamed and applied. Entries lie in the order of arrival, so a batch's entries share the last page whatever
sessions they belong to. An index on (session, seq) would dirty one page per session in each batch; so the
newest entries, the *tail*, stay out of it until some hundreds have gathered and are folded in with one
stroke, each index page then serving many entries. Readers use `entry_index` for what is folded and scan the
short tail for the rest; the views `transcript` and `session_overview` do that for everyone. The indexes of the
session list are over `folded_updated_at`, which only folding changes: an append touches none of them. Those by
creation and by title also hold what a list can be filtered by, so that any filter reads nothing but the index.
`session_text` knows which sessions hold three letters in a row (https://www.sqlite.org/fts5.html#the_trigram_tokenizer);
it keeps no text of its own, and only a new session touches it: titles and ids do not change.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from agent_core.database.build import Connection
from agent_core.database.workspace_schema import DOCUMENT_TABLES, SOURCE_TABLE
from agent_core.position import Position

FOLD_AFTER = 256
"""Entries in the tail at which the writer folds it into the index."""


class Migration(NamedTuple):
    """One step of the layout, as statements.

    Attributes:
        everywhere: For every shard.
        workspace: For the workspace shard, after those.
    """

    everywhere: str = ""
    workspace: str = ""


_SESSION_TABLES = """
    CREATE TABLE replication (
        id            INTEGER PRIMARY KEY CHECK (id = 1),
        cluster_id    TEXT    NOT NULL,
        shard         INTEGER NOT NULL,
        epoch         INTEGER NOT NULL,
        lsn           INTEGER NOT NULL,
        committed_at  INTEGER NOT NULL
    );
    CREATE TABLE sessions (
        id                  INTEGER PRIMARY KEY,
        session_id          TEXT    NOT NULL UNIQUE,
        workspace           TEXT    NOT NULL DEFAULT '',
        title               TEXT    NOT NULL DEFAULT '',
        status              TEXT    NOT NULL DEFAULT 'idle',
        provider            TEXT    NOT NULL DEFAULT '',
        model               TEXT    NOT NULL DEFAULT '',
        parent_session_id   TEXT    NOT NULL DEFAULT '',
        created_at          INTEGER NOT NULL,
        metadata            TEXT    NOT NULL DEFAULT '{}',
        folded_entry_count  INTEGER NOT NULL DEFAULT 0,
        folded_updated_at   INTEGER NOT NULL
    );
    CREATE INDEX sessions_by_update ON sessions (folded_updated_at DESC, session_id, title);
    CREATE INDEX sessions_by_workspace ON sessions (workspace, folded_updated_at DESC, session_id);
    CREATE INDEX sessions_by_status ON sessions (status, folded_updated_at DESC, session_id);
    CREATE INDEX sessions_by_model ON sessions (model, folded_updated_at DESC, session_id);
    CREATE TABLE entries (
        id               INTEGER PRIMARY KEY,
        session          INTEGER NOT NULL REFERENCES sessions (id),
        seq              INTEGER NOT NULL,
        kind             TEXT    NOT NULL,
        created_at       INTEGER NOT NULL,
        idempotency_key  TEXT    NOT NULL DEFAULT '',
        payload          TEXT    NOT NULL
    );
    CREATE TABLE entry_index (
        session  INTEGER NOT NULL,
        seq      INTEGER NOT NULL,
        entry    INTEGER NOT NULL,
        PRIMARY KEY (session, seq)
    ) WITHOUT ROWID;
    CREATE TABLE entry_tail (
        id           INTEGER PRIMARY KEY CHECK (id = 1),
        first_entry  INTEGER NOT NULL
    );
    INSERT INTO entry_tail VALUES (1, 1);
    CREATE VIEW transcript AS
        SELECT s.session_id, e.seq, e.kind, e.created_at, e.idempotency_key, e.payload
        FROM sessions s
        JOIN entry_index i ON i.session = s.id
        JOIN entries e ON e.id = i.entry
        UNION ALL
        SELECT s.session_id, e.seq, e.kind, e.created_at, e.idempotency_key, e.payload
        FROM entries e
        JOIN sessions s ON s.id = e.session
        WHERE e.id >= (SELECT first_entry FROM entry_tail);
    CREATE VIEW session_overview AS
        SELECT s.session_id, s.workspace, s.title, s.status, s.provider, s.model, s.parent_session_id,
               s.created_at, s.metadata,
               s.folded_entry_count + coalesce(tail.entry_count, 0) AS entry_count,
               max(s.folded_updated_at, coalesce(tail.updated_at, 0)) AS updated_at
        FROM sessions s
        LEFT JOIN (
            SELECT session, count(*) AS entry_count, max(created_at) AS updated_at
            FROM entries
            WHERE id >= (SELECT first_entry FROM entry_tail)
            GROUP BY session
        ) tail ON tail.session = s.id;
"""

_LIST_INDEXES = """
    CREATE INDEX sessions_by_creation
        ON sessions (created_at DESC, session_id, workspace, status, model, title);
    CREATE INDEX sessions_by_title
        ON sessions (title COLLATE NOCASE, session_id, workspace, status, model);
"""

_TEXT_INDEX = """
    CREATE VIRTUAL TABLE session_text USING fts5 (
        title, session_id, content='sessions', content_rowid='id', columnsize=0, detail=none, tokenize='trigram'
    );
    CREATE TRIGGER session_text_insert AFTER INSERT ON sessions
        BEGIN INSERT INTO session_text (rowid, title, session_id) VALUES (new.id, new.title, new.session_id); END;
    INSERT INTO session_text (rowid, title, session_id) SELECT id, title, session_id FROM sessions;
"""

MIGRATIONS: tuple[Migration, ...] = (
    Migration(_SESSION_TABLES),
    Migration(workspace=DOCUMENT_TABLES),
    Migration(_LIST_INDEXES),
    Migration(workspace=SOURCE_TABLE),
    Migration(_TEXT_INDEX),
)

SCHEMA_VERSION = len(MIGRATIONS)


def schema_version(connection: Connection) -> int:
    """How many migrations a shard has seen."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def migrate(connection: Connection, *, cluster_id: str, shard: int, is_workspace: bool = False) -> None:
    """Run the missing migrations; the caller holds a transaction open and sets the position in it.

    Args:
        connection: To the shard.
        cluster_id: The cluster that it belongs to.
        shard: Its number.
        is_workspace: It is the workspace shard.
    """
    done = schema_version(connection)
    for migration in MIGRATIONS[done:]:
        statements = migration.everywhere + (migration.workspace if is_workspace else "")
        for statement in statements.split(";\n"):
            if statement.strip():
                connection.execute(statement)
    if done == 0:
        connection.execute("INSERT INTO replication VALUES (1, ?, ?, 0, 0, 0)", (cluster_id, shard))
    connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


def set_position(connection: Connection, position: Position, committed_at_ms: int) -> None:
    """Write a transaction's own position into its shard, within the transaction."""
    connection.execute(
        "UPDATE replication SET epoch=?, lsn=?, committed_at=?", (position.epoch, position.lsn, committed_at_ms)
    )


def read_position(connection: Connection, schema: str = "main") -> Position | None:
    """The position that a shard contains; None when it has no tables yet."""
    exists = connection.execute(
        f"SELECT 1 FROM {schema}.sqlite_master WHERE name='replication'"  # noqa: S608 - our own constant
    ).fetchone()
    if exists is None:
        return None
    row = connection.execute(f"SELECT epoch, lsn FROM {schema}.replication").fetchone()  # noqa: S608 - as above
    return Position(int(row[0]), int(row[1]))


def fold_tail(connection: Connection) -> None:
    """Move the tail into the index and the sessions' counts, within the caller's transaction."""
    connection.execute(
        "INSERT INTO entry_index SELECT session, seq, id FROM entries"
        " WHERE id >= (SELECT first_entry FROM entry_tail) ORDER BY session, seq"
    )
    connection.execute(
        "UPDATE sessions SET folded_entry_count = folded_entry_count + tail.entry_count,"
        " folded_updated_at = max(folded_updated_at, tail.updated_at)"
        " FROM (SELECT session, count(*) AS entry_count, max(created_at) AS updated_at FROM entries"
        "       WHERE id >= (SELECT first_entry FROM entry_tail) GROUP BY session) tail"
        " WHERE sessions.id = tail.session"
    )
    connection.execute("UPDATE entry_tail SET first_entry = (SELECT coalesce(max(id), 0) + 1 FROM entries)")


def shard_path(data_directory: Path, file_name: str) -> Path:
    """Where a node keeps a shard file."""
    return data_directory / "shards" / file_name
