"""One document as it is indexed, and one change of the index."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

MAX_DOCUMENT_BYTES = 1 << 20
MAX_FRONT_MATTER_BYTES = 64 << 10
MAX_KIND_CHARACTERS = 128
MAX_TITLE_CHARACTERS = 512
MAX_PROPERTIES = 256
MAX_PROPERTY_NAME_CHARACTERS = 128
MAX_PROPERTY_VALUE_CHARACTERS = 1024
MAX_LINKS = 2048
MAX_LINK_CHARACTERS = 1024
"""Of a link's target, and of its label."""
MAX_PROBLEM_CHARACTERS = 512

_HASH_BYTES = 16
_INDEXED_AS = b"document 1"
"""Goes into every hash: raised when files come to be indexed in another way, it makes all of them differ."""


class LinkKind(StrEnum):
    """What a link asks for."""

    DOCUMENT = "document"
    """A document by its path."""
    WIKI = "wiki"
    """A document as `[[name]]`, or `[[path/to/it]]` from the workspace's top."""
    FILE = "file"
    """A file that is no document; it is not looked for."""
    EXTERNAL = "external"
    """Anything outside the workspace."""


class Property(NamedTuple):
    """One value of the front matter; a list makes several of one name, a mapping names with dots."""

    name: str
    value: str


class Link(NamedTuple):
    """One link of a document, in the order of the text.

    Attributes:
        kind: What it asks for.
        target: As it is written.
        label: The text that shows it.
        wanted_path: The document that it asks for, if by path …
        wanted_name: … and if by name; see `agent_core.workspace.names.document_name`.
    """

    kind: LinkKind
    target: str
    label: str
    wanted_path: str | None = None
    wanted_name: str | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """One document, read from its file.

    Attributes:
        path: Below the workspace's folder, with slashes.
        kind: From the front matter; may be empty.
        title: From the front matter, else the first heading, else the file's name.
        front_matter_json: A JSON object.
        body: The Markdown text behind the front matter.
        problem: What of it could not be indexed, with the line; empty: nothing.
        content_hash: Of the file, see `content_hash`.
        size_bytes: Of the file.
        properties: The front matter's values, for filters.
        links: Out of it.
    """

    path: str
    kind: str
    title: str
    front_matter_json: str
    body: str
    problem: str
    content_hash: str
    size_bytes: int
    properties: tuple[Property, ...]
    links: tuple[Link, ...]


class DocumentChange(NamedTuple):
    """Put a document into the index, or take one out.

    Attributes:
        path: The document's.
        replaces: The content hash that the index must hold of it; empty: none.
        document: What it becomes; None: it is taken out.
    """

    path: str
    replaces: str
    document: Document | None


class ChangeOutcome(StrEnum):
    """What became of a change."""

    APPLIED = "applied"
    UNCHANGED = "unchanged"
    """The index held it already: a repetition changes nothing."""
    CONFLICT = "conflict"
    """The index holds something else than what it should replace."""


def content_hash(content: bytes) -> str:
    """32 hexadecimal digits that stand for a file's content, and for the way in which it is indexed."""
    return hashlib.blake2b(content, digest_size=_HASH_BYTES, person=_INDEXED_AS).hexdigest()
