from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_core.workspace.document import (
    MAX_DOCUMENT_BYTES,
    MAX_LINKS,
    MAX_PROPERTIES,
    Document,
    Link,
    LinkKind,
    Property,
    content_hash,
)
from agent_core.workspace.parsing import UnreadableDocument, read_document


def read(text: str, path: str = "notes/a.md") -> Document:
    return read_document(path, text.encode())


def links(text: str, path: str = "notes/a.md") -> list[tuple[str, str | None, str | None]]:
    return [(str(link.kind), link.wanted_path, link.wanted_name) for link in read(text, path).links]


def test_front_matter_gives_kind_title_and_properties() -> None:
    document = read("---\nkind: decision\ntitle: Use SQLite\ntags: [db, log]\nowner: {name: Ann}\ndue:\n---\nBody")
    assert (document.kind, document.title, document.body) == ("decision", "Use SQLite", "\nBody")
    assert document.properties == (
        Property("kind", "decision"),
        Property("title", "Use SQLite"),
        Property("tags", "db"),
        Property("tags", "log"),
        Property("owner.name", "Ann"),
        Property("due", ""),
    )
    assert orjson.loads(document.front_matter_json)["tags"] == ["db", "log"]


def test_a_title_is_the_first_heading_else_the_name_of_the_file() -> None:
    assert read("text\n\n## The *first* `one`\n\n# Second").title == "The first one"
    assert read("text").title == "a"


def test_values_of_every_type_become_text() -> None:
    document = read("---\nb: yes\ni: 7\nf: 1.5\nd: 2024-01-02\nn: .nan\nbig: 99999999999999999999\n---\n")
    assert dict(document.properties) == {
        "b": "true",
        "i": "7",
        "f": "1.5",
        "d": "2024-01-02",
        "n": "nan",
        "big": "99999999999999999999",
    }


def test_a_text_without_front_matter_is_all_body() -> None:
    for text in ("plain", "---\nonly a rule", "\n---\nkind: x\n---\n"):
        assert (read(text).body, read(text).properties, read(text).problem) == (text, (), "")


def test_a_byte_order_mark_does_not_hide_front_matter() -> None:
    assert read("\ufeff---\nkind: x\n---\n").kind == "x"


@pytest.mark.parametrize(
    ("front_matter", "line", "reason"),
    [
        ("kind: [x", 3, "did not find expected"),
        ("ok: 1\na: x\n  b: y", 4, "mapping values are not allowed"),
        ("- 1\n- 2", 1, "no mapping"),
        ("day: 2024-13-45", 2, "month must be in 1..12"),
        ("a: &a [1]\nb: *a", 3, "alias *a is not allowed"),
        ("k: !!python/object/apply:os.system [ls]", 2, "constructor"),
        ("a: \x07", 2, "control characters"),
        ("a: " + "[" * 40, 2, "deeper than 16"),
        ("a: " + "9" * 5000, 2, "4300 digits"),
        ("? [a]\n: b", 2, "unhashable"),
        ("a: " + "x" * 70_000, 1, "at most 65536"),
    ],
)
def test_broken_front_matter_is_told_with_its_line_and_costs_the_properties_only(
    front_matter: str, line: int, reason: str
) -> None:
    document = read(f"---\n{front_matter}\n---\n# Heading\n[b](b.md)")
    assert document.problem.startswith(f"line {line}: front matter: ")
    assert reason in document.problem
    assert (document.properties, document.kind) == ((), "")
    assert (document.title, len(document.links)) == ("Heading", 1)


def test_aliases_that_stand_for_gigabytes_are_refused_before_they_are_followed() -> None:
    levels = [f"l{number}: &l{number} [{', '.join([f'*l{number - 1}'] * 9)}]" for number in range(1, 9)]
    document = read("---\nl0: &l0 lol\n" + "\n".join(levels) + "\n---\n")
    assert "alias *l0 is not allowed" in document.problem


