"""A workspace shard in memory, and everything that it says of a workspace."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlean import dbapi2

from agent_core.database.build import Connection
from agent_core.database.schema import migrate
from agent_core.workspace.document import ChangeOutcome, Document, DocumentChange, Link, Property, content_hash
from primary.workspace.document_tables import change_documents


class Index:
    def __init__(self) -> None:
        self.connection: Connection = dbapi2.connect(":memory:", isolation_level=None)
        migrate(self.connection, cluster_id="test", shard=4, is_workspace=True)

    def change(self, *changes: DocumentChange, workspace: str = "w") -> list[ChangeOutcome]:
        return change_documents(self.connection, workspace, changes, 1000)

    def hashes(self, workspace: str = "w") -> dict[str, str]:
        rows = self.connection.execute("SELECT path, content_hash FROM documents WHERE workspace=?", (workspace,))
        return dict(rows)

    def put(self, *documents: Document) -> None:
        hashes = self.hashes()
        changes = [DocumentChange(one.path, hashes.get(one.path, ""), one) for one in documents]
        assert set(self.change(*changes)) <= {ChangeOutcome.APPLIED, ChangeOutcome.UNCHANGED}

    def delete(self, path: str) -> None:
        assert self.change(DocumentChange(path, self.hashes()[path], None)) == [ChangeOutcome.APPLIED]

    def targets(self, path: str) -> list[str | None]:
        rows = self.connection.execute("SELECT target_path FROM links WHERE path=? ORDER BY ordinal", (path,))
        return [target for (target,) in rows]

    def matching(self, expression: str) -> list[str]:
        rows = self.connection.execute(
            "SELECT path FROM documents WHERE id IN (SELECT rowid FROM documents_text WHERE documents_text MATCH ?)"
            " ORDER BY path",
            (expression,),
        )
        return [path for (path,) in rows]

    def content(self) -> dict[str, list[Any]]:
        """All that the tables hold but row numbers, the full text as the words of each document."""
        found: dict[str, list[Any]] = {}
        columns = "path, workspace, name, kind, title, front_matter, body, problem, content_hash, size_bytes"
        found["documents"] = sorted(self.connection.execute(f"SELECT {columns} FROM documents"))
        for table in ("properties", "links"):
            found[table] = sorted(self.connection.execute(f"SELECT * FROM {table}"), key=repr)
        self.connection.execute(
            "CREATE VIRTUAL TABLE IF NOT EXISTS temp.words USING fts5vocab('main', 'documents_text', 'instance')"
        )
        found["words"] = sorted(
            self.connection.execute(
                "SELECT w.term, d.path, w.col, w.offset FROM words w JOIN documents d ON d.id = w.doc"
            )
        )
        # What the full text and the documents say must be the same; this raises where it is not.
        self.connection.execute("INSERT INTO documents_text (documents_text, rank) VALUES ('integrity-check', 1)")
        return found

    def close(self) -> None:
        self.connection.close()


def document(path: str, body: str = "", *, links: Iterable[Link] = (), **properties: str) -> Document:
    return Document(
        path=path,
        kind=properties.get("kind", ""),
        title=path,
        front_matter_json="{}",
        body=body,
        problem="",
        content_hash=content_hash(repr((body, properties, tuple(links))).encode()),
        size_bytes=len(body),
        properties=tuple(Property(name, value) for name, value in properties.items()),
        links=tuple(links),
    )
