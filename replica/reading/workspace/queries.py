"""What readers ask of the workspace shard: plain statements; no threads, no waiting."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from agent_core.database.build import Connection
from agent_core.errors import DocumentNotFound, InvalidRequest
from agent_core.workspace.document import LinkKind, Property
from agent_core.workspace.names import check_path, check_workspace
from agent_core.workspace.stored import DocumentSummary, StoredDocument, StoredLink
from replica.reading.workspace.full_text import match_expression
from replica.reading.workspace.paging import DocumentKey

MAX_PAGE_SIZE = 1000
DEFAULT_PAGE_SIZE = 50
MAX_PAGE_BYTES = (4 << 20) - (64 << 10)
"""Of one answer, estimated; below gRPC's default limit on a message, 4 MiB."""
MAX_FILTER_CHARACTERS = 1024
MAX_PROPERTY_FILTERS = 8
SNIPPET_TOKENS = 16
MAX_SNIPPET_CHARACTERS = 300
SUMMARY_OVERHEAD_BYTES = 128
"""Hash, numbers, field tags and lengths of one summary, at most."""


class DocumentPage(NamedTuple):
    """Documents in the order of the list, and where the next page begins; None: there is none."""

    documents: list[DocumentSummary]
    next_key: DocumentKey | None


@dataclass(frozen=True, slots=True)
class DocumentFilter:
    """Which documents of a workspace a list holds; an empty field filters nothing.

    Attributes:
        workspace: The workspace.
        kind: Exactly this kind.
        properties: All of these.
        path_prefix: Paths that begin so.
        links_to: With a link that leads to this document.
        linked_from: That a link of this document leads to.
        text: With these words, see `match_expression`; the best come first.

    Raises:
        InvalidRequest: A field is wrong or too long.
    """

    workspace: str
    kind: str = ""
    properties: tuple[Property, ...] = ()
    path_prefix: str = ""
    links_to: str = ""
    linked_from: str = ""
    text: str = ""

    def __post_init__(self) -> None:
        check_workspace(self.workspace)
        texts = [(name, getattr(self, name)) for name in ("kind", "path_prefix", "text")]
        for name, value in self.properties:
            texts += [("a property's name", name), (f"property {name[:40]!r}", value)]
        for field, text in texts:
            if len(text) > MAX_FILTER_CHARACTERS:
                raise InvalidRequest(f"{field} has {len(text)} characters; allowed are {MAX_FILTER_CHARACTERS}")
        if len(self.properties) > MAX_PROPERTY_FILTERS:
            raise InvalidRequest(f"{len(self.properties)} properties are given; allowed are {MAX_PROPERTY_FILTERS}")
        for path in filter(None, (self.links_to, self.linked_from)):
            check_path(path)
        if self.text:
            match_expression(self.text)


_SUMMARY = "d.path, d.kind, d.title, d.problem, d.content_hash, d.size_bytes, d.updated_at"
_FOUND = "documents_text t CROSS JOIN documents d ON d.id = t.rowid"
_SNIPPET = (
    f"SELECT snippet(documents_text, 1, '', '', '…', {SNIPPET_TOKENS}) FROM documents_text"  # noqa: S608 - a constant
    " WHERE documents_text MATCH ? AND rowid = ?"
)


def documents(
    connection: Connection, wanted: DocumentFilter, after: DocumentKey | None, page_size: int
) -> DocumentPage:
    """One page of the documents of a workspace after a key, by path or by relevance."""
    rows = _by_relevance if wanted.text else _by_path
    return _page(rows(connection, wanted, after, page_size + 1), page_size)


def document(connection: Connection, workspace: str, path: str) -> StoredDocument:
    """One document.

    Raises:
        DocumentNotFound: The workspace has no document at this path.
    """
    row = connection.execute(
        f"SELECT CAST(d.front_matter AS BLOB), d.body, {_SUMMARY} FROM documents d"  # noqa: S608 - our own constant
        " WHERE d.workspace = ? AND d.path = ?",
        (workspace, path),
    ).fetchone()
    if row is None:
        raise DocumentNotFound(f"workspace {workspace!r} has no document at {path!r}")
    properties = connection.execute(
        "SELECT name, value FROM properties WHERE workspace = ? AND path = ? ORDER BY ordinal", (workspace, path)
    )
    links = connection.execute(
        "SELECT kind, target, label, wanted_path, wanted_name, target_path FROM links"
        " WHERE workspace = ? AND path = ? ORDER BY ordinal",
        (workspace, path),
    )
    return StoredDocument(
        DocumentSummary(*row[2:]),
        row[0],
        row[1],
        [Property(*one) for one in properties],
        [StoredLink(LinkKind(kind), *others) for kind, *others in links],
    )


