from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent_core.workspace.difference import Difference, difference

HELD = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("123"))


def test_a_rename_takes_one_out_and_puts_one_in() -> None:
    assert difference({"old.md": "1", "same.md": "2"}, {"new.md": "1", "same.md": "2"}) == [
        Difference("new.md", None, "1"),
        Difference("old.md", "1", None),
    ]


def test_what_cannot_be_read_stays_as_it_is() -> None:
    assert difference({"a/x.md": "1", "b.md": "1"}, {}, lambda path: path.startswith("a/")) == [
        Difference("b.md", "1", None)
    ]


@given(indexed=HELD, found=HELD)
def test_the_differences_make_an_index_equal_to_its_folder_and_leave_none(
    indexed: dict[str, str], found: dict[str, str]
) -> None:
    for path, before, after in difference(indexed, found):
        assert indexed.pop(path, None) == before
        if after is not None:
            indexed[path] = after
    assert indexed == found
    assert difference(indexed, found) == []
