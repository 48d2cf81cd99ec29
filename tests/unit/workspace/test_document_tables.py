from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_core.workspace.document import ChangeOutcome, Document, DocumentChange, Link, LinkKind
from tests.unit.workspace.index import Index, document

APPLIED, UNCHANGED, CONFLICT = ChangeOutcome.APPLIED, ChangeOutcome.UNCHANGED, ChangeOutcome.CONFLICT

PATHS = st.sampled_from(["a.md", "b.md", "d/a.md", "d/c.md", "longer/a.md"])
LINKS = st.lists(
    st.one_of(
        PATHS.map(lambda path: Link(LinkKind.DOCUMENT, path, "", wanted_path=path)),
        st.sampled_from(["a", "b", "c", "x"]).map(lambda name: Link(LinkKind.WIKI, name, "", wanted_name=name)),
    ),
    max_size=3,
)
DOCUMENTS = st.builds(
    lambda path, body, links: document(path, body, links=links), PATHS, st.sampled_from(["one", "two words"]), LINKS
)


def wiki(name: str) -> Link:
    return Link(LinkKind.WIKI, name, name, wanted_name=name)


def to(path: str) -> Link:
    return Link(LinkKind.DOCUMENT, path, path, wanted_path=path)


@pytest.fixture
def index() -> Iterator[Index]:
    index = Index()
    yield index
    index.close()


def test_a_change_that_is_repeated_changes_nothing(index: Index) -> None:
    put = DocumentChange("a.md", "", document("a.md", "text"))
    assert index.change(put) == [APPLIED]
    assert index.change(put) == [UNCHANGED]
    gone = DocumentChange("a.md", put.document.content_hash if put.document else "", None)
    assert index.change(gone) == [APPLIED]
    assert index.change(gone) == [UNCHANGED]


def test_a_change_that_comes_late_does_not_undo_a_newer_one(index: Index) -> None:
    first, second, third = (document("a.md", text) for text in ("1", "2", "3"))
    for newer in (first, second, third):
        index.put(newer)
    late = DocumentChange("a.md", first.content_hash, second)
    assert index.change(late) == [CONFLICT]
    assert index.hashes() == {"a.md": third.content_hash}


def test_what_is_not_expected_to_be_there_is_not_deleted(index: Index) -> None:
    index.put(document("a.md", "text"))
    assert index.change(DocumentChange("a.md", "", None)) == [CONFLICT]


def test_a_link_to_a_document_that_is_not_there_stays_unresolved_until_it_comes(index: Index) -> None:
    index.put(document("a.md", links=[to("b.md"), wiki("b")]))
    assert index.targets("a.md") == [None, None]
    index.put(document("b.md"))
    assert index.targets("a.md") == ["b.md", "b.md"]
    index.delete("b.md")
    assert index.targets("a.md") == [None, None]


def test_a_name_leads_to_the_shortest_path(index: Index) -> None:
    index.put(document("from.md", links=[wiki("a")]), document("deep/down/a.md"), document("deep/a.md"))
    assert index.targets("from.md") == ["deep/a.md"]
    index.put(document("top/a.md"), document("a.md"))
    assert index.targets("from.md") == ["a.md"]
    index.delete("a.md")
    assert index.targets("from.md") == ["top/a.md"]


def test_workspaces_do_not_see_each_other(index: Index) -> None:
    index.put(document("a.md", links=[wiki("b")]))
    index.change(DocumentChange("b.md", "", document("b.md")), workspace="other")
    assert index.targets("a.md") == [None]
    assert index.hashes("other").keys() == {"b.md"}


def test_the_full_text_follows_its_documents(index: Index) -> None:
    index.put(document("a.md", "Straße und Äpfel"), document("b.md", "nothing of it"))
    assert index.matching("apfel") == ["a.md"]
    index.put(document("a.md", "other words"))
    assert index.matching("apfel") == []
    index.delete("b.md")
    assert index.matching("nothing") == []


@given(history=st.lists(st.one_of(DOCUMENTS, PATHS), max_size=12))
def test_any_history_of_changes_ends_as_if_its_end_had_been_written_at_once(
    history: list[Document | str],
) -> None:
    followed, at_once = Index(), Index()
    try:
        for step in history:
            if isinstance(step, Document):
                followed.put(step)
            elif step in followed.hashes():
                followed.delete(step)
        last = {step.path if isinstance(step, Document) else step: step for step in history}
        at_once.put(*(step for step in last.values() if isinstance(step, Document)))
        assert followed.content() == at_once.content()
    finally:
        followed.close()
        at_once.close()
