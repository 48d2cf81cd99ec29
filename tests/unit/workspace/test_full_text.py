from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_core.errors import InvalidRequest
from replica.reading.workspace.full_text import match_expression
from tests.unit.workspace.index import Index, document


@pytest.fixture(scope="module")
def index() -> Iterator[Index]:
    index = Index()
    index.put(document("a.md", "the write ahead log"), document("b.md", "ahead of the log we write"))
    yield index
    index.close()


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("write log", '"write" "log"'),
        ('"write ahead" log', '"write ahead" "log"'),
        ("repl*", '"repl"*'),
        ("a AND b OR NOT c", '"a" "AND" "b" "OR" "NOT" "c"'),
        ("title:x ^y (z) -w", '"title:x" "^y" "(z)" "-w"'),
        ('open "phrase', '"open" "phrase"'),
        ("— x !", '"x"'),
    ],
)
def test_nothing_that_is_looked_for_is_an_operator(text: str, expression: str) -> None:
    assert match_expression(text) == expression


@pytest.mark.parametrize("text", ["", "  ", "!? *", '""'])
def test_a_text_without_words_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="no word"):
        match_expression(text)


def test_too_many_words_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="17 words and phrases; at most 16"):
        match_expression("x " * 17)


@pytest.mark.parametrize(
    ("text", "found"),
    [("log write", ["a.md", "b.md"]), ('"write ahead"', ["a.md"]), ("ahe*", ["a.md", "b.md"]), ("log missing", [])],
)
def test_all_words_must_occur_and_phrases_in_their_order(index: Index, text: str, found: list[str]) -> None:
    assert index.matching(match_expression(text)) == found


PIECES = st.sampled_from(['"', "*", "'", "(", ")", ":", "^", "+", "-", " ", "a", "ä", "\u0300", "😀", "NOT"])


@given(text=st.lists(PIECES, max_size=20).map("".join))
def test_no_text_is_an_error_of_the_full_text_itself(index: Index, text: str) -> None:
    try:
        expression = match_expression(text)
    except InvalidRequest:
        return
    index.matching(expression)
