"""Documents as the index holds them: what readers get."""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from agent_core.workspace.document import LinkKind, Property


class DocumentSummary(NamedTuple):
    """One document as lists show it.

    Attributes:
        path: Below the workspace's folder.
        kind: From its front matter.
        title: From its front matter, its first heading or its name.
        problem: What of it could not be indexed; empty: nothing.
        content_hash: Stands for its file's content.
        size_bytes: Of its file.
        updated_at_ms: When the index changed.
        snippet: Around a word that was looked for; empty in other lists.
    """

    path: str
    kind: str
    title: str
    problem: str
    content_hash: str
    size_bytes: int
    updated_at_ms: int
    snippet: str = ""


class StoredLink(NamedTuple):
    """One link; `target_path` is the document that it leads to, None while there is none."""

    kind: LinkKind
    target: str
    label: str
    wanted_path: str | None
    wanted_name: str | None
    target_path: str | None


class StoredDocument(NamedTuple):
    """One document, all of it."""

    summary: DocumentSummary
    front_matter_json: bytes
    body: str
    properties: list[Property]
    links: list[StoredLink]

    def fields(self) -> dict[str, Any]:
        """All of it as one JSON object, for orjson; the front matter keeps its text."""
        return {
            **self.summary._asdict(),
            "front_matter": orjson.Fragment(self.front_matter_json),
            "body": self.body,
            "properties": [one._asdict() for one in self.properties],
            "links": [link._asdict() for link in self.links],
        }