def _by_path(
    connection: Connection, wanted: DocumentFilter, after: DocumentKey | None, limit: int
) -> Iterator[tuple[DocumentKey, DocumentSummary]]:
    conditions, parameters = _conditions(wanted)
    if after is not None:
        conditions.append("d.path > ?")
        parameters.append(after.path)
    rows = connection.execute(
        f"SELECT {_SUMMARY} FROM documents d WHERE {' AND '.join(conditions)}"  # noqa: S608 - our own conditions
        " ORDER BY d.path LIMIT ?",
        (*parameters, limit),
    )
    for row in rows:
        yield DocumentKey(0.0, row[0]), DocumentSummary(*row)


def _by_relevance(
    connection: Connection, wanted: DocumentFilter, after: DocumentKey | None, limit: int
) -> Iterator[tuple[DocumentKey, DocumentSummary]]:
    expression = match_expression(wanted.text)
    conditions, parameters = _conditions(wanted)
    follows = "" if after is None else "WHERE (relevance, path) > (?, ?)"
    # A word in the title weighs as much as eight in the body.
    rows = connection.execute(
        f"SELECT * FROM (SELECT bm25(documents_text, 8.0, 1.0) AS relevance, t.rowid, {_SUMMARY} FROM {_FOUND}"  # noqa: S608 - our own conditions
        f" WHERE documents_text MATCH ? AND {' AND '.join(conditions)}) {follows} ORDER BY relevance, path LIMIT ?",
        (expression, *parameters, *(after or ()), limit),
    ).fetchall()
    for row in rows:
        relevance, number, path = row[:3]
        (snippet,) = connection.execute(_SNIPPET, (expression, number)).fetchone()
        snippet = " ".join(snippet.split())[:MAX_SNIPPET_CHARACTERS]
        yield DocumentKey(relevance, path), DocumentSummary(*row[2:])._replace(snippet=snippet)


def _conditions(wanted: DocumentFilter) -> tuple[list[str], list[object]]:
    """Conditions on documents `d`, and their parameters."""
    conditions = ["d.workspace = ?"]
    parameters: list[object] = [wanted.workspace]
    if wanted.kind:
        conditions.append("d.kind = ?")
        parameters.append(wanted.kind)
    if wanted.path_prefix:
        conditions.append("d.path >= ? AND d.path < ? || char(1114111)")
        parameters += [wanted.path_prefix, wanted.path_prefix]
    for name, value in wanted.properties:
        conditions.append(
            "EXISTS (SELECT 1 FROM properties p WHERE p.workspace = d.workspace AND p.path = d.path"
            " AND p.name = ? AND p.value = ?)"
        )
        parameters += [name, value]
    if wanted.links_to:
        conditions.append(
            "EXISTS (SELECT 1 FROM links l WHERE l.workspace = d.workspace AND l.path = d.path"
            " AND l.target_path = ?)"
        )
        parameters.append(wanted.links_to)
    if wanted.linked_from:
        conditions.append(
            "d.path IN (SELECT l.target_path FROM links l WHERE l.workspace = ? AND l.path = ?"
            " AND l.target_path IS NOT NULL)"
        )
        parameters += [wanted.workspace, wanted.linked_from]
    return conditions, parameters


def _page(rows: Iterable[tuple[DocumentKey, DocumentSummary]], page_size: int) -> DocumentPage:
    page: list[DocumentSummary] = []
    last: DocumentKey | None = None
    size = 0
    for key, summary in rows:
        size += SUMMARY_OVERHEAD_BYTES + sum(len(text.encode()) for text in (*summary[:4], summary.snippet))
        if len(page) == page_size or (page and size > MAX_PAGE_BYTES):
            return DocumentPage(page, last)
        page.append(summary)
        last = key
    return DocumentPage(page, None)