def test_links_by_path_are_relative_to_their_document() -> None:
    text = "[a](b.md#part) [b](/c) [c](../d.markdown) [d](sp%20ace.md) [e](<sp ace.md>) [f](sub/)"
    assert links(text) == [
        ("document", "notes/b.md", None),
        ("document", "c.md", None),
        ("document", "d.markdown", None),
        ("document", "notes/sp ace.md", None),
        ("document", "notes/sp ace.md", None),
        ("file", None, None),
    ]


def test_wiki_links_ask_for_a_name_or_for_a_path_from_the_top() -> None:
    assert read("[[A Page|shown]]").links == (Link(LinkKind.WIKI, "A Page", "shown", wanted_name="a page"),)
    assert links("[[dir/Page#part]] ![[Embedded.md]]") == [
        ("wiki", "dir/Page.md", None),
        ("wiki", None, "embedded"),
    ]


def test_what_is_no_link_to_a_document_is_told_apart() -> None:
    assert links("<https://x.example> ![p](p.png) [up](../../e.md) [in](#here) `[[code]]`\n\n    [[block]]") == [
        ("external", None, None),
        ("file", None, None),
        ("external", None, None),
    ]


def test_a_link_knows_the_text_that_shows_it() -> None:
    assert [link.label for link in read("[some *words* `x`](b.md)").links] == ["some words x"]


def test_what_passes_a_limit_is_cut_and_told() -> None:
    values = "\n".join(f"p{number}: {number}" for number in range(MAX_PROPERTIES + 1))
    document = read(f"---\n{values}\n---\n" + "[a](b.md) " * (MAX_LINKS + 1))
    assert (len(document.properties), len(document.links)) == (MAX_PROPERTIES, MAX_LINKS)
    assert "more than 256 properties" in document.problem
    assert "more than 2048 links" in document.problem


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"x" * (MAX_DOCUMENT_BYTES + 1), "larger"),
        (b"one\ntwo \xff", "line 2: not UTF-8"),
        (b"one\n\0", "line 2: holds NUL"),
    ],
)
def test_what_is_no_text_is_no_document(content: bytes, reason: str) -> None:
    with pytest.raises(UnreadableDocument, match=reason):
        read_document("a.md", content)


def test_equal_content_has_an_equal_hash() -> None:
    assert content_hash(b"a") == content_hash(b"a") != content_hash(b"b")


YAML_PIECES = st.sampled_from(
    [*"abc01.:-,[]{}&*!?|>%@#'\"\\~=<> ", "\n", "\n  ", "- ", ": ", "!!", "<<: ", "---\n", "2024-01-", "0x", "null"]
)
MARKDOWN_PIECES = st.sampled_from(
    [
        *"ab #*_`<>()!|\\-+=&;:/.",
        "[",
        "]",
        "[[",
        "]]",
        "](",
        "\n",
        "\n\n",
        "```\n",
        "http://",
        "<!--",
        "\u202e",
        "ä",
    ]
)


@given(
    front_matter=st.lists(YAML_PIECES, max_size=40).map("".join),
    body=st.lists(MARKDOWN_PIECES, max_size=60).map("".join),
)
def test_no_text_ends_in_anything_but_a_document_that_can_be_stored(front_matter: str, body: str) -> None:
    document = read(f"---\n{front_matter}\n---\n{body}")
    assert isinstance(orjson.loads(document.front_matter_json), dict)
    for text in (document.title, document.kind, document.problem, document.body):
        assert "\0" not in text
        text.encode()
    for found in document.properties:
        "".join(found).encode()
    for link in document.links:
        assert not (link.wanted_path and link.wanted_name)


@given(content=st.binary(max_size=200))
def test_no_bytes_end_in_anything_but_a_document_or_a_refusal(content: bytes) -> None:
    try:
        document = read_document("a.md", content)
    except UnreadableDocument:
        return
    assert document.size_bytes == len(content)
