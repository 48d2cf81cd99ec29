from __future__ import annotations

import pytest

from agent_core.errors import InvalidRequest
from agent_core.workspace.names import check_path, check_workspace, document_name, is_document


@pytest.mark.parametrize("path", ["a.md", "a/b c/ä.md", "...md", "a\\b.md"])
def test_a_path_of_plain_parts_is_taken(path: str) -> None:
    assert check_path(path) == path


LEADS_ELSEWHERE = ["", "/a.md", "a//b.md", "../a.md", "a/./b.md"]
HIDES_SOMETHING = ["a\n.md", "a\x1b.md", "a\udc80.md"]
TOO_LONG = ["a" * 513, "ä" * 257]


@pytest.mark.parametrize("path", LEADS_ELSEWHERE + HIDES_SOMETHING + TOO_LONG)
def test_a_path_that_leads_elsewhere_or_hides_something_is_refused(path: str) -> None:
    with pytest.raises(InvalidRequest, match="the document"):
        check_path(path)


@pytest.mark.parametrize("name", ["", "a/b", "a\n", "a" * 129])
def test_a_workspace_has_a_name_that_fits_an_address(name: str) -> None:
    with pytest.raises(InvalidRequest, match="workspace must be"):
        check_workspace(name)


def test_documents_are_told_by_their_suffix_in_either_case() -> None:
    names = ("a.md", "A.MD", "b.markdown", "c.txt", "md")
    assert [is_document(name) for name in names] == [True, True, True, False, False]
    assert [document_name(path) for path in ("d/A Page.md", "b.MARKDOWN", "c")] == ["a page", "b", "c"]
