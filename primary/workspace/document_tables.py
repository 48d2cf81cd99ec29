"""Changes of documents as statements, within the caller's transaction.

A link leads to a document by its path, or by its name: then to the one with the shortest path, of equally short
ones the first. So it depends on what other documents there are, and whoever comes or goes has the links that
ask for it looked up again.
"""

from __future__ import annotations

from collections.abc import Iterable

from agent_core.database.build import Connection
from agent_core.workspace.document import ChangeOutcome, Document, DocumentChange
from agent_core.workspace.names import document_name

_INSERT_DOCUMENT = (
    "INSERT INTO documents (workspace, path, name, kind, title, front_matter, body, problem, content_hash,"
    " size_bytes, updated_at) VALUES (?,?,?,?,?,?,?,?,?,?,?)"
)
_INSERT_PROPERTY = "INSERT INTO properties (workspace, path, name, ordinal, value) VALUES (?,?,?,?,?)"
_INSERT_LINK = (
    "INSERT INTO links (workspace, path, ordinal, kind, target, label, wanted_path, wanted_name)"
    " VALUES (?,?,?,?,?,?,?,?)"
)
_RESOLVE = (
    "UPDATE links SET target_path = coalesce("
    " (SELECT d.path FROM documents d WHERE d.workspace = links.workspace AND d.path = links.wanted_path),"
    " (SELECT d.path FROM documents d WHERE d.workspace = links.workspace AND d.name = links.wanted_name"
    "  ORDER BY length(d.path), d.path LIMIT 1))"
    " WHERE workspace = ? AND "
)
_RESOLVE_OF_DOCUMENT = _RESOLVE + "path = ?"
_RESOLVE_TO_PATH = _RESOLVE + "wanted_path = ?"
_RESOLVE_TO_NAME = _RESOLVE + "wanted_name = ?"


def change_documents(
    connection: Connection, workspace: str, changes: Iterable[DocumentChange], now_ms: int
) -> list[ChangeOutcome]:
    """Make the changes that still apply, and say what became of each."""
    outcomes = []
    come_or_gone: set[str] = set()
    linking: set[str] = set()
    for change in changes:
        row = connection.execute(
            "SELECT content_hash FROM documents WHERE workspace = ? AND path = ?", (workspace, change.path)
        ).fetchone()
        indexed = "" if row is None else row[0]
        outcome = _outcome(change, indexed)
        outcomes.append(outcome)
        if outcome is not ChangeOutcome.APPLIED:
            continue
        if indexed:
            _remove(connection, workspace, change.path)
        if change.document is not None:
            _insert(connection, workspace, change.document, now_ms)
            linking.add(change.path)
        if not indexed or change.document is None:
            come_or_gone.add(change.path)
    _resolve_links(connection, workspace, linking, come_or_gone)
    return outcomes


def _outcome(change: DocumentChange, indexed: str) -> ChangeOutcome:
    wanted = "" if change.document is None else change.document.content_hash
    if indexed == wanted:
        return ChangeOutcome.UNCHANGED
    return ChangeOutcome.APPLIED if indexed == change.replaces else ChangeOutcome.CONFLICT


def _remove(connection: Connection, workspace: str, path: str) -> None:
    for table in ("documents", "properties", "links"):
        connection.execute(
            f"DELETE FROM {table} WHERE workspace = ? AND path = ?",  # noqa: S608 - our own constants
            (workspace, path),
        )


def _insert(connection: Connection, workspace: str, document: Document, now_ms: int) -> None:
    connection.execute(
        _INSERT_DOCUMENT,
        (
            workspace,
            document.path,
            document_name(document.path),
            document.kind,
            document.title,
            document.front_matter_json,
            document.body,
            document.problem,
            document.content_hash,
            document.size_bytes,
            now_ms,
        ),
    )
    connection.executemany(
        _INSERT_PROPERTY,
        (
            (workspace, document.path, one.name, ordinal, one.value)
            for ordinal, one in enumerate(document.properties)
        ),
    )
    connection.executemany(
        _INSERT_LINK,
        ((workspace, document.path, ordinal, *link) for ordinal, link in enumerate(document.links)),
    )


def _resolve_links(connection: Connection, workspace: str, linking: set[str], come_or_gone: set[str]) -> None:
    for path in sorted(linking):
        connection.execute(_RESOLVE_OF_DOCUMENT, (workspace, path))
    for path in sorted(come_or_gone):
        connection.execute(_RESOLVE_TO_PATH, (workspace, path))
    for name in sorted({document_name(path) for path in come_or_gone}):
        connection.execute(_RESOLVE_TO_NAME, (workspace, name))
