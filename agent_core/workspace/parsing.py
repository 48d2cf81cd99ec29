"""From the bytes of one Markdown file to a document."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import orjson

from agent_core.workspace.document import (
    MAX_DOCUMENT_BYTES,
    MAX_KIND_CHARACTERS,
    MAX_LINK_CHARACTERS,
    MAX_LINKS,
    MAX_PROBLEM_CHARACTERS,
    MAX_PROPERTIES,
    MAX_PROPERTY_NAME_CHARACTERS,
    MAX_PROPERTY_VALUE_CHARACTERS,
    MAX_TITLE_CHARACTERS,
    Document,
    Link,
    Property,
    content_hash,
)
from agent_core.workspace.front_matter import (
    BrokenFrontMatter,
    JsonObject,
    properties_of,
    scalar_text,
    split_front_matter,
)
from agent_core.workspace.markdown import read_markdown


class UnreadableDocument(Exception):
    """A file that cannot be a document: too large, or no text."""


def text_of(content: bytes) -> str:
    """A file's text.

    Raises:
        UnreadableDocument: It is too large, not UTF-8, or holds NUL.
    """
    if len(content) > MAX_DOCUMENT_BYTES:
        raise UnreadableDocument(f"larger than a document may be, {MAX_DOCUMENT_BYTES} bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UnreadableDocument(f"line {line}: not UTF-8: {error.reason}") from error
    if "\0" in text:
        raise UnreadableDocument(
            f"line {text.count(chr(10), 0, text.index(chr(0))) + 1}: holds NUL, so it is no text"
        )
    return text


def read_document(path: str, content: bytes) -> Document:
    """The document at `path` whose file holds `content`.

    Front matter that is broken costs its properties only; the document's `problem` says so, with the line.

    Raises:
        UnreadableDocument: It can be no document.
    """
    text = text_of(content)
    problems: list[str] = []
    values: JsonObject = {}
    try:
        values, body = split_front_matter(text)
    except BrokenFrontMatter as broken:
        body = broken.body
        problems.append(f"line {broken.line}: {broken}")
    markdown = read_markdown(path, body)
    title = _one_line(scalar_text(values.get("title"))) or _one_line(markdown.heading) or _stem(path)
    return Document(
        path=path,
        kind=_one_line(scalar_text(values.get("kind")))[:MAX_KIND_CHARACTERS],
        title=title[:MAX_TITLE_CHARACTERS],
        front_matter_json=orjson.dumps(values).decode(),
        body=body,
        properties=_properties(properties_of(values), problems),
        links=_links(markdown.links, problems),
        problem="; ".join(problems)[:MAX_PROBLEM_CHARACTERS],
        content_hash=content_hash(content),
        size_bytes=len(content),
    )


def _properties(properties: Iterable[Property], problems: list[str]) -> tuple[Property, ...]:
    found = list(islice(properties, MAX_PROPERTIES + 1))
    if len(found) > MAX_PROPERTIES:
        problems.append(f"has more than {MAX_PROPERTIES} properties; the first {MAX_PROPERTIES} are indexed")
    return tuple(
        Property(name[:MAX_PROPERTY_NAME_CHARACTERS], value[:MAX_PROPERTY_VALUE_CHARACTERS])
        for name, value in found[:MAX_PROPERTIES]
    )


def _links(links: Iterable[Link], problems: list[str]) -> tuple[Link, ...]:
    found = list(islice(links, MAX_LINKS + 1))
    if len(found) > MAX_LINKS:
        problems.append(f"has more than {MAX_LINKS} links; the first {MAX_LINKS} are indexed")
    return tuple(
        link._replace(target=link.target[:MAX_LINK_CHARACTERS], label=link.label[:MAX_LINK_CHARACTERS])
        for link in found[:MAX_LINKS]
    )


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def _stem(path: str) -> str:
    return path.rpartition("/")[2].rpartition(".")[0] or path
