from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from agent_core.errors import DocumentNotFound, InvalidRequest
from agent_core.workspace.document import DocumentChange, Link, LinkKind, Property
from agent_core.workspace.stored import DocumentSummary
from replica.reading.workspace.paging import DocumentKey, decode_page_token, encode_page_token
from replica.reading.workspace.queries import DocumentFilter, document, documents
from tests.unit.workspace.index import Index
from tests.unit.workspace.index import document as written


@pytest.fixture
def index() -> Iterator[Index]:
    index = Index()
    to_b = Link(LinkKind.DOCUMENT, "b.md", "b", wanted_path="b.md")
    index.put(
        written("a.md", "the log", links=[to_b], kind="decision", status="open", tag="x"),
        written("b.md", "log log log", kind="note", status="open"),
        written("sub/c.md", "nothing", links=[to_b], kind="decision", status="done"),
        written("sub/d.md", "a log at the end of " + "a long text " * 20, kind="note"),
    )
    other = written("e.md", "log", kind="decision")
    index.change(DocumentChange("e.md", "", other), workspace="other")
    yield index
    index.close()


def pages(index: Index, page_size: int = 2, **wanted: Any) -> list[DocumentSummary]:
    """Every page of a list, each token encoded and decoded as a client would pass it on."""
    found: list[DocumentSummary] = []
    after: DocumentKey | None = None
    while True:
        page = documents(index.connection, DocumentFilter("w", **wanted), after, page_size)
        assert len(page.documents) <= page_size
        found += page.documents
        if page.next_key is None:
            return found
        after = decode_page_token(encode_page_token(page.next_key))


def paths(index: Index, **wanted: Any) -> list[str]:
    return [one.path for one in pages(index, **wanted)]


def test_documents_come_by_path_once_over_all_pages(index: Index) -> None:
    assert paths(index) == ["a.md", "b.md", "sub/c.md", "sub/d.md"]


def test_filters_hold_together(index: Index) -> None:
    assert paths(index, kind="decision") == ["a.md", "sub/c.md"]
    assert paths(index, properties=(Property("status", "open"),)) == ["a.md", "b.md"]
    assert paths(index, properties=(Property("status", "open"), Property("tag", "x"))) == ["a.md"]
    assert paths(index, path_prefix="sub/") == ["sub/c.md", "sub/d.md"]
    assert paths(index, links_to="b.md") == ["a.md", "sub/c.md"]
    assert paths(index, links_to="b.md", kind="decision", path_prefix="s") == ["sub/c.md"]
    assert paths(index, linked_from="a.md") == ["b.md"]
    assert paths(index, links_to="a.md") == []


def test_a_search_has_the_best_first_over_all_pages(index: Index) -> None:
    found = pages(index, page_size=1, text="log")
    assert {one.path for one in found[:2]} == {"a.md", "b.md"}
    assert [one.path for one in found[2:]] == ["sub/d.md"]
    assert found == pages(index, page_size=10, text="log")
    assert all("log" in one.snippet for one in found)


def test_a_search_and_filters_hold_together(index: Index) -> None:
    assert paths(index, text="log", kind="note") == ["b.md", "sub/d.md"]
    assert paths(index, text="log", links_to="b.md") == ["a.md"]


def test_a_document_has_everything_in_it(index: Index) -> None:
    found = document(index.connection, "w", "a.md")
    assert (found.summary.kind, found.body) == ("decision", "the log")
    assert found.properties == [Property("kind", "decision"), Property("status", "open"), Property("tag", "x")]
    assert [(link.target, link.target_path) for link in found.links] == [("b.md", "b.md")]


def test_a_document_that_is_not_there_is_not_found(index: Index) -> None:
    with pytest.raises(DocumentNotFound, match=r"workspace 'w' has no document at 'e.md'"):
        document(index.connection, "w", "e.md")


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ({"workspace": "a/b"}, "workspace must be"),
        ({"kind": "k" * 1025}, "kind has 1025 characters"),
        ({"links_to": "../x"}, "relative to the workspace"),
        ({"text": "!"}, "no word"),
        ({"properties": (Property("a", "b"),) * 9}, "9 properties are given"),
    ],
)
def test_a_filter_out_of_bounds_is_refused_by_name(wanted: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        DocumentFilter(**{"workspace": "w", **wanted})


@pytest.mark.parametrize("token", ["!", "W10", "WzAuMCwiLi4vYSJd", "WzEsImEiXQ", "WyJhIiwiYiJd", "A" * 2000])
def test_a_page_token_from_elsewhere_is_refused(token: str) -> None:
    with pytest.raises(InvalidRequest, match="page_token"):
        decode_page_token(token)
