"""What the index wants of Markdown: the first heading, and the links, wiki links included."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator
from itertools import islice, pairwise, takewhile
from typing import NamedTuple
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

from agent_core.workspace.document import Link, LinkKind
from agent_core.workspace.names import document_name, is_document, path_problem

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|//")
_MAX_WIKI_LINK_CHARACTERS = 1024
_TEXTS = frozenset({"text", "code_inline", "wiki_link"})
_BREAKS = frozenset({"softbreak", "hardbreak"})


class MarkdownFacts(NamedTuple):
    """What a text says.

    Attributes:
        heading: The first heading's text; empty: there is none.
        links: In the order of the text; links within the document itself are left out.
    """

    heading: str
    links: Iterator[Link]


def read_markdown(path: str, text: str) -> MarkdownFacts:
    """The facts of the document at `path`, to which its links are relative."""
    tokens = _MARKDOWN.parse(text)
    heading = next(
        (_plain(content.children or ()) for opening, content in pairwise(tokens) if opening.type == "heading_open"),
        "",
    )
    return MarkdownFacts(heading, _links(path, tokens))


def _wiki_link(state: StateInline, silent: bool) -> bool:
    """`[[target]]` and `[[target|label]]` as one token; a rule of markdown-it's inline parser."""
    start = state.pos + 2
    if not state.src.startswith("[[", state.pos):
        return False
    end = state.src.find("]]", start, min(start + _MAX_WIKI_LINK_CHARACTERS, state.posMax))
    content = state.src[start:end] if end > start else ""
    target, _, label = content.partition("|")
    if not target.strip() or "\n" in content or "[" in content:
        return False
    if not silent:
        token = state.push("wiki_link", "", 0)
        token.meta = {"target": target.strip()}
        token.content = label.strip() or target.strip()
    state.pos = end + 2
    return True


_MARKDOWN = MarkdownIt("commonmark")
_MARKDOWN.inline.ruler.before("link", "wiki_link", _wiki_link)


def _links(path: str, tokens: list[Token]) -> Iterator[Link]:
    for block in tokens:
        children = block.children or []
        for number, token in enumerate(children):
            link = None
            if token.type == "wiki_link":
                link = _wiki(str(token.meta["target"]), token.content)
            elif token.type == "link_open":
                label = takewhile(lambda inside: inside.type != "link_close", islice(children, number + 1, None))
                link = _by_path(path, str(token.attrGet("href")), _plain(label))
            elif token.type == "image":
                link = _by_path(path, str(token.attrGet("src")), token.content)
            if link is not None:
                yield link


def _by_path(path: str, target: str, label: str) -> Link | None:
    """A link as Markdown writes it; None for one within its own document."""
    if _SCHEME.match(target):
        return Link(LinkKind.EXTERNAL, target, label)
    wanted = unquote(target.partition("#")[0].partition("?")[0])
    if not wanted:
        return None
    from_top = wanted.startswith("/")
    resolved = posixpath.normpath(posixpath.join("" if from_top else posixpath.dirname(path), wanted.lstrip("/")))
    if resolved.startswith("../") or resolved in {"..", "."}:
        return Link(LinkKind.EXTERNAL, target, label)
    if wanted.endswith("/"):
        return Link(LinkKind.FILE, target, label)
    if "." not in posixpath.basename(resolved):
        resolved += ".md"
    if not is_document(resolved) or path_problem(resolved) is not None:
        return Link(LinkKind.FILE, target, label)
    return Link(LinkKind.DOCUMENT, target, label, wanted_path=resolved)


def _wiki(target: str, label: str) -> Link | None:
    wanted = target.partition("#")[0].strip()
    if not wanted:
        return None
    if "/" not in wanted:
        name = document_name(wanted)
        return Link(LinkKind.WIKI, target, label, wanted_name=None if path_problem(name) else name)
    resolved = posixpath.normpath(wanted.lstrip("/"))
    if not is_document(resolved):
        resolved += ".md"
    return Link(LinkKind.WIKI, target, label, wanted_path=None if path_problem(resolved) else resolved)


def _plain(tokens: Iterable[Token]) -> str:
    return "".join(
        token.content if token.type in _TEXTS or token.type == "image" else " " if token.type in _BREAKS else ""
        for token in tokens
    ).strip()
