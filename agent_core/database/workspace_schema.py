"""The tables of the workspace shard: documents, their properties, their links, the full text, and sources.

Tables name workspace and path themselves instead of a row's number, so that SQL over one of them reads without a
join. Nothing in them depends on the order in which documents came, but the number of a row and `updated_at`: an
index that followed a folder through any history equals one that was made of it in one go.
"""

from __future__ import annotations

DOCUMENT_TABLES = """
    CREATE TABLE documents (
        id            INTEGER PRIMARY KEY,
        workspace     TEXT    NOT NULL,
        path          TEXT    NOT NULL,
        name          TEXT    NOT NULL,
        kind          TEXT    NOT NULL,
        title         TEXT    NOT NULL,
        front_matter  TEXT    NOT NULL,
        body          TEXT    NOT NULL,
        problem       TEXT    NOT NULL,
        content_hash  TEXT    NOT NULL,
        size_bytes    INTEGER NOT NULL,
        updated_at    INTEGER NOT NULL,
        UNIQUE (workspace, path)
    );
    CREATE INDEX documents_by_kind ON documents (workspace, kind, path);
    CREATE INDEX documents_by_name ON documents (workspace, name);
    CREATE TABLE properties (
        workspace  TEXT    NOT NULL,
        path       TEXT    NOT NULL,
        name       TEXT    NOT NULL,
        ordinal    INTEGER NOT NULL,
        value      TEXT    NOT NULL,
        PRIMARY KEY (workspace, path, name, ordinal)
    ) WITHOUT ROWID;
    CREATE INDEX properties_by_value ON properties (workspace, name, value, path);
    CREATE TABLE links (
        workspace    TEXT    NOT NULL,
        path         TEXT    NOT NULL,
        ordinal      INTEGER NOT NULL,
        kind         TEXT    NOT NULL,
        target       TEXT    NOT NULL,
        label        TEXT    NOT NULL,
        wanted_path  TEXT,
        wanted_name  TEXT,
        target_path  TEXT,
        PRIMARY KEY (workspace, path, ordinal)
    ) WITHOUT ROWID;
    CREATE INDEX links_by_wanted_path ON links (workspace, wanted_path) WHERE wanted_path IS NOT NULL;
    CREATE INDEX links_by_wanted_name ON links (workspace, wanted_name) WHERE wanted_name IS NOT NULL;
    CREATE INDEX links_by_target ON links (workspace, target_path, path) WHERE target_path IS NOT NULL;
    CREATE VIRTUAL TABLE documents_text USING fts5 (
        title, body, content='documents', content_rowid='id', tokenize='unicode61 remove_diacritics 2'
    );
    CREATE TRIGGER documents_text_insert AFTER INSERT ON documents
        BEGIN INSERT INTO documents_text (rowid, title, body) VALUES (new.id, new.title, new.body); END;
    CREATE TRIGGER documents_text_delete AFTER DELETE ON documents
        BEGIN INSERT INTO documents_text (documents_text, rowid, title, body)
            VALUES ('delete', old.id, old.title, old.body); END;
"""
"""`links.target_path` is the document that a link leads to, NULL while there is none; `wanted_path` and
`wanted_name` say which one that would be. `documents_text` keeps words only and takes the text from `documents`."""

SOURCE_TABLE = """
    CREATE TABLE workspace_sources (
        workspace  TEXT    PRIMARY KEY,
        source     TEXT    NOT NULL,
        label      TEXT    NOT NULL,
        epoch      INTEGER NOT NULL,
        heard_at   INTEGER NOT NULL
    ) WITHOUT ROWID;
"""
"""Who keeps a workspace; see `agent_core.workspace.source`."""
