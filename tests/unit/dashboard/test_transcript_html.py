"""A transcript's texts as HTML: whatever they are, only the elements that the dashboard writes come out."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.dashboard.transcript.code import code_block
from ops.dashboard.transcript.conversation import Conversation
from ops.dashboard.transcript.markdown import leads_to_the_web, markdown
from ops.dashboard.transcript.rendering import clock, moment, render
from ops.dashboard.transcript.visible import SHOWN_CHARACTERS, clipped, one_line, visible
from replica.reading.http_models import EntryModel

ELEMENTS = frozenset(
    [
        "article",
        "header",
        "b",
        "span",
        "div",
        "details",
        "summary",
        "footer",
        "a",
        "time",
        "p",
        "pre",
        "code",
        "em",
        "strong",
        "s",
        "ul",
        "ol",
        "li",
        "blockquote",
        "hr",
        "br",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
    ]
)
ATTRIBUTES = frozenset(
    ["class", "id", "title", "dir", "href", "target", "rel", "tabindex", "datetime", "aria-label", "start", "style"]
)
PIECES = [
    *("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", '<http://e/"onclick=x>', "![i](http://e/x)"),
    *("](javascript:alert(1))", "[x](", "[a]: javascript:x\n[a]", "&#106;avascript:", "&lt;script&gt;"),
    *('"', "'", ">", "<", "`", "\n", "```html\n", '~~~"onload=x\n', "| a |\n|--|\n", "# ", "> ", "- ", "    "),
    *("\x1b[31m", "\u202e", "\x00", "\ud800"),
]
hostile = st.lists(st.sampled_from(PIECES) | st.text(max_size=8), max_size=12).map("".join)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | hostile,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(hostile, inner, max_size=3),
    max_leaves=8,
)


class Checker(HTMLParser):
    """Fails at an element, an attribute or a link that the dashboard does not write."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ELEMENTS, tag
        for name, value in attrs:
            assert name in ATTRIBUTES, name
            if name == "style":
                assert value in {"text-align:left", "text-align:right", "text-align:center"}
            if name == "href":
                assert value is not None
                assert value.startswith("/raw/") or leads_to_the_web(value), value

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)


def check(html: str) -> None:
    checker = Checker()
    checker.feed(html)
    checker.close()


def entry(payload: object, kind: str = "message", seq: int = 1) -> EntryModel:
    return EntryModel(seq=seq, kind=kind, payload=payload, created_at_ms=0, idempotency_key="")


@given(hostile)
def test_markdown_becomes_harmless_elements_only(text: str) -> None:
    check(markdown(visible(text)))


@given(hostile, st.sampled_from(["", "python", "html", "diff", "json", "bash", "no such language", '"><script>']))
def test_code_in_any_language_becomes_harmless_elements_only(text: str, language: str) -> None:
    check(code_block(visible(text), language))


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "role": st.sampled_from(["user", "assistant", "tool_result", "custom"]) | json_values,
            "content": json_values
            | st.lists(
                st.fixed_dictionaries(
                    {"type": st.sampled_from(["text", "reasoning", "tool_call", "image"]) | json_values},
                    optional={
                        "text": json_values,
                        "id": json_values,
                        "name": json_values,
                        "arguments": json_values,
                    },
                ),
                max_size=3,
            ),
            "phase": st.sampled_from(["start", "end"]),
            "toolCallId": json_values,
            "toolName": json_values,
            "usage": json_values,
            "model": json_values,
            "isError": json_values,
            "customType": json_values,
        },
    )
    | json_values,
    st.sampled_from(["message", "tool_execution", "session_settings", "unknown"]),
)
def test_any_entry_becomes_harmless_elements_only(payload: object, kind: str) -> None:
    conversation = Conversation()
    conversation.add([entry(payload, kind)])
    for item in conversation.items:
        check(render(item, "/raw/x"))


@given(st.text())
def test_nothing_hidden_and_nothing_that_turns_text_around_remains_visible_text(text: str) -> None:
    shown = visible(text)
    assert not set(shown) & set("\x00\x07\x1b\x7f\x9b\u200b\u200f\u202a\u202e\u2066\u2069\ufeff")
    shown.encode()


def test_terminal_sequences_go_and_other_control_characters_show() -> None:
    assert visible("\x1b[1;31mred\x1b[0m\x1b]8;;http://e\x07link\x07\r\nnext\x00") == "redlink␇\nnext␀"


@pytest.mark.parametrize(
    "url",
    [
        "javascript:x",
        "JAVASCRIPT:x",
        " java\tscript:x",
        "data:text/html,x",
        "vbscript:x",
        "file:///x",
        "/x",
        "x",
        "//e",
    ],
)
def test_a_link_to_anything_but_the_web_is_refused(url: str) -> None:
    assert not leads_to_the_web(url)


def test_links_open_apart_and_tell_nothing_of_the_dashboard() -> None:
    html = markdown("[a](https://example.org/) <https://example.org/b>")
    assert html.count('target="_blank" rel="noopener noreferrer nofollow"') == 2


def test_an_image_stays_a_text_and_loads_nothing() -> None:
    assert "<img" not in markdown("![alt](https://example.org/x.png)")


def test_a_time_that_stands_for_itself_tells_its_year() -> None:
    assert ">2025-10-06 08:12</time>" in moment(1_759_738_364_000)
    assert ">Oct 06, 08:12:44</time>" in clock(1_759_738_364_000)
    assert moment(1 << 62) == f"<span>{1 << 62}</span>"


def test_a_huge_text_is_cut_and_leads_to_the_whole() -> None:
    conversation = Conversation()
    conversation.add([entry({"role": "user", "content": "x" * (SHOWN_CHARACTERS + 5)}, seq=7)])
    html = render(conversation.items[0], "/raw/s")
    assert "5 more characters" in html
    assert 'href="/raw/s/7"' in html
    assert len(html) < SHOWN_CHARACTERS + 2000


def test_of_a_huge_text_only_the_beginning_is_looked_at() -> None:
    assert clipped("\x1b[" + "0" * 10_000_000, 10) == ("␛[00000000", 9_999_992)
    assert one_line("a\n b " + "c" * 10_000_000, 5) == "a b c…"
